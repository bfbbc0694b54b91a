"""The PROXY protocol under whatever arrives: random proxies, and bytes that are no header."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from proxied import GARBAGE, LOCAL_CHECK, V2, behind_proxies, by_proxy, served_by_proxy, v1, v2
from support import connect, eventually, greet, outcome, running, turn, vanish

from gserver import Ending, Limiter, Limits, Reason, Reset
from gserver.proxied import ProxiedClients


@pytest.mark.parametrize("kind", ["close", "reset", "evict"])
def test_books_balance_at_every_step_under_random_proxies(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(21)
    checks = 0
    server: Any = None

    def check() -> None:
        nonlocal checks
        checks += 1
        books = server.limiter.snapshot()
        assert books.balanced, books
        assert books.active + books.reading == len(server.pool) <= books.cap

    def checked(where: type, name: str) -> None:
        step = getattr(where, name)

        def wrapper(self: Any, *arguments: Any, **more: Any) -> Any:
            if name != "_decided":  # in which a verdict only just given is carried out
                check()
            result = step(self, *arguments, **more)
            check()
            return result

        monkeypatch.setattr(where, name, wrapper)

    for name in ("arrived", "hold", "ended", "leave"):
        checked(Limiter, name)
    for name in ("_decided", "_hold_guests"):
        checked(ProxiedClients, name)
    headers = [
        *(v1("192.0.2.1"), v2("2001:db8::1"), v1("203.0.113.1"), LOCAL_CHECK),
        *(GARBAGE, V2, b"", v1("192.0.2.2") + b"words"),
    ]
    rules: Any = {
        "max_connections": 5,
        "per_source": 3,
        "deny": ["203.0.113.0/24"],
        "reserved": 1,
        "reserved_for": ["2001:db8::/32"],
    }
    limits, waiting = Limits(**rules), Limits(**rules, wait=0.02, wait_queue=3)
    evict = {"evict_idle": 0.01} if kind == "evict" else {}
    rejection = Reset() if kind == "reset" else None
    logging.getLogger("gserver").setLevel(logging.CRITICAL)
    try:
        server = behind_proxies(
            greet, limits=limits, rejection=rejection, proxy_timeout=0.02, **evict
        )
        with running(server):
            mine: list[Any] = []
            while server.stats.accepted < 1000:
                what = dice.random()
                if what < 0.5 or not mine:
                    mine.append(by_proxy(server, dice.choice(headers)))
                elif what < 0.99:
                    leave = dice.choice([vanish, lambda sock: sock.close()])
                    leave(mine.pop(dice.randrange(len(mine))))
                else:
                    server.limiter.limits = dice.choice([limits, limits if evict else waiting])
                if dice.random() < 0.3:
                    turn(dice.choice([0.0] * 10 + [0.001] * 5 + [0.025]))
                if len(mine) > 20:
                    mine.pop(0).close()
                assert server.stats.balanced
            for sock in mine:
                sock.close()
            eventually(lambda: server.stats.pending == server.stats.active == 0)
            books = server.stats
    finally:
        logging.getLogger("gserver").setLevel(logging.NOTSET)
    assert checks > 2000
    reasons = [Reason.CAPACITY, Reason.DENIED, Reason.SOURCE, Reason.HEADER]
    for reason in reasons + ([] if evict else [Reason.WAIT_FULL]):
        assert books.rejected[reason], reason
    assert books.abandoned
    assert books.admitted
    assert bool(books.finished[Ending.EVICTED]) == bool(evict)


def _pieces(text: bytes) -> st.SearchStrategy[bytes]:
    """``text`` with some of its bytes changed, cut off, or others behind it."""

    def change(place: int, byte: int, end: int, more: bytes) -> bytes:
        changed = bytearray(text)
        changed[place % len(text)] = byte
        return bytes(changed[:end]) + more

    whole = st.integers(0, len(text))
    return st.builds(change, whole, st.integers(0, 255), whole, st.binary(max_size=50))


WORDS = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=50).map(lambda more: b"PROXY " + more),
    st.binary(max_size=300).map(lambda more: V2 + more),
    *(_pieces(text) for text in (v1("192.0.2.1"), v2("2001:db8::1"), LOCAL_CHECK)),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(WORDS, min_size=1, max_size=3), leaves=st.booleans())
@example(parts=[v1("192.0.2.1")], leaves=False)
def test_whatever_arrives_each_is_answered_and_nothing_leaks(
    parts: list[bytes], leaves: bool, hub_errors: list[BaseException]
) -> None:
    with served_by_proxy(greet, cap=3, proxy_timeout=0.03) as server:
        with connect(server) as sock:
            for part in parts:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(part)
                turn()
            if leaves:
                sock.close()
            else:
                assert outcome(sock) in ("served", "closed", "reset")
        eventually(lambda: server.stats.active == server.stats.pending == 0)
        books = server.stats
        assert books.accepted == 1
        assert books.balanced
        assert len(server.pool) == 0
        assert not hub_errors
        assert not server.limiter.descriptors()
        report = server.limiter._log
        if report._timer is not None:
            report._timer.stop()
            report._timer.close()
