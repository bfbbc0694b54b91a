"""Clients taken from the kernel's queue in one turn are candidates in the order of their coming."""

from __future__ import annotations

import _socket
import contextlib
import os
import socket
from collections import deque
from types import SimpleNamespace
from typing import Any

import gevent

from gserver import Close, Limiter, Limits, Reason, slots
from gserver.accept import AcceptLoop
from gserver.admission.verdict import REJECTED
from gserver.net.rejection import by_reason

DRAINING = REJECTED[Reason.DRAINING]


class Queue:
    """A listener with clients in its queue; ``then`` is called as the second is accepted."""

    family, type, proto = _socket.AF_UNIX, _socket.SOCK_STREAM, 0

    def __init__(self, fds: list[int], then: Any) -> None:
        self._fds = deque(fds)
        self._then = then

    def _accept(self) -> tuple[int, str]:
        if not self._fds:
            raise BlockingIOError
        if len(self._fds) == 3:
            self._then()
        return self._fds.popleft(), ""


def test_the_order_stays_when_the_last_that_waits_goes_while_clients_are_taken() -> None:
    """While it waits, though waiting is off by now, each is decided on by itself."""
    with contextlib.ExitStack() as stack:

        def client() -> int:
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            return ours.detach()

        limiter = Limiter(Limits(max_connections=1, wait=60.0))
        slots.take(limiter.pool, gevent.Greenlet())
        turn_away: dict[Reason, Any] = dict.fromkeys(Reason, os.close)
        other: Any = SimpleNamespace(proxies=None, turn_away=turn_away)
        assert limiter.arrived((client(), ""), other) is True
        limiter.limits = Limits(max_connections=1)
        assert limiter.snapshot().waiting == 1
        assert not limiter.holding

        fds = [client() for _ in range(4)]
        loop = AcceptLoop(
            Queue(fds, lambda: limiter.leave(other, DRAINING)),
            limiter,
            lambda *_client: None,
            by_reason(Close()),
            lambda _error: None,
            backlog=1,
            max_accept=100,
            delays=(1.0, 1.0),
        )
        loop._watcher = gevent.get_hub().loop.timer(0.0)  # as if started
        try:
            loop.take(100)
            assert limiter.descriptors() == fds
        finally:
            loop.close()
