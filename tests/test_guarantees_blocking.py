"""The guarantees once more for handlers that block: a native thread a connection, with a plain
socket on a descriptor of its own. Handlers here know no gevent."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from every_rule import every_rule
from sockdiag import kernel_rows
from support import (
    DEADLINE,
    LOCAL,
    OrderedPool,
    clients,
    connect,
    echo,
    eventually,
    greet,
    inode_of,
    load,
    outcome,
    running,
    slowest_echo,
    vanish,
)
from test_books import checked_at_every_step
from test_isolation import Counting, rejections_by_turn
from variants import GENEROUS

from gserver import Ending, Reason, drain_servers
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.drain import KILL_S
from gserver.handlers.adapters import Kind, make_server

LONG = 60.0


def serving(handler: Any, cap: int, **more: Any) -> Any:
    """With every rule, every timeout and eviction."""
    limits = every_rule(cap, reserve="spawn" not in more)
    settings = {"timeouts": GENEROUS, "evict_idle": 120.0, **more}
    return running(make_server(handler, LOCAL, Kind.BLOCKING, limits=limits, **settings))


@contextlib.contextmanager
def released() -> Iterator[threading.Event]:
    """An event that is set in the end, whatever happens: a thread cannot be killed."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def test_exactly_the_cap_is_served_of_a_burst_and_everybody_is_answered() -> None:
    """G1 and G2, counted inside, outside, and by the kernel."""
    lock = threading.Lock()
    inside, peak = 0, 0

    def holding(sock: Any, _address: Any) -> None:
        nonlocal inside, peak
        with lock:
            inside += 1
            peak = max(peak, inside)
        sock.sendall(b"+")
        release.wait()
        with lock:
            inside -= 1

    with released() as release, serving(holding, 3) as server:
        with load("burst", server, 500) as burst:
            seen = burst.read()
            assert (seen.pop("served"), seen.pop("hung")) == (3, 0)
            assert set(seen) <= {"closed", "reset"}
            assert sum(seen.values()) == 497
            assert inside == peak == 3
            books = server.stats
            assert (books.active, books.peak, books.balanced) == (3, 3, True)
            rows = [inode for _, inode in kernel_rows(server.server_port) if inode]
            assert len(rows) == 3
        release.set()
        eventually(lambda: server.stats.active == 0)


def test_close_then_reconnect_finds_the_slot_free_within_the_settle() -> None:
    """G3. The end of a thread reaches the loop a moment later than an end-of-file would."""
    with serving(greet, 3, settle=DEADLINE) as server:
        with load("reconnect", server, 3, 100) as one_by_one:
            assert one_by_one.read() == {"served": 100}
        eventually(lambda: server.stats.active == 0)
        with load("churn", server, 3, 400) as together:
            assert set(together.read()) == {"served"}


# ---- G4 ------------------------------------------------------------------------------------


def returns(_server: Any, _sock: Any) -> None:
    pass


def raises(_server: Any, _sock: Any) -> None:
    raise RuntimeError("on purpose")


def exits(_server: Any, _sock: Any) -> None:
    raise SystemExit


def is_killed(_server: Any, sock: Any) -> None:
    sock.recv(1)


def meets_a_reset(_server: Any, sock: Any) -> None:
    while True:
        sock.sendall(b"x" * 65536)


