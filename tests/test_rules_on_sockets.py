"""The rules through a server: who is told what, by address, on real sockets."""

from __future__ import annotations

import contextlib
import logging
import random
import socket as native
import ssl
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from speaking import v1
from support import (
    DEADLINE,
    LOCAL,
    Holding,
    clients,
    connect,
    eventually,
    greet,
    outcome,
    running,
    server_context,
    turn,
    vanish,
)

import gserver.rejection_log
from gserver import Ending, Limiter, Limits, Reason, Reset, StreamServer, Timeouts
from gserver.admission.penalties import Offence


def ruled(handler: Any = greet, address: Any = LOCAL, **rules: Any) -> StreamServer:
    limits = Limits(**{"max_connections": 10, **rules})
    return StreamServer(address, handler, limits=limits)


def come(server: Any, source: str = "127.0.0.1") -> Any:
    """A client from an address of its own."""
    host = "::1" if ":" in source else "127.0.0.1"
    return socket.create_connection((host, server.server_port), DEADLINE, (source, 0))


def seen(server: Any, source: str = "127.0.0.1") -> str:
    with come(server, source) as sock:
        return outcome(sock)


def knock(port: int) -> bytes:
    with native.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        return sock.recv(1)


@contextlib.contextmanager
def staying(server: Any, *sources: str) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(come(server, source)) for source in sources]
        assert [outcome(sock) for sock in found] == ["served"] * len(sources)
        yield found


# ---- access lists --------------------------------------------------------------------------


def test_the_most_specific_entry_of_the_lists_says_who_may_connect() -> None:
    server = ruled(allow=["127.0.0.0/8", "127.0.0.9"], deny=["127.0.0.8/30", "all"])
    with running(server):
        assert seen(server, "127.0.0.1") == "served"
        assert seen(server, "127.0.0.8") == "closed"
        assert seen(server, "127.0.0.9") == "served"
        assert server.stats.rejected[Reason.DENIED] == 1


def test_on_a_dual_stack_listener_ipv4_clients_are_ipv4_clients() -> None:
    """They come as ::ffff:127.0.0.1 there."""
    with running(ruled(address=("", 0), allow=["127.0.0.1"])) as server:
        assert seen(server, "127.0.0.1") == "served"
        assert seen(server, "127.0.0.2") == "closed"
        assert seen(server, "::1") == "closed"


def test_an_ipv6_client_is_allowed_by_its_network() -> None:
    with running(ruled(address=("", 0), allow=["::1/128"])) as server:
        assert seen(server, "::1") == "served"
        assert seen(server, "127.0.0.1") == "closed"


def test_who_is_denied_is_told_so_at_a_full_server_too() -> None:
    with running(ruled(max_connections=1, deny=["127.0.0.2"])) as server, clients(server, 1):
        assert seen(server, "127.0.0.2") == "closed"
        assert server.stats.rejected[Reason.DENIED] == 1


# ---- by source -----------------------------------------------------------------------------


def test_a_source_holds_no_more_than_its_slots_and_the_others_are_left_alone() -> None:
    with running(ruled(per_source=2)) as server:
        with staying(server, "127.0.0.1", "127.0.0.1", "127.0.0.2"):
            assert seen(server, "127.0.0.1") == "closed"
            assert seen(server, "127.0.0.2") == "served"
            assert server.stats.rejected[Reason.SOURCE] == 1
        eventually(lambda: server.stats.gate.sources_counted == 0)
        assert seen(server, "127.0.0.1") == "served"


@pytest.mark.parametrize("ending", ["returned", "raised", "exited", "killed", "stopped"])
def test_a_sources_count_comes_back_whatever_ends_its_connection(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "gserver")

    def handler(sock: Any, _address: Any) -> None:
        sock.sendall(b"+")
        if ending == "raised":
            raise RuntimeError("on purpose")
        if ending == "exited":
            raise SystemExit
        sock.recv(1)

    with running(ruled(handler, per_source=1)) as server:
        for _ in range(3):
            with staying(server, "127.0.0.1"):
                if ending == "killed":
                    server.pool.kill()
                if ending == "stopped":
                    break
            eventually(lambda: server.stats.active == 0)
        if ending == "stopped":
            server.stop(0)
        assert server.stats.gate.sources_counted == 0
        assert server.stats.rejected[Reason.SOURCE] == 0


