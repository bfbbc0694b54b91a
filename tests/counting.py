"""Counts what is made and what runs: a rejection makes and runs nothing of its own (G10)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
import greenlet
import pytest
from gevent.pool import Pool
from gevent.socket import socket as GeventSocket

import gserver.server

__all__ = ["Made", "which_run"]


class Made(Counter[str]):
    """How many gevent sockets servers have made for their clients, and greenlets pools of
    :meth:`pool` for theirs, by "socket" and "greenlet"."""

    def pool(self, size: int) -> Pool:
        made = self

        class CountedGreenlet(gevent.Greenlet):  # type: ignore[type-arg]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                made["greenlet"] += 1
                super().__init__(*args, **kwargs)

        return Pool(size, greenlet_class=CountedGreenlet)

    def count_sockets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on: a server that is running has its listener already."""
        made = self

        class CountedSocket(GeventSocket):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                made["socket"] += 1
                super().__init__(*args, **kwargs)

        monkeypatch.setattr(gserver.server, "GeventSocket", CountedSocket)


@contextlib.contextmanager
def which_run() -> Iterator[set[int]]:
    """The ids of the greenlets of any kind that run meanwhile, however made."""
    ran: set[int] = set()
    greenlet.settrace(lambda _event, greenlets: ran.update(map(id, greenlets)))
    try:
        yield ran
    finally:
        greenlet.settrace(None)
