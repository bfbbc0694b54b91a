"""A proxy's client that has said who it is: from then on it is treated as one that came by itself,
with the source that its header told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from proxied import by_proxy, served_by_proxy, v1, v2
from support import (
    connect,
    echo,
    eventually,
    greet,
    load,
    outcome,
    running,
    turn,
)

import gserver.header_room
from gserver import Ending, Limiter, Limits, Reason, StreamServer, Timeouts

FOR_EVER = 3600.0
OPERATORS = "203.0.113.0/24"
#: Only a reserved slot is left when one is served.
RESERVED = {"max_connections": 2, "reserved": 1, "reserved_for": [OPERATORS]}


@contextlib.contextmanager
def one_served(**settings: Any) -> Iterator[tuple[Any, Any]]:
    with served_by_proxy(greet, **settings) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            yield server, one
        eventually(lambda: server.stats.active == 0)
        assert server.stats.balanced
        assert not server.limiter._proxied.named


# ---- as a candidate ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [{"max_connections": 9, "per_source": 1}, RESERVED],
    ids=["its source's slots", "all but the reserved"],
)
def test_it_is_held_without_a_slot_until_one_comes_back(rules: Any) -> None:
    header = v2("192.0.2.1")
    with one_served(limits=Limits(**rules), settle=FOR_EVER) as (server, one):
        with by_proxy(server, header) as two:
            eventually(lambda: server.stats.pending == 1 and server.stats.reading == 0)
            assert len(server.pool) == 1
            assert server.stats.balanced
            one.close()
            assert outcome(two) == "served"
            [connection] = [c for c in server.limiter.connections if not c.ended]
            assert connection.address[0] == "192.0.2.1"
            assert connection.header_bytes == len(header)
        assert not any(server.stats.rejected.values())


@pytest.mark.parametrize(
    ("rules", "reason"),
    [({"max_connections": 9, "per_source": 1}, Reason.SOURCE), (RESERVED, Reason.CAPACITY)],
    ids=["its source's slots", "all but the reserved"],
)
def test_it_is_rejected_at_the_end_of_its_settle(rules: Any, reason: Reason) -> None:
    with one_served(limits=Limits(**rules), settle=0.03) as (server, _):
        with by_proxy(server, v1("192.0.2.1")) as two:
            assert outcome(two) == "closed"
        assert server.stats.rejected[reason] == 1
        assert server.limiter._log._report._hosts == {"192.0.2.1": 1}


def test_it_is_a_candidate_too_when_the_cap_was_lowered_meanwhile() -> None:
    with one_served(cap=2, settle=FOR_EVER) as (server, one):
        with connect(server) as two:
            eventually(lambda: server.stats.reading == 1)
            server.max_connections = 1
            two.sendall(v1("192.0.2.2"))
            eventually(lambda: len(server.pool) == 1)
            assert server.stats.pending == 1
            one.close()
            assert outcome(two) == "served"


def test_it_is_told_when_its_listener_closes() -> None:
    limits = Limits(max_connections=9, per_source=1)
    with one_served(limits=limits, settle=FOR_EVER) as (server, _):
        with by_proxy(server, v1("192.0.2.1")) as two:
            eventually(lambda: server.stats.pending == 1 and server.stats.reading == 0)
            server.close()
            assert outcome(two) == "closed"
        assert server.limiter.snapshot().rejected[Reason.DRAINING] == 1


def linger(sock: Any, address: Any) -> None:
    """A handler that needs a moment to end."""
    greet(sock, address)
    turn(0.003)


@pytest.mark.parametrize(
    ("handler", "settle"), [(greet, 0.0), (linger, 5.0)], ids=["at once", "in 3 ms"]
)
@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_connections=10),
        Limits(max_connections=100, per_source=10),
        Limits(max_connections=13, reserved=3, reserved_for=[OPERATORS]),
    ],
    ids=["the cap", "a source's", "all but the reserved"],
)
def test_churners_that_together_hold_exactly_what_they_may_are_never_turned_away(
    limits: Limits, handler: Any, settle: float
) -> None:
    """G3 behind a proxy, for those who all come from one source."""
    with served_by_proxy(handler, limits=limits, settle=settle) as server:
        with load("churn", server, 10, 2000, speaks="v2@192.0.2.1") as churn:
            assert set(churn.read()) == {"served"}


def test_control_without_being_held_those_churners_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gserver.header_room, "ENDINGS_MAKE_ROOM", ())
    limits = Limits(max_connections=100, per_source=10)
    with served_by_proxy(linger, limits=limits, settle=5.0) as server:
        with load("churn", server, 10, 2000, speaks="v2@192.0.2.1") as churn:
            churn.read()
        assert server.stats.rejected[Reason.SOURCE]


# ---- as one that waits ---------------------------------------------------------------------


def test_it_waits_for_a_slot_it_may_have_and_leaves_the_reserved_to_others() -> None:
    header = v2("192.0.2.2")
    with one_served(limits=Limits(**RESERVED, wait=FOR_EVER, per_source=1)) as (server, one):
        with by_proxy(server, header) as two:
            eventually(lambda: server.stats.waiting == 1)
            assert server.stats.pending == 0
            assert len(server.pool) == 1
            counted = {"192.0.2.1": 1, "192.0.2.2": 1}  # as of everybody who waits
            assert dict(server.limiter.gate.top_sources(9)) == counted
            server.limiter.limits = Limits(
                **RESERVED, wait=FOR_EVER, per_source=1, source_prefix_v4=24
            )
            assert dict(server.limiter.gate.top_sources(9)) == {"192.0.2.0/24": 2}
            with by_proxy(server, v1("203.0.113.1")) as operator:
                assert outcome(operator) == "served"
            eventually(lambda: server.stats.active == 1)
            assert server.stats.waiting == 1
            one.close()
            assert outcome(two) == "served"
            [connection] = [c for c in server.limiter.connections if not c.ended]
            assert connection.header_bytes == len(header)
        assert not any(server.stats.rejected.values())


def test_its_wait_is_bounded_and_it_is_dropped_when_it_leaves() -> None:
    with one_served(limits=Limits(**RESERVED, wait=0.05)) as (server, _):
        with by_proxy(server, v1("192.0.2.2")) as two:
            assert outcome(two) == "closed"
        assert server.stats.rejected[Reason.WAIT_TIMEOUT] == 1
        server.limiter.limits = Limits(**RESERVED, wait=FOR_EVER)
        with by_proxy(server, v1("192.0.2.2")):
            eventually(lambda: server.stats.waiting == 1)
        eventually(lambda: server.stats.abandoned == 1)


def test_those_who_wait_are_bounded_and_none_too_many_is_rejected_before_endings_are_over() -> None:
    limits = Limits(**RESERVED, wait=FOR_EVER, wait_queue=1)
    with one_served(limits=limits) as (server, one):
        with by_proxy(server, v1("192.0.2.2")) as two:
            eventually(lambda: server.stats.waiting == 1)
            with by_proxy(server, v1("192.0.2.3")) as three:
                assert outcome(three) == "closed"
            assert server.stats.rejected[Reason.WAIT_FULL] == 1
            one.close()
            assert outcome(two) == "served"


def test_newcomers_behind_a_proxy_do_not_overtake_it() -> None:
    """Not even with a slot in hand, for their header, when its own comes back."""
    with one_served(limits=Limits(**RESERVED, wait=FOR_EVER)) as (server, one):
        with by_proxy(server, v1("192.0.2.2")) as two:
            eventually(lambda: server.stats.waiting == 1)
            with connect(server) as three:
                eventually(lambda: server.stats.reading == 1)
                one.close()
                assert outcome(two) == "served"
                three.sendall(v1("192.0.2.3"))
                eventually(lambda: server.stats.waiting == 1)
                two.close()
                assert outcome(three) == "served"


def test_it_waits_with_its_slot_given_back_while_direct_clients_come() -> None:
    limiter = Limiter(Limits(**RESERVED, wait=FOR_EVER))
    with running(StreamServer(("127.0.0.1", 0), greet, limiter=limiter)) as direct:
        with one_served(limiter=limiter) as (proxied, one):
            with by_proxy(proxied, v1("192.0.2.2")) as two:
                eventually(lambda: limiter.snapshot().waiting == 1)
                with connect(direct) as three:
                    eventually(lambda: limiter.snapshot().waiting == 2)
                    one.close()
                    assert outcome(two) == "served"  # first come, first served
                    two.close()
                    assert outcome(three) == "served"


# ---- its own words count, not its header ---------------------------------------------------


def test_it_is_silent_until_its_own_first_byte_however_long_it_was_held() -> None:
    limits = Limits(max_connections=9, per_source=1)
    timeouts = Timeouts(first_byte=0.05)
    with served_by_proxy(echo, limits=limits, settle=FOR_EVER, timeouts=timeouts) as server:
        with by_proxy(server, v1("192.0.2.1") + b"x") as one:
            assert one.recv(1) == b"+"
            with by_proxy(server, v1("192.0.2.1")) as two:
                eventually(lambda: server.stats.pending == 1 and server.stats.reading == 0)
                one.close()
                assert two.recv(1) == b"+"
                assert outcome(two) == "closed"
        assert server.stats.finished[Ending.FIRST_BYTE_TIMEOUT] == 1


# ---- dry run -------------------------------------------------------------------------------


def test_what_a_rule_would_reject_is_logged_by_the_clients_source(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gserver.report.SUMMARY_S", 0.0)
    monkeypatch.setattr("gserver.rejection_log.CALM_S", 0.02)
    limits = Limits(max_connections=9, deny=[OPERATORS], dry_run=["denied"])
    with served_by_proxy(greet, limits=limits) as server:
        with by_proxy(server, v1("203.0.113.1")) as sock:
            assert outcome(sock) == "served"
            eventually(lambda: "dry run: 1 would have been rejected" in caplog.text)
        assert "(denied 1)" in caplog.text
        eventually(lambda: server.stats.active == 0)
        eventually(lambda: server.limiter._log._timer is None)


# ---- eviction ------------------------------------------------------------------------------

AGE = 0.1


@contextlib.contextmanager
def full_and_idle(cap: int = 1, **rules: Any) -> Iterator[tuple[Any, Any]]:
    limits = Limits(max_connections=cap, **rules)
    with served_by_proxy(greet, limits=limits, evict_idle=AGE) as server:
        with by_proxy(server, v1("192.0.2.1")) as held:
            assert outcome(held) == "served"
            eventually(lambda: len(server._reaper._longest) == 1)
            yield server, held
        eventually(lambda: server.stats.active == server.stats.pending == 0)
        assert server.stats.balanced


@pytest.mark.parametrize("live", [False, True], ids=["from the start", "set while it runs"])
@pytest.mark.parametrize(
    ("rules", "host", "reason"),
    [
        ({"deny": [OPERATORS]}, "203.0.113.1", Reason.DENIED),
        ({"per_source": 1}, "192.0.2.1", Reason.SOURCE),
    ],
    ids=["denied", "its source has too many"],
)
def test_nobody_is_evicted_for_a_client_that_the_rules_turn_away(
    rules: Any, host: str, reason: Reason, live: bool
) -> None:
    with full_and_idle(**{} if live else rules) as (server, held):
        if live:
            server.limiter.limits = Limits(max_connections=1, **rules)
        with by_proxy(server, v1(host)) as newcomer:
            assert outcome(newcomer) == "closed"
        assert server.stats.rejected[reason] == 1
        assert server.stats.finished[Ending.EVICTED] == 0
        held.settimeout(0.05)
        assert outcome(held) == "hung"


def test_nobody_is_evicted_for_a_proxy_that_sends_no_header() -> None:
    with full_and_idle() as (server, _):
        with by_proxy(server, b"GET / HTTP/1.0\r\n\r\n") as newcomer:
            assert outcome(newcomer) in ("closed", "reset")
        assert server.stats.rejected[Reason.HEADER] == 1
        with connect(server):  # nor before it has: it is looked at, without a slot
            eventually(lambda: server.stats.pending == 1)
            assert server.stats.reading == 0
            assert len(server.pool) == 1
            assert server.audit().clean
        eventually(lambda: server.stats.abandoned == 1)
        assert server.stats.finished[Ending.EVICTED] == 0


@pytest.mark.parametrize("rules", [{}, {"per_source": 1}], ids=["bare", "rules"])
def test_the_longest_idle_makes_room_for_a_client_that_only_a_slot_is_missing_to(
    rules: Any,
) -> None:
    with full_and_idle(**rules) as (server, held):
        with by_proxy(server, v1("192.0.2.2")) as newcomer:
            assert outcome(newcomer) == "served"
        assert outcome(held) == "closed"
        assert server.stats.finished[Ending.EVICTED] == 1
        assert not any(server.stats.rejected.values())


def test_headers_read_without_a_slot_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gserver.proxied.MAX_CANDIDATES", 3)
    with full_and_idle() as (server, _), contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(server))
        eventually(lambda: server.stats.pending == 3)
        with connect(server) as fourth:
            assert outcome(fourth) == "closed"
        assert server.stats.rejected[Reason.CAPACITY] == 1
        assert server.stats.pending == 3


def test_headers_read_without_a_slot_end_with_their_listener() -> None:
    with full_and_idle() as (server, _), connect(server) as sock:
        eventually(lambda: server.stats.pending == 1)
        server.close()
        assert outcome(sock) == "closed"
        assert server.limiter.snapshot().rejected[Reason.DRAINING] == 1
