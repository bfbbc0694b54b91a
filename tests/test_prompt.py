"""G2: at the cap every client gets its verdict without waiting for anyone; nobody hangs."""

from __future__ import annotations

from pathlib import Path

import gevent.server
import pytest
from gevent.pool import Pool
from support import LOCAL, Holding, clients, connect, load, outcome, running

from gserver import Close, Reset, StreamServer


@pytest.mark.parametrize("rejection", [Close(), Reset()], ids=str)
def test_of_500_at_the_same_instant_at_cap_3_exactly_3_are_served_and_497_answered(
    rejection: Close | Reset,
) -> None:
    server = StreamServer(LOCAL, Holding(), max_connections=3, rejection=rejection)
    with running(server), load("burst", server, 500) as burst:
        seen = burst.read()
        assert seen.pop("served") == 3
        assert seen.pop("hung") == 0
        assert sum(seen.values()) == 497
        assert set(seen) == {"closed" if isinstance(rejection, Close) else "reset"}
        assert sum(server.stats.rejected.values()) == 497


def test_control_stock_gevent_leaves_the_excess_hanging() -> None:
    server = gevent.server.StreamServer(LOCAL, Holding(), spawn=Pool(3))
    with running(server), clients(server, 3):
        for _ in range(3):
            with connect(server, timeout=0.3) as extra:  # connected, and met with silence
                assert outcome(extra) == "hung"


def test_a_client_at_the_cap_gets_its_verdict_while_nobody_leaves() -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1)) as server:
        with clients(server, 1):
            for _ in range(50):
                with connect(server, timeout=5.0) as extra:
                    assert outcome(extra) == "closed"
            assert server.stats.active == 1


def test_the_listen_backlog_is_the_systems_longest() -> None:
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert StreamServer.backlog == somaxconn


def test_a_client_gets_its_verdict_once_its_settle_is_over() -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1, settle=0.05)) as server:
        with clients(server, 1), connect(server, timeout=5.0) as extra:
            assert outcome(extra) == "closed"
