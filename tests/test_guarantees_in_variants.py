"""The guarantees once more, with everything else switched on: every rule, and with it timeouts,
eviction, deferred starts, TLS, proxies, clients that wait, replies."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
import pytest
from counting import Made, which_run
from gevent.event import Event
from sockdiag import kernel_rows
from support import (
    Holding,
    OrderedPool,
    Process,
    Stubborn,
    echo,
    eventually,
    greet,
    inode_of,
    load,
    outcome,
    running,
    slowest_echo,
    turn,
    vanish,
)
from test_books import checked_at_every_step
from test_isolation import Counting, rejections_by_turn
from variants import VARIANTS, Variant

from gserver import Reason, drain_servers
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.drain import KILL_S
from gserver.stats import Ending

LONG = 60.0
#: Those that see whom they turn away: the others can have neither G3 nor a count.
SEEING = {name: each for name, each in VARIANTS.items() if not each.refuses}
REFUSING = {name: each for name, each in VARIANTS.items() if each.refuses}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


def test_exactly_the_cap_is_served_of_a_burst_and_everybody_is_answered(variant: Variant) -> None:
    """G1 and G2, counted inside, outside, and by the kernel."""
    handler = Holding()
    with running(variant.server(handler, 3)) as server:
        with load("burst", server, 500, speaks=variant.speaks) as burst:
            seen = burst.read()
            assert seen.pop("served") == 3
            assert seen.pop("hung") == 0
            assert set(seen) <= variant.turned_away
            assert sum(seen.values()) == 497
            assert handler.inside == handler.peak == 3
            books = server.stats
            # The reserved slot is open to a proxy's client until it has said who it is.
            assert (books.active, books.peak) in ((3, 3), (3, 3 + variant.is_proxied))
            assert books.balanced
            assert books.gate.would_reject[Reason.EARLY_DROP]  # no rule overlooks these clients

            def rows() -> int:
                return len([inode for _, inode in kernel_rows(server.server_port) if inode])

            eventually(lambda: rows() == 3)  # those who take a reply go
        handler.release.set()
        eventually(lambda: server.stats.active == 0)


@pytest.mark.parametrize("variant", SEEING.values(), ids=SEEING)
def test_close_then_reconnect_finds_the_slot_free(variant: Variant) -> None:
    """G3."""
    times = 20 if "tls" in variant.speaks else 100  # a handshake takes 10 ms
    with running(variant.server(greet, 3)) as server:
        with load("reconnect", server, 3, times, speaks=variant.speaks) as one_by_one:
            assert one_by_one.read() == {"served": times}
        eventually(lambda: server.stats.active == 0)
        with load("churn", server, 3, 4 * times, speaks=variant.speaks) as together:
            assert set(together.read()) == {"served"}


@pytest.mark.long
@pytest.mark.parametrize("variant", SEEING.values(), ids=SEEING)
@pytest.mark.parametrize("cap", [1, 10, 100])
def test_churners_are_never_turned_away_at_length(variant: Variant, cap: int) -> None:
    """G3."""
    with running(variant.server(greet, cap)) as server:
        count = 1_000 if "tls" in variant.speaks else 10_000
        with load("churn", server, cap, count, speaks=variant.speaks) as churn:
            assert set(churn.read(within=300.0)) == {"served"}


# ---- G4 ------------------------------------------------------------------------------------


def returns(_server: Any, _sock: Any) -> None:
    pass


def raises(_server: Any, _sock: Any) -> None:
    raise RuntimeError("on purpose")


def exits(_server: Any, _sock: Any) -> None:
    raise SystemExit


def is_killed(server: Any, _sock: Any) -> None:
    gevent.spawn(server.pool.kill, block=False)
    turn(LONG)


def is_still_held_by_a_file(_server: Any, sock: Any) -> None:
    KEPT.append(sock.makefile("rb"))


def meets_a_reset(_server: Any, sock: Any) -> None:
    while True:
        sock.sendall(b"x" * 65536)


KEPT: list[Any] = []
ENDINGS = {
    returns: Ending.RETURNED,
    raises: Ending.RAISED,
    exits: Ending.EXITED,
    is_killed: Ending.KILLED,
    is_still_held_by_a_file: Ending.RETURNED,
    meets_a_reset: Ending.PEER_GONE,
}


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
def test_socket_closes_then_slot_comes_back_when_the_handler(
    variant: Variant, end: Callable[[Any, Any], object]
) -> None:
    pool = OrderedPool(2)
    inside = Event()

    def handler(sock: Any, _address: Any) -> None:
        pool.sockets.append((sock.fileno(), inode_of(sock)))
        pool.closed_first.clear()  # what held the slot before the handler
        sock.sendall(b"+")
        inside.wait()
        end(server, sock)

    logging.getLogger("gserver").setLevel(logging.CRITICAL)
    try:
        with running(variant.server(handler, 2, spawn=pool)) as server:
            with variant.admitted(server.address) as [client]:
                if end is meets_a_reset:
                    vanish(client)
                inside.set()
                eventually(lambda: server.stats.active == 0)
                assert pool.closed_first == [True]
                assert len(pool) == 0
                assert server.stats.finished[ENDINGS[end]] == 1
                assert server.stats.balanced
                assert server.audit().clean
                KEPT.clear()
    finally:
        logging.getLogger("gserver").setLevel(logging.NOTSET)


# ---- G5 to G7, G9 --------------------------------------------------------------------------


@pytest.mark.parametrize("variant", SEEING.values(), ids=SEEING)
def test_a_live_echo_goes_on_during_a_flood(variant: Variant) -> None:
    """G5."""
    rejection = Counting()
    more = {} if "rejection" in variant.settings else {"rejection": rejection}
    with running(variant.server(echo, 1, **more)) as server:
        with variant.admitted(server.address) as [client]:
            for _ in variant.words:
                assert client.recv(1)
            with rejections_by_turn(rejection) as by_turn:
                with load("flood", server, 50, speaks=variant.speaks) as flood:
                    eventually(lambda: sum(server.stats.rejected.values()) > 50)
                    longest = slowest_echo(client, 100)
                    flood.tell()
                    flood.read()
    assert longest < 2.0
    # Nobody who asks for a share is given less than one (TurnShare): besides the listener there are
    # the room of those who wait, and that of those whose header is read.
    assert max(by_turn) <= MAX_REJECTIONS_PER_TURN + 2


@pytest.mark.parametrize("variant", REFUSING.values(), ids=REFUSING)
def test_a_live_echo_goes_on_while_a_flood_is_refused(variant: Variant) -> None:
    """G5: the flood counts itself."""
    longest = 0.0
    with running(variant.server(echo, 1)) as server:
        with variant.admitted(server.address) as [client]:
            for _ in variant.words:
                assert client.recv(1)
            with load("churn", server, 50, 5_000, speaks=variant.speaks) as flood:
                over = gevent.spawn(flood.read)
                while not over.ready():
                    longest = max(longest, slowest_echo(client, 10))
                seen = over.get()
    assert set(seen) <= variant.turned_away
    assert seen["refused"] >= 4_000
    assert longest < 2.0


@pytest.mark.parametrize("name", VARIANTS)
def test_without_descriptors_every_client_is_answered_and_the_admitted_go_on(name: str) -> None:
    """G6."""
    variant, free = VARIANTS[name], 4
    with Process("served.py", "gserver", 1000, free, name) as process:
        address = tuple(process.read())
        with variant.admitted(address, free) as served:
            flood = "churn", *address, 10, 100, f"speaks={variant.speaks}"
            with Process("load.py", *flood) as others:
                assert set(others.read()) <= {*variant.turned_away, "closed", "reset"}
            for sock in served:
                assert not variant.words or sock.recv(100) == variant.words
                sock.sendall(b"still here")
                assert sock.recv(100) == b"still here"
            process.tell()
            books = process.read()
            assert books["active"] == free
            assert books["descriptors"] >= 100
            assert books["balanced"]
            variant.leaves(served.pop())
            with variant.admitted(address):
                pass


def test_drain_nudges_the_idle_and_finishes_what_is_in_flight(variant: Variant) -> None:
    """G7."""
    compute = Event()
    inside: list[Any] = []

    def handler(sock: Any, _address: Any) -> None:
        sock.sendall(b"+")
        while words := sock.recv(100):
            if words.endswith(b"compute"):
                inside.append(sock)
                compute.wait()
            sock.sendall(words[-7:])

    with running(variant.server(handler, 3)) as server:
        with variant.admitted(server.address, 3) as (busy, *idle):
            for sock in (busy, *idle):
                assert not variant.words or sock.recv(7) == variant.words[-7:]
            busy.sendall(b"compute")
            eventually(lambda: inside)
            began = monotonic()
            draining = gevent.spawn(drain_servers, [server], server.limiter, LONG)
            for sock in idle:
                assert sock.recv(1) == b""
            compute.set()
            assert busy.recv(7) == b"compute"
            assert busy.recv(1) == b""
            done = draining.get()
        assert monotonic() - began < LONG / 2
        assert (done.active, done.nudged, done.killed, done.left) == (3, 3, 0, 0)


def test_the_drain_is_bounded_when_handlers_swallow_their_kill(variant: Variant) -> None:
    """G7."""
    handler = Stubborn()
    with running(variant.server(handler, 2)) as server:
        with variant.admitted(server.address, 2) as held:
            began = monotonic()
            done = drain_servers([server], server.limiter, 0.1)
            assert monotonic() - began < 0.1 + KILL_S + LONG / 2
            assert (done.active, done.killed, done.left) == (2, 2, 2)
            assert {outcome(sock) for sock in held} <= {"closed", "reset"}  # cut off all the same
            assert server.stats.active == 2  # and their slots are still taken
            handler.release.set()
            eventually(lambda: server.stats.active == 0)
            assert server.stats.balanced


def test_no_greenlet_and_no_gevent_socket_is_made_for_a_rejected_client(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G10."""
    made = Made()
    with running(variant.server(Holding(), 3, spawn=made.pool(3))) as server:
        made.count_sockets(monkeypatch)
        with variant.admitted(server.address, 3):
            assert made == {"socket": 3, "greenlet": 3}
            with which_run() as ran:
                with load("burst", server, 300, speaks=variant.speaks) as burst:
                    seen = burst.read()
            assert sum(seen[how] for how in variant.turned_away & seen.keys()) == 300
            assert made == {"socket": 3, "greenlet": 3}
            assert ran == {id(gevent.getcurrent()), id(gevent.get_hub())}


def test_the_books_balance_at_every_step_under_load(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G9, with clients that leave at any moment besides."""
    times = 100 if "tls" in variant.speaks else 300
    with checked_at_every_step(monkeypatch) as checks:
        with running(variant.server(greet, 5)) as server:
            with load("churn", server, 20, 2 * times, speaks=variant.speaks) as churn:
                left = 0
                while server.stats.accepted < times:
                    with contextlib.suppress(OSError, AssertionError):
                        with variant.admitted(server.address):
                            left += 1
                    assert server.stats.balanced
                churn.read()
            eventually(lambda: server.stats.active == server.stats.pending == 0)
            eventually(lambda: server.stats.waiting == 0)
            assert server.audit().clean
            assert server.audit().clean
            books = server.stats
    assert books.gate.sources_counted == 0
    assert len(checks) > times
    assert books.admitted
    if variant.refuses:
        assert books.time_refusing
    else:
        assert any(books.rejected.values()) or variant.rules