def test_sources_are_as_wide_as_the_prefix_says() -> None:
    with running(ruled(per_source=1, source_prefix_v4=24)) as server:
        with staying(server, "127.0.0.1", "127.0.1.1"):
            assert seen(server, "127.0.0.200") == "closed"


def test_the_exempt_are_left_alone() -> None:
    with running(ruled(per_source=1, source_rate=0.001, source_exempt=["127.0.0.2"])) as server:
        with staying(server, "127.0.0.2", "127.0.0.2", "127.0.0.2"):
            assert seen(server, "127.0.0.1") == "served"
            assert seen(server, "127.0.0.1") == "closed"


# ---- rates ---------------------------------------------------------------------------------


def test_beyond_the_total_rate_everybody_is_turned_away_but_those_of_the_reserve() -> None:
    rules = {"rate": 0.01, "rate_burst": 2, "reserved": 1, "reserved_for": ["127.0.0.9"]}
    with running(ruled(**rules)) as server:
        got = [seen(server, f"127.0.0.{n}") for n in range(1, 5)]
        assert got == ["served", "served", "closed", "closed"]
        assert server.stats.rejected[Reason.RATE] == 2
        assert seen(server, "127.0.0.9") == "served"


def test_beyond_a_sources_rate_it_alone_is_turned_away_until_the_rate_lets_it_in_again() -> None:
    with running(ruled(source_rate=2, source_rate_burst=1)) as server:
        assert seen(server) == "served"
        assert seen(server) == "closed"
        assert seen(server, "127.0.0.2") == "served"
        assert server.stats.rejected[Reason.SOURCE_RATE] == 1
        eventually(lambda: seen(server) == "served")


def test_an_attempt_is_consumed_also_when_there_was_no_slot() -> None:
    rules = {"max_connections": 1, "source_rate": 0.01, "source_rate_burst": 3}
    with running(ruled(**rules)) as server, clients(server, 1):
        assert [seen(server) for _ in range(4)] == ["closed"] * 4
        assert server.stats.rejected[Reason.CAPACITY] == 2
        assert server.stats.rejected[Reason.SOURCE_RATE] == 2


# ---- the reserve, early drop ---------------------------------------------------------------


def test_the_last_slots_are_kept_for_the_networks_of_the_reserve() -> None:
    rules = {"max_connections": 3, "reserved": 2, "reserved_for": ["127.0.0.2/31"]}
    with running(ruled(**rules)) as server:
        with staying(server, "127.0.0.1"):
            assert seen(server, "127.0.0.1") == "closed"
            with staying(server, "127.0.0.2", "127.0.0.3"):
                assert seen(server, "127.0.0.2") == "closed"
                assert server.stats.active == 3
        with staying(server, "127.0.0.2"):  # they are the last ones, not certain ones
            assert seen(server, "127.0.0.1") == "closed"


def test_a_reserved_slot_is_not_kept_from_whom_it_is_for_by_candidates_ahead() -> None:
    """That slot is of no use to them: they wait for another, and he goes in."""
    rules = {"max_connections": 2, "reserved": 1, "reserved_for": ["127.0.0.2"]}
    limiter = Limiter(Limits(**rules), settle=3600.0)
    with running(StreamServer(LOCAL, greet, limiter=limiter)) as server:
        with come(server) as first, contextlib.ExitStack() as stack:
            assert outcome(first) == "served"
            ahead = stack.enter_context(come(server))
            eventually(lambda: server.stats.pending == 1)
            with staying(server, "127.0.0.2"):
                assert server.stats.pending == 1
            first.close()
            assert outcome(ahead) == "served"


def test_early_drop_turns_away_by_lot_before_the_slots_run_out() -> None:
    limiter = Limiter(Limits(max_connections=100, early_drop="2:50:100"))
    limiter.gate._draw = random.Random(7).random
    with running(StreamServer(LOCAL, greet, limiter=limiter)) as server:
        with clients(server, 2):
            got = [seen(server) for _ in range(60)]
    assert 15 < got.count("closed") < 45
    assert limiter.snapshot().rejected[Reason.EARLY_DROP] == got.count("closed")


def test_candidates_have_no_slots_and_do_not_count_for_early_drop() -> None:
    limiter = Limiter(
        Limits(max_connections=20, per_source=1, early_drop="2:100:20"), settle=3600.0
    )
    with running(StreamServer(LOCAL, greet, limiter=limiter)) as server:
        with staying(server, "127.0.0.2"), contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(come(server, "127.0.0.2"))
            eventually(lambda: server.stats.pending == 5)
            assert seen(server) == "served"  # one slot is taken, not six
            assert server.stats.rejected[Reason.EARLY_DROP] == 0


