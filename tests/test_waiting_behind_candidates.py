"""Who waits behind a candidate, for the slot that it may take, gets it if that one does not."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from simulated import SimulatedLoop

from gserver import Limiter, Limits, Reason, slots
from gserver.admission.verdict import REJECTED, Rejected
from gserver.stats import Ending

WAIT_S = 1.0


@pytest.mark.parametrize("fails", [False, True], ids=["starts", "fails to start"])
def test_who_waits_behind_a_candidate_gets_the_slot_that_is_left(fails: bool) -> None:
    """10.0.0.1 is an operator's, who connects twice: candidates, for their source holds too many,
    until one of it that waits has waited long enough. Another operator, who came after them, was
    told to wait."""
    limits = Limits(
        max_connections=3,
        reserved=2,
        reserved_for=["10.0.0.1", "192.0.2.1"],
        per_source=1,
        source_prefix_v4=24,
        wait=WAIT_S,
    )
    loop = SimulatedLoop()
    with contextlib.ExitStack() as stack:
        stack.enter_context(loop.in_place())
        limiter = Limiter(limits)
        admitted: list[str] = []
        failures = [1] * fails

        def client(host: str) -> tuple[int, Any]:
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            return ours.detach(), (host, 1)

        def admit(fd: int, address: Any, receipt: Any, _header_bytes: int) -> None:
            os.close(fd)
            if failures and address[0] == "10.0.0.1":
                failures.pop()
                raise RuntimeError("on purpose")
            holder = gevent.Greenlet()
            slots.take(limiter.pool, holder)
            limiter.connections.add(holder)
            stack.callback(limiter.ended, holder, holder, receipt, Ending.RETURNED)
            admitted.append(address[0])

        turn_away: dict[Reason, Any] = dict.fromkeys(Reason, os.close)
        front: Any = SimpleNamespace(proxies=None, admit=admit, turn_away=turn_away)

        assert limiter.arrived(client("198.51.100.1"), front) is True
        assert limiter.arrived(client("10.0.0.2"), front) is True
        assert admitted == ["198.51.100.1"]  # what is left is for operators
        loop.now += WAIT_S
        # So that it is looked at who has waited long enough before the candidates are asked.
        assert limiter.arrived(client("203.0.113.1"), front) is True
        candidates = deque([client("10.0.0.1"), client("10.0.0.1")])
        for candidate in candidates:
            verdict = limiter.arrived(candidate, front)
            assert isinstance(verdict, Rejected)
            assert verdict.reason is Reason.SOURCE
        limiter.hold(candidates, front, quiet=False)
        assert limiter.arrived(client("192.0.2.1"), front) is True
        assert limiter.snapshot().waiting == 3
        loop.turn()
        books = limiter.snapshot()
        assert books.rejected[Reason.WAIT_TIMEOUT] == 1
        assert admitted == ["198.51.100.1", "10.0.0.1", "192.0.2.1"]
        assert books.waiting == 1  # who may not have the last two
        assert books.pending == 0
        limiter.leave(front, REJECTED[Reason.DRAINING])
