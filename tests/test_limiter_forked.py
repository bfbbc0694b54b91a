"""A limiter in a forked child: its books begin anew, wherever they are written."""

from __future__ import annotations

from time import monotonic

from proxied import GARBAGE, by_proxy, served_by_proxy, v1
from support import connect, eventually, greet, outcome, turn

from gserver import Reason
from gserver.net.proxy_header import Fault


def test_faults_of_headers_are_counted_in_the_childs_books() -> None:
    with served_by_proxy(greet) as server:
        for faults in (2, 1):
            for _ in range(faults):
                with by_proxy(server, GARBAGE) as sock:
                    assert outcome(sock) in ("closed", "reset")
            assert server.stats.header_faults == {Fault.NO_HEADER: faults}
            assert server.stats.rejected[Reason.HEADER] == faults
            server.limiter.forked()
            assert not server.stats.header_faults


def test_time_without_a_free_slot_counts_from_the_fork_where_a_child_inherits_them_all() -> None:
    with served_by_proxy(greet, cap=1) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            began = monotonic()
            server.limiter.forked()
            forked = monotonic()
            assert server.limiter.counters.peak == 1
            turn(0.05)
            full = monotonic() - forked
            assert full <= server.stats.time_full <= monotonic() - began
        eventually(lambda: len(server.pool) == 0)


def test_the_log_of_rejections_goes_on_with_the_childs_totals() -> None:
    with served_by_proxy(greet, cap=1) as server, connect(server):
        eventually(lambda: server.stats.reading == 1)
        for _ in range(2):
            with connect(server) as sock:
                assert outcome(sock) == "closed"
            report = server.limiter._log
            assert report._report.rejecting
            assert report._totals == {**dict.fromkeys(Reason, 0), Reason.CAPACITY: 1}
            server.limiter.forked()
            assert not server.limiter._log._report.rejecting
            assert report._timer is None
