"""Counts, rates and penalties of sources, whoever comes: by proxies with headers of all sorts, and
directly, to two servers with one limiter. It all comes back, and no table outgrows its bound."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
from gevent import socket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxied import GARBAGE, LOCAL_CHECK, V2, behind_proxies, v1, v2
from support import LOCAL, eventually, greet, running, turn, vanish

from gserver import Limiter, Limits, StreamServer

TABLE = 4
CAP, QUEUE = 4, 3
RULES: dict[str, Any] = {
    "max_connections": CAP,
    "reserved": 1,
    "reserved_for": ["100.64.0.0/24", "127.0.0.8"],
    "per_source": 2,
    "source_rate": 20.0,
    "source_rate_burst": 2,
    "source_table": TABLE,
    "rate": 1000.0,
    "penalty": 0.02,
    "penalty_threshold": 0.03,
    "penalty_max": 1.0,
    "deny": ["203.0.113.0/24", "127.0.0.9"],
}
WAITING: dict[str, Any] = {"wait": 0.01, "wait_queue": QUEUE}
LIMITS = [
    Limits(**RULES),
    Limits(**RULES, **WAITING),
    Limits(**RULES, **WAITING, wait_order="lifo"),
    Limits(**{**RULES, "per_source": None}),
    Limits(**{**RULES, "source_prefix_v4": 24, "max_connections": 2}, **WAITING),
    Limits(max_connections=CAP),
]

hosts = st.one_of(
    st.sampled_from(["192.0.2.1", "192.0.2.2", "203.0.113.1", "2001:db8::1", "100.64.0.1"]),
    st.integers(0, 200).map(lambda n: f"198.51.100.{n}"),
)
#: A type, a length and a value each: a unique id, an unknown one, and one that is cut short.
tlvs = st.sampled_from([b"", b"\x05\x00\x02id", b"\xee\x01\x00" + bytes(256), b"\x05\x00\x09i"])
headers = st.one_of(
    hosts.map(v1),
    st.builds(lambda host, more: v2(host, more=more), hosts, tlvs),
    st.sampled_from([GARBAGE, LOCAL_CHECK, V2 + b"\x21\x11\xff\xff", b"PROXY TCP4 1.2.3 \r\n"]),
)
where = st.integers(0)
by_proxy = st.tuples(st.just("by proxy"), headers, st.integers(0, 40))
directly = st.tuples(st.just("directly"), st.integers(1, 9), st.just(0))
leaves = st.tuples(st.just("leaves"), where, st.booleans())
others = st.one_of(
    st.tuples(st.just("says the rest"), where, st.just(0)),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.0, 0.001, 0.03]), st.just(0)),
    st.tuples(st.just("rules"), st.sampled_from(LIMITS), st.just(0)),
)


class Crowd:
    """Clients of two servers: the first is for proxies, the second for everybody."""

    def __init__(self, proxied: Any, direct: Any) -> None:
        self._proxied = proxied
        self._direct = direct
        self.there: list[tuple[Any, bytes]] = []  # and what each has not said yet

    def act(self, what: str, which: Any, how: Any) -> None:
        if what == "by proxy":
            sock = socket.create_connection(self._proxied.address, timeout=20)
            said = which[: len(which) if how > len(which) else how]
            self._say(sock, said)
            self.there.append((sock, which[len(said) :]))
        elif what == "directly":
            address = (f"127.0.0.{which}", 0)
            sock = socket.create_connection(self._direct.address, 20, address)
            self.there.append((sock, b""))
        elif what == "time":
            turn(which)
        elif what == "rules":
            self._direct.limiter.limits = which
        elif self.there:
            number = which % len(self.there)
            sock, rest = self.there.pop(number)
            if what == "leaves":
                (vanish if how else socket.socket.close)(sock)
            else:
                self._say(sock, rest)
                self.there.insert(number, (sock, b""))

    def _say(self, sock: Any, words: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # it may have been turned away
            sock.sendall(words)

    def all_leave(self) -> None:
        while self.there:
            self.act("leaves", 0, len(self.there) % 2)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.getLogger("gserver").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("gserver").setLevel(logging.NOTSET)


@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    first=st.sampled_from(LIMITS),
    steps=st.lists(st.one_of(by_proxy, by_proxy, directly, leaves, others), max_size=60),
)
def test_counts_come_back_and_no_table_outgrows_its_bound(
    first: Limits, steps: list[tuple[str, Any, Any]], hub_errors: list[BaseException]
) -> None:
    limiter = Limiter(first)
    proxied = behind_proxies(greet, limiter=limiter, proxy_timeout=0.05)
    direct = StreamServer(LOCAL, greet, limiter=limiter)
    with running(proxied), running(direct):
        crowd = Crowd(proxied, direct)
        try:
            for step in steps:
                crowd.act(*step)
                are_within_bounds(limiter)
        finally:
            crowd.all_leave()
        eventually(lambda: not (limiter.snapshot().active or limiter.descriptors()))
        are_within_bounds(limiter)
        books = limiter.snapshot()
        assert books.gate.sources_counted == 0
        assert books.pending == books.waiting == books.occupied == len(limiter.pool) == 0
        for server in proxied, direct:
            server.audit()
            assert server.audit().clean
    limiter._log.close()
    assert not hub_errors


def are_within_bounds(limiter: Limiter) -> None:
    books = limiter.snapshot()
    assert books.balanced, books
    assert books.occupied <= CAP
    assert books.waiting <= QUEUE
    assert books.gate.sources_counted <= books.active + books.waiting
    assert books.gate.sources_remembered <= TABLE
    assert books.gate.sources_penalised <= TABLE


def test_control_those_clients_meet_every_rule() -> None:
    """The sort of clients that come above is turned away for each of them."""
    limiter = Limiter(LIMITS[0])
    proxied = behind_proxies(greet, limiter=limiter, proxy_timeout=0.05)
    direct = StreamServer(LOCAL, greet, limiter=limiter)
    with running(proxied), running(direct):
        crowd = Crowd(proxied, direct)
        for header in (GARBAGE, *(v2(f"198.51.100.{n}") for n in range(12)), v1("203.0.113.1")):
            crowd.act("by proxy", header, 1000)
            turn(0.001)
        for _ in range(12):
            crowd.act("directly", 1, 0)
            turn(0.001)
        eventually(lambda: not limiter.snapshot().pending)
        rejected = {reason.value for reason, n in limiter.snapshot().rejected.items() if n}
        assert rejected >= {"header", "denied", "capacity", "source_rate"}
        crowd.all_leave()
        eventually(lambda: limiter.snapshot().active == 0)
