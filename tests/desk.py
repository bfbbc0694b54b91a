"""A front without sockets, for tests of the limiter alone."""

from __future__ import annotations

from typing import Any

import gevent

from gserver import Limiter, Reason, slots
from gserver.admission.verdict import Receipt


class Desk:
    """A front without sockets: it remembers what became of whom."""

    proxies = None

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.verdicts: list[int] = []
        self.inside: dict[int, Any] = {}
        self.fails = False

    def admit(self, fd: int, address: Any, receipt: Receipt, _header_bytes: int) -> None:
        self.verdicts.append(fd)
        if self.fails:
            raise RuntimeError("on purpose")
        greenlet = gevent.Greenlet()
        slots.take(self.limiter.pool, greenlet)
        self.limiter.connections.add(fd)
        self.inside[fd] = (greenlet, receipt)

    @property
    def turn_away(self) -> dict[Reason, Any]:
        return dict.fromkeys(Reason, self.verdicts.append)