# ---- penalties -----------------------------------------------------------------------------


def test_a_source_whose_handshakes_fail_is_shut_out_for_a_while() -> None:
    limits = Limits(max_connections=10, penalty=0.4, penalty_threshold=0.5, penalty_max=1.0)
    context = server_context(ssl.SSLContext)
    with running(StreamServer(LOCAL, greet, limits=limits, ssl_context=context)) as server:

        def break_a_handshake(source: str) -> None:
            failed = server.stats.finished[Ending.HANDSHAKE_FAILED]
            with come(server, source) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                eventually(lambda: server.stats.finished[Ending.HANDSHAKE_FAILED] > failed)

        break_a_handshake("127.0.0.2")
        break_a_handshake("127.0.0.2")
        assert server.stats.gate.offences[Offence.HANDSHAKE] == 2
        assert server.stats.gate.sources_penalised == 1
        assert seen(server, "127.0.0.2") in ("closed", "reset")
        assert server.stats.rejected[Reason.PENALTY] == 1
        break_a_handshake("127.0.0.1")  # another source is left alone, and gets to try
        rejected = server.stats.rejected[Reason.PENALTY]
        turn(1.0)
        break_a_handshake("127.0.0.2")  # it has paid
        assert server.stats.rejected[Reason.PENALTY] == rejected


@pytest.mark.parametrize(
    ("timeouts", "offences"),
    [(Timeouts(lifetime=0.05), 0), (Timeouts(first_byte=0.05), 1)],
    ids=["lifetime", "first byte"],
)
def test_a_handshake_that_we_ended_is_no_offence_unless_the_client_was_silent(
    timeouts: Timeouts, offences: int
) -> None:
    limits = Limits(max_connections=10, penalty=10.0)
    context = server_context(ssl.SSLContext)
    server = StreamServer(LOCAL, greet, limits=limits, ssl_context=context, timeouts=timeouts)
    with running(server), come(server) as sock:
        assert outcome(sock) in ("closed", "reset", "served")  # served: an alert
        eventually(lambda: server.stats.active == 0)
        assert server.stats.admitted == 1
        assert server.stats.gate.offences[Offence.HANDSHAKE] == offences


@pytest.mark.parametrize("leave", [vanish, lambda sock: sock.close()], ids=["reset", "close"])
@pytest.mark.parametrize("proxied", [False, True], ids=["by itself", "by a proxy"])
def test_who_leaves_a_tls_listener_without_a_word_commits_no_offence(
    leave: Any, proxied: bool
) -> None:
    """As a load balancer's check does."""
    limits = Limits(max_connections=10, penalty=600.0)
    context = server_context(ssl.SSLContext)
    behind: Any = {"proxy_protocol_from": ["127.0.0.0/8"]} if proxied else {}
    server = StreamServer(LOCAL, greet, limits=limits, ssl_context=context, **behind)
    with running(server):
        for number in range(1, 5):
            sock = connect(server)
            if proxied:
                sock.sendall(v1("192.0.2.1"))
                eventually(lambda number=number: server.stats.admitted == number)
            leave(sock)
            eventually(lambda number=number: sum(server.stats.finished.values()) == number)
        assert server.stats.finished[Ending.LEFT_SILENT] == 4
        assert server.stats.gate.offences[Offence.HANDSHAKE] == 0
        with connect(server) as sock:
            sock.sendall((v1("192.0.2.1") if proxied else b"") + b"\x16\x03")  # and then leaves
            eventually(lambda: server.stats.active == 1)
        eventually(lambda: server.stats.finished[Ending.HANDSHAKE_FAILED] == 1)
        assert server.stats.gate.offences[Offence.HANDSHAKE] == 1


def test_an_honest_client_that_tries_again_at_a_full_server_is_not_penalised() -> None:
    rules = {"max_connections": 1, "penalty": 100.0, "source_rate": 0.5, "source_rate_burst": 2}
    with running(ruled(**rules)) as server, clients(server, 1):
        for _ in range(20):
            assert seen(server) == "closed"
        assert server.stats.gate.sources_penalised == 0


