"""G1: never more served at the same time than the cap; all of the cap can be reached."""

from __future__ import annotations

from typing import Any

import pytest
from gevent.pool import Pool
from sockdiag import kernel_rows
from support import (
    LOCAL,
    Holding,
    clients,
    connect,
    eventually,
    load,
    outcome,
    running,
)

from gserver import Limiter, Reset, StreamServer
from gserver.stats import Counters


class PeakPool(Pool):
    """Notes the most members it ever had, at each change."""

    peak = 0

    def add(self, greenlet: Any, *args: Any, **kwargs: Any) -> None:
        super().add(greenlet, *args, **kwargs)
        self.peak = max(self.peak, len(self))


@pytest.mark.parametrize("cap", [1, 2, 3, 50])
def test_exactly_the_cap_is_served_of_a_burst_counted_inside_and_outside(cap: int) -> None:
    handler = Holding()
    pool = PeakPool(cap)
    with running(StreamServer(LOCAL, handler, spawn=pool)) as server:
        with load("burst", server, cap + 100) as burst:
            seen = burst.read()
            assert seen["served"] == cap
            # From outside: what the kernel says while the served still hold on.
            assert handler.inside == handler.peak == cap
            assert server.stats.active == cap
            rows = [inode for _, inode in kernel_rows(server.server_port) if inode]
            assert len(rows) == cap
        handler.release.set()
        eventually(lambda: server.stats.active == 0)
        assert pool.peak == server.stats.peak == cap


def test_sockets_seen_twice_by_the_kernel_never_exceed_the_cap_during_a_flood() -> None:
    cap = 3
    server = StreamServer(LOCAL, Holding(), max_connections=cap, rejection=Reset())
    with running(server):
        before: set[int] = set()
        with clients(server, cap), load("flood", server, 40) as flood:
            for _ in range(30):
                now = {inode for _, inode in kernel_rows(server.server_port) if inode}
                assert len(now & before) <= cap
                before = now
                rejected = server.stats.rejected.copy()
                eventually(lambda: server.stats.rejected != rejected)  # noqa: B023  # at once
            flood.tell()
            assert flood.read()["reset"] > 100


def test_count_and_handlers_agree_at_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    cap = 5
    handler = Holding()
    handler.release.set()  # in and out
    seen: list[tuple[int, int]] = []
    original = Counters.occupancy

    def note(self: Counters, in_use: int, full: bool, now: float) -> None:
        seen.append((in_use, handler.inside))
        original(self, in_use, full, now)

    monkeypatch.setattr(Counters, "occupancy", note)
    with running(StreamServer(LOCAL, handler, max_connections=cap)) as server:
        with load("churn", server, 20, 2000) as churn:
            churn.read()
        eventually(lambda: server.stats.active == 0)
    assert max(in_use for in_use, _ in seen) == cap  # the load did reach it
    assert all(inside <= in_use <= cap for in_use, inside in seen)


def test_two_servers_with_one_limiter_have_one_cap_between_them() -> None:
    limiter = Limiter(3)
    first = StreamServer(LOCAL, Holding(), limiter=limiter)
    second = StreamServer(LOCAL, Holding(), limiter=limiter)
    with running(first), running(second), clients(first, 2), clients(second, 1):
        for server in first, second:
            with connect(server) as extra:
                assert outcome(extra) == "closed"
        assert first.stats.accepted == second.stats.accepted == 5
        assert limiter.snapshot().peak == 3