ENDINGS = {
    returns: Ending.RETURNED,
    raises: Ending.RAISED,
    exits: Ending.EXITED,
    is_killed: Ending.KILLED,
    meets_a_reset: Ending.PEER_GONE,
}


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
def test_socket_closes_then_slot_comes_back_when_the_handler(
    end: Callable[[Any, Any], object],
) -> None:
    pool = OrderedPool(2)
    own: list[tuple[int, int]] = []
    over = threading.Event()

    def handler(sock: Any, _address: Any) -> None:
        own.append((sock.fileno(), inode_of(sock)))
        sock.sendall(b"+")
        inside.wait()
        try:
            end(server, sock)
        finally:
            over.set()

    logging.getLogger("gserver").setLevel(logging.CRITICAL)
    try:
        with released() as inside, serving(handler, 2, spawn=pool) as server:
            with clients(server, 1) as [client]:
                (connection,) = server.limiter.connections
                pool.sockets = [(connection.socket.fileno(), inode_of(connection.socket))]
                if end is not is_killed:  # a thread cannot be: it ends after its slot is back
                    pool.sockets += own
                if end is meets_a_reset:
                    vanish(client)
                inside.set()
                if end is is_killed:
                    server.pool.kill(block=False)
                eventually(lambda: server.stats.active == 0)
                assert pool.closed_first == [True]
                assert len(pool) == 0
                assert server.stats.finished[ENDINGS[end]] == 1
                assert server.stats.balanced
                eventually(over.is_set)
                eventually(lambda: server.audit().clean)
                assert server.audit().clean
    finally:
        logging.getLogger("gserver").setLevel(logging.NOTSET)


# ---- G5, G7, G9 ----------------------------------------------------------------------------


def test_a_live_echo_goes_on_during_a_flood() -> None:
    """G5."""
    rejection = Counting()
    with serving(echo, 1, rejection=rejection) as server, clients(server, 1) as [client]:
        with rejections_by_turn(rejection) as by_turn, load("flood", server, 50) as flood:
            eventually(lambda: sum(server.stats.rejected.values()) > 50)
            longest = slowest_echo(client, 100)
            flood.tell()
            flood.read()
    assert longest < 2.0
    assert max(by_turn) <= MAX_REJECTIONS_PER_TURN


def test_drain_nudges_the_idle_and_finishes_what_is_in_flight() -> None:
    """G7."""
    computing = threading.Event()

    def handler(sock: Any, _address: Any) -> None:
        sock.sendall(b"+")
        while words := sock.recv(100):
            if words == b"compute":
                computing.set()
                compute.wait()
            sock.sendall(words)

    with released() as compute, serving(handler, 3) as server:
        with clients(server, 3) as (busy, *idle):
            for sock in idle:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            busy.sendall(b"compute")
            eventually(computing.is_set)
            draining = gevent.spawn(drain_servers, [server], server.limiter, LONG)
            for sock in idle:
                assert sock.recv(1) == b""
            compute.set()
            assert busy.recv(7) == b"compute"
            assert busy.recv(1) == b""
            done = draining.get()
    assert (done.active, done.nudged, done.killed, done.left) == (3, 3, 0, 0)


def test_the_drain_is_bounded_and_cuts_off_the_clients_of_threads_that_go_on() -> None:
    """G7. A thread cannot be killed: its connection can be ended, and its slot comes back."""

    def stubborn(sock: Any, _address: Any) -> None:
        sock.sendall(b"+")
        release.wait()

    with released() as release, serving(stubborn, 2) as server, clients(server, 2) as held:
        began = monotonic()
        done = drain_servers([server], server.limiter, 0.1)
        assert monotonic() - began < 0.1 + KILL_S + LONG / 2
        assert (done.active, done.killed, done.left) == (2, 2, 0)
        assert {outcome(sock) for sock in held} <= {"closed", "reset"}
        assert server.stats.finished[Ending.KILLED] == 2
        assert server.stats.balanced


def test_the_books_balance_at_every_step_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """G9, with clients that leave at any moment besides."""
    with checked_at_every_step(monkeypatch) as checks, serving(greet, 5) as server:
        with load("churn", server, 20, 600) as churn:
            while server.stats.accepted < 300:
                with contextlib.suppress(OSError), connect(server) as sock:
                    outcome(sock)
                assert server.stats.balanced
            churn.read()
        eventually(lambda: server.stats.active == server.stats.pending == 0)
        eventually(lambda: server.audit().clean)
        assert server.audit().clean
        books = server.stats
        assert books.gate.sources_counted == 0
        assert len(checks) > 300
        assert books.admitted
        assert books.rejected[Reason.CAPACITY]