def test_the_log_names_sources_as_the_rules_in_force_count_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gserver.report.SUMMARY_S", 0.05)
    monkeypatch.setattr(gserver.rejection_log, "CALM_S", 0.05)
    with running(ruled(max_connections=1)) as server, clients(server, 1):
        server.limiter.limits = Limits(max_connections=1, source_prefix_v4=8)
        assert seen(server) == "closed"
        eventually(lambda: "1 from 127.0.0.0/8" in caplog.text)


# ---- dry run -------------------------------------------------------------------------------


def test_a_rule_in_dry_run_counts_and_logs_and_turns_nobody_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gserver.report.SUMMARY_S", 0.05)
    monkeypatch.setattr(gserver.rejection_log, "CALM_S", 0.05)
    rules = {
        "per_source": 1,
        "source_rate": 0.001,
        "deny": ["127.0.0.1"],
        "dry_run": ["source", "source_rate", "denied"],
    }
    with running(ruled(**rules)) as server, clients(server, 3):
        would = server.stats.gate.would_reject
        assert would[Reason.DENIED] == 3
        assert would[Reason.SOURCE_RATE] == 2
        assert would[Reason.SOURCE] == 2
        assert sum(server.stats.rejected.values()) == 0
        eventually(lambda: "dry run" in caplog.text)
        eventually(lambda: server.limiter._log._timer is None)  # nothing more to say
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert "(denied 3, source_rate 2, source 2); 3/10 in use" in lines[0]
    assert lines[0].startswith("dry run: 7 would have been rejected in 0.")


def test_a_rule_in_dry_run_is_logged_also_where_the_cap_turns_the_client_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gserver.report.SUMMARY_S", 0.05)
    monkeypatch.setattr(gserver.rejection_log, "CALM_S", 0.05)
    rules = {"max_connections": 1, "per_source": 1, "dry_run": ["source"]}
    with running(ruled(**rules)) as server, clients(server, 1):
        eventually(lambda: server.limiter._log._timer is None)  # of the one admitted
        # From a thread: clients in this loop are something else for the kernel to report, and then
        # the server does not turn anybody away the short way.
        assert gevent.get_hub().threadpool.apply(knock, (server.server_port,)) == b""
        eventually(lambda: "dry run: 1 would have been rejected" in caplog.text)
        assert server.stats.rejected[Reason.CAPACITY] == 1


# ---- other rules while it serves -----------------------------------------------------------


def test_rules_put_in_force_anew_count_those_admitted_already_and_end_nobody() -> None:
    handler = Holding()
    with running(ruled(handler, max_connections=10)) as server:
        with staying(server, "127.0.0.1", "127.0.0.1", "127.0.0.2"):
            server.limiter.limits = Limits(max_connections=10, per_source=2)
            assert handler.inside == 3
            assert seen(server, "127.0.0.1") == "closed"
            with staying(server, "127.0.0.2"):
                assert seen(server, "127.0.0.2") == "closed"
            server.limiter.limits = Limits(max_connections=10, per_source=3, source_prefix_v4=24)
            assert server.stats.gate.sources_counted == 1
            server.limiter.limits = Limits(max_connections=5)
            assert server.stats.gate.sources_counted == 0
            assert server.max_connections == server.pool.size == 5
            with staying(server, "127.0.0.1"):
                pass
        handler.release.set()
        eventually(lambda: server.stats.active == 0)


def test_what_was_counted_under_old_rules_is_given_back_under_new_ones() -> None:
    with running(ruled(per_source=2)) as server:
        with staying(server, "127.0.0.1", "127.0.0.1"):
            server.limiter.limits = Limits(max_connections=10, per_source=2, deny=["127.0.0.3"])
        eventually(lambda: server.stats.active == 0)
        assert server.stats.gate.sources_counted == 0
        with staying(server, "127.0.0.1", "127.0.0.1"):
            assert seen(server, "127.0.0.3") == "closed"


def test_each_reason_is_turned_away_in_its_own_way() -> None:
    limits = Limits(max_connections=1, deny=["127.0.0.2"])
    server = StreamServer(LOCAL, greet, limits=limits, rejection={"denied": Reset()})
    with running(server), clients(server, 1):
        assert seen(server, "127.0.0.2") == "reset"
        assert seen(server) == "closed"


def test_who_is_not_rejected_is_served_with_the_address_it_came_from() -> None:
    hosts: list[str] = []

    def handler(sock: Any, address: Any) -> None:
        hosts.append(address[0])
        greet(sock, address)

    with running(ruled(handler, per_source=5, allow=["all"])) as server:
        with staying(server, "127.0.0.7"):
            assert hosts == ["127.0.0.7"]
