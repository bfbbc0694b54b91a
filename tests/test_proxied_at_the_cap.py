"""Proxies' clients at the cap: they wait as others do, before their header and after it."""

from __future__ import annotations

import pytest
from proxied import GARBAGE, by_proxy, served_by_proxy, v1, v2
from support import Holding, connect, eventually, greet, outcome

import gserver.server
from gserver import Limits, Reason, Refuse, Reply


def test_candidate_gets_the_slot_that_comes_back_and_then_its_header_is_read() -> None:
    limits = Limits(max_connections=1, deny=["203.0.113.0/24"])
    with served_by_proxy(greet, limits=limits, settle=3600.0) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with (
                by_proxy(server, v1("203.0.113.1")) as denied,
                by_proxy(server, v1("192.0.2.2")) as two,
            ):
                eventually(lambda: server.stats.pending == 2)
                assert server.stats.reading == 0
                one.close()
                assert outcome(denied) == "closed"
                assert outcome(two) == "served"
        eventually(lambda: server.stats.active == 0)
        assert server.stats.admitted == 2


def test_client_behind_a_proxy_that_leaves_and_comes_again_finds_the_slot_free() -> None:
    with served_by_proxy(greet, cap=1) as server:
        sock = by_proxy(server, v1("192.0.2.1"))
        assert outcome(sock) == "served"
        for _ in range(300):
            sock.close()
            sock = by_proxy(server, v1("192.0.2.1"))
            assert outcome(sock) == "served"
        sock.close()
        eventually(lambda: server.stats.active == 0)
        assert sum(server.stats.rejected.values()) == 0


def test_waiter_is_classified_when_it_has_a_slot_and_its_header_is_read() -> None:
    limits = Limits(max_connections=1, wait=3600.0, per_source=1, deny=["203.0.113.0/24"])
    with served_by_proxy(greet, limits=limits) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with (
                by_proxy(server, v1("203.0.113.1")) as denied,
                by_proxy(server, GARBAGE) as garbage,
                connect(server) as late,
            ):
                eventually(lambda: server.stats.waiting == 3)
                assert server.stats.gate.sources_counted == 1  # nobody knows yet who they are
                one.close()
                assert outcome(denied) == "closed"
                assert outcome(garbage) in ("closed", "reset")
                eventually(lambda: server.stats.reading == 1)
                assert server.stats.waiting == 0
                late.sendall(v1("192.0.2.2"))
                assert outcome(late) == "served"
        eventually(lambda: server.stats.active == 0)
        books = server.stats
        assert (books.rejected[Reason.DENIED], books.rejected[Reason.HEADER]) == (1, 1)


def test_waiter_is_counted_for_no_source_also_under_other_limits() -> None:
    waiting = Limits(max_connections=1, wait=3600.0)
    with served_by_proxy(greet, limits=waiting) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with by_proxy(server, v1("192.0.2.2")) as two:
                eventually(lambda: server.stats.waiting == 1)
                server.limiter.limits = Limits(max_connections=1, wait=3600.0, per_source=1)
                assert dict(server.limiter.gate.top_sources(9)) == {"192.0.2.1": 1}
                one.close()
                assert outcome(two) == "served"
                assert dict(server.limiter.gate.top_sources(9)) == {"192.0.2.2": 1}
        eventually(lambda: server.stats.active == 0)
        assert server.stats.gate.sources_counted == 0


def test_waiters_are_bounded_and_their_time_too() -> None:
    def limits(wait: float) -> Limits:
        return Limits(max_connections=1, wait=wait, wait_queue=1)

    with served_by_proxy(greet, limits=limits(3600.0)) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with connect(server) as two:
                eventually(lambda: server.stats.waiting == 1)
                with connect(server) as three:
                    assert outcome(three) == "closed"
                server.limiter.limits = limits(0.01)
                assert outcome(two) == "closed"
        books = server.stats
        assert (books.rejected[Reason.WAIT_FULL], books.rejected[Reason.WAIT_TIMEOUT]) == (1, 1)
        eventually(lambda: server.stats.active == 0)


def test_door_is_shut_while_the_last_slots_header_is_read() -> None:
    if not gserver.net.door.SUPPORTED:
        pytest.skip("needs Linux")
    with served_by_proxy(greet, cap=1, rejection=Refuse()) as server:
        with connect(server) as silent:
            eventually(lambda: server.stats.reading == 1)
            with pytest.raises(ConnectionRefusedError):
                connect(server)
            silent.close()
        eventually(lambda: server.stats.pending == 0)
        with by_proxy(server, v1("192.0.2.1")) as sock:
            assert outcome(sock) == "served"
        eventually(lambda: server.stats.active == 0)


@pytest.mark.parametrize("header", [v1("192.0.2.2"), v2("192.0.2.2")])
def test_reply_that_answers_the_clients_words_skips_the_header_before_them(header: bytes) -> None:
    with served_by_proxy(Holding(), cap=1, rejection=Reply("http")) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            for words, has_body in ((b"GET / ", True), (b"HEAD / ", False)):
                with by_proxy(server, header + words + b"HTTP/1.1\r\n\r\n") as two:
                    head, _, body = two.makefile("rb").read().partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 503 ")
                    assert bool(body) is has_body
        server.pool.kill()
