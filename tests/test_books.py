"""G9: the books balance at every instant; the audit finds what leaks."""

from __future__ import annotations

import _socket
import errno
import logging
import os
import random
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import gevent
import pytest
from desk import Desk
from gevent.event import Event
from gevent.pool import Pool
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import (
    DEADLINE,
    LOCAL,
    Holding,
    clients,
    connect,
    connect_to,
    eventually,
    greet,
    load,
    outcome,
    running,
    turn,
    vanish,
)

from gserver import Audit, Limiter, Reason, Reply, StreamServer, slots
from gserver.admission.verdict import REJECTED, Rejected
from gserver.candidates import MAX_CANDIDATES, iteration
from gserver.daemon import serve
from gserver.net.listeners import tcp_listener
from gserver.stats import Ending


@contextmanager
def checked_at_every_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The books before and after each step of every limiter."""
    checks: list[int] = []

    def check(limiter: Limiter) -> None:
        books = limiter.snapshot()
        assert books.balanced, books
        assert books.active <= books.occupied <= books.cap
        checks.append(books.active)

    def checked(name: str) -> None:
        step = getattr(Limiter, name)

        def wrapper(self: Limiter, *arguments: Any, **more: Any) -> Any:
            check(self)
            result = step(self, *arguments, **more)
            check(self)
            return result

        monkeypatch.setattr(Limiter, name, wrapper)

    for name in ("arrived", "hold", "ended", "leave"):
        checked(name)
    yield checks
    monkeypatch.undo()


@pytest.mark.parametrize("settle", [0.0, 0.002])
def test_books_balance_at_every_step_under_random_load(
    settle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(20)

    def handler(sock: Any, address: Any) -> None:
        what = dice.random()
        if what < 0.2:
            raise RuntimeError("on purpose")
        if what < 0.4:
            raise SystemExit
        greet(sock, address)

    logging.getLogger("gserver").setLevel(logging.CRITICAL)
    try:
        with checked_at_every_step(monkeypatch) as checks:
            server = StreamServer(LOCAL, handler, max_connections=5, settle=settle)
            with running(server), load("churn", server, 20, 3000) as churn:
                mine: list[Any] = []
                while server.stats.accepted < 2000:
                    if dice.random() < 0.5 or not mine:
                        mine.append(connect(server))
                    else:
                        dice.choice([vanish, _close])(mine.pop(dice.randrange(len(mine))))
                    assert server.stats.balanced
                for sock in mine:
                    sock.close()
                churn.read()
            books = server.stats
    finally:
        logging.getLogger("gserver").setLevel(logging.NOTSET)
    assert len(checks) > 2000
    assert books.rejected[Reason.CAPACITY]
    assert books.finished[Ending.RAISED]
    assert books.finished[Ending.EXITED]


def _close(sock: Any) -> None:
    sock.close()


class LimiterMachine(RuleBasedStateMachine):
    """Any order of arrivals, endings, new caps and turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals = 0
        self.left: set[int] = set()
        logging.getLogger("gserver").setLevel(logging.CRITICAL)

    @initialize(cap=st.integers(1, 4), settle=st.sampled_from([0.0, 3600.0]), quiet=st.booleans())
    def begin(self, cap: int, settle: float, quiet: bool) -> None:
        self.quiet = quiet
        self.limiter = Limiter(cap, settle=settle)
        self.desk = Desk(self.limiter)
        self.most = cap

    @rule(count=st.integers(1, 5))
    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.arrivals += 1
            client = (self.arrivals, ("192.0.2.1", 1))
            # As the accept loop does.
            if self.quiet and self.limiter.may_shed(iteration()):
                self.limiter.shed(client, self.desk)
                continue
            verdict = None if self.limiter.holding else self.limiter.arrived(client, self.desk)
            if isinstance(verdict, Rejected) and self.quiet and self.limiter.may_decide_at_once():
                self.limiter.reject_now(client, self.desk, verdict)
            elif verdict is None or isinstance(verdict, Rejected):
                self.limiter.hold(deque([client]), self.desk, quiet=self.quiet)

    @rule()
    def many_arrive(self) -> None:
        self.arrive(MAX_CANDIDATES + 3)

    @rule()
    def one_fails_to_start(self) -> None:
        self.desk.fails = True
        self.arrive(1)
        self.desk.fails = False

    @precondition(lambda self: self.desk.inside)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        fd = data.draw(st.sampled_from(sorted(self.desk.inside)))
        greenlet, receipt = self.desk.inside.pop(fd)
        self.limiter.ended(fd, greenlet, receipt, Ending.RETURNED)

    @rule(cap=st.integers(1, 6))
    def resize(self, cap: int) -> None:
        self.limiter.max_connections = cap

    @rule()
    def loop_turns(self) -> None:
        turn()
        turn()
        if self.limiter.settle == 0.0:
            assert self.limiter.pending <= MAX_CANDIDATES

    @rule()
    def the_server_stops(self) -> None:
        self.limiter.leave(self.desk, REJECTED[Reason.DRAINING])
        assert self.limiter.pending == 0

    @rule()
    def one_is_turned_away_without_asking(self) -> None:
        self.arrivals += 1
        client = self.arrivals, ("192.0.2.1", 1)
        self.limiter.reject_now(client, self.desk, REJECTED[Reason.DESCRIPTORS])
        self.left.add(self.arrivals)  # out of turn

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "limiter"):
            books = self.limiter.snapshot()
            assert books.balanced, books
            assert books.active == books.occupied == len(self.desk.inside)
            assert books.pending <= MAX_CANDIDATES
            assert books.accepted == self.arrivals
            assert slots.semaphore_error(self.limiter.pool) == 0

    @invariant()
    def nobody_is_decided_twice_or_out_of_turn(self) -> None:
        if hasattr(self, "limiter"):
            in_turn = [fd for fd in self.desk.verdicts if fd not in self.left]
            assert in_turn == sorted(set(in_turn))

    def teardown(self) -> None:
        if hasattr(self, "limiter"):
            self.limiter.leave(self.desk, REJECTED[Reason.DRAINING])
            while self.desk.inside:
                fd, (greenlet, receipt) = self.desk.inside.popitem()
                self.limiter.ended(fd, greenlet, receipt, Ending.RETURNED)
            assert sorted(self.desk.verdicts) == list(range(1, self.arrivals + 1))
            timer = self.limiter._log._timer
            if timer is not None:
                timer.stop()
                timer.close()
        logging.getLogger("gserver").setLevel(logging.NOTSET)


TestLimiter = LimiterMachine.TestCase
TestLimiter.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_time_full_counts_only_while_all_slots_are_taken() -> None:
    with running(StreamServer(LOCAL, greet, max_connections=2)) as server:
        with clients(server, 1):
            turn(0.02)
            assert server.stats.time_full == 0.0
            began = monotonic()
            with clients(server, 1):
                turn(0.02)
                assert 0.0 < server.stats.time_full <= monotonic() - began
            eventually(lambda: server.stats.active == 1)
            after = server.stats.time_full
            turn(0.02)
            assert server.stats.time_full == after


@pytest.mark.parametrize("seen", ["by a client turned away", "in the books"])
def test_time_full_by_other_work_in_the_pool_counts_from_when_it_is_seen_to_its_end(
    seen: str,
) -> None:
    end = Event()
    with running(StreamServer(LOCAL, greet, max_connections=1)) as server:
        for again in (1, 2):
            before = server.stats.time_full
            work = server.pool.spawn(end.wait)
            began = monotonic()
            if seen == "in the books":
                assert server.stats.occupied == 1
            else:
                # One that is not in our own epoll set, where it would look like an ending.
                with socket.create_connection(server.address, DEADLINE) as one:
                    rejected = server.limiter.counters.rejected
                    eventually(lambda rejected=rejected, n=again: rejected[Reason.CAPACITY] == n)
                    assert outcome(one) == "closed"
            assert server.limiter.counters.peak == 1
            full = monotonic()
            turn(0.05)
            full = monotonic() - full
            end.set()
            work.join()
            turn()
            ended = monotonic()
            turn(0.05)
            assert full <= server.stats.time_full - before <= ended - began
            assert server.stats.rejected[Reason.CAPACITY] in (0, again)
            end.clear()
            if again == 1 and seen != "in the books":
                eventually(lambda: not server.limiter._log._report.rejecting)


# ---- the audit -----------------------------------------------------------------------------


def test_audit_of_a_server_at_work_is_clean() -> None:
    server = StreamServer(LOCAL, Holding(), max_connections=2, settle=3600.0)
    with running(server), clients(server, 2), connect(server):
        eventually(lambda: server.stats.pending == 1)
        for _ in range(3):
            assert server.audit().clean
        assert server.stats.audit == Audit()


def test_audit_finds_a_socket_without_a_slot_on_its_second_pass_and_logs_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ExitStack() as stack:

        def leak(sock: Any, _address: Any) -> None:
            stolen = _socket.socket(fileno=sock.detach())
            stack.callback(stolen.close)

        server = stack.enter_context(running(StreamServer(LOCAL, leak, max_connections=2)))
        client = stack.enter_context(connect(server))
        eventually(lambda: server.stats.finished[Ending.RETURNED] == 1)
        assert server.audit().clean  # it may be one that is just ending
        for _ in range(3):
            assert server.audit() == Audit(leaked_sockets=1)
        assert server.stats.audit == Audit(leaked_sockets=1)
        assert [r.getMessage() for r in caplog.records] == [
            "leak: 0 slots held by nothing, 1 sockets open without a slot, semaphore off by 0"
        ]
        stack.close()
        assert client.fileno() == -1
        assert server.limiter.snapshot().balanced


def test_audit_finds_a_slot_held_by_nothing_on_its_second_pass_and_logs_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Pool(2)
    with running(StreamServer(LOCAL, greet, spawn=pool)) as server:
        dead = gevent.spawn(lambda: None)
        dead.join()
        slots.take(pool, dead)
        assert server.audit().clean
        for _ in range(3):
            assert server.audit() == Audit(leaked_slots=1)
        assert len(caplog.records) == 1
        assert slots.give_back(pool, dead)
        assert server.audit().clean


def test_audit_finds_a_semaphore_that_disagrees_with_the_count() -> None:
    pool = Pool(2)
    with running(StreamServer(LOCAL, greet, spawn=pool)) as server:
        pool._semaphore.release()
        assert server.audit().semaphore_error == 1
        pool._semaphore.acquire()
        assert server.audit().clean


def test_audit_does_not_take_clients_in_this_process_for_leaks() -> None:
    """A client has the listener's port as its peer's, the accepted socket as its own."""
    handler = Holding()
    with running(StreamServer(LOCAL, handler, max_connections=1)) as server, clients(server, 1):
        with connect(server) as rejected:
            assert outcome(rejected) == "closed"
            assert server.audit().clean
            assert server.audit().clean


def test_audit_does_not_take_a_handlers_own_descriptor_of_its_connection_for_a_leak() -> None:
    kept = []

    def dups(sock: Any, _address: Any) -> None:
        with sock.dup() as own:
            kept.append(_socket.socket(fileno=os.dup(own.fileno())))
            own.sendall(b"+")
            own.recv(1)

    with running(StreamServer(LOCAL, dups, max_connections=2)) as server:
        with clients(server, 2):
            for _ in range(3):
                assert server.audit().clean
        eventually(lambda: server.stats.active == 0)
        try:
            assert server.audit().clean
            assert server.audit() == Audit(leaked_sockets=2)  # now they are nobody's
        finally:
            for sock in kept:
                sock.close()


def test_audit_does_not_take_another_servers_clients_on_the_same_port_for_leaks() -> None:
    with ExitStack() as stack:
        first = stack.enter_context(running(StreamServer(LOCAL, greet, max_connections=2)))
        port = first.address[1]
        others = [
            stack.enter_context(running(StreamServer((host, port), greet, max_connections=2)))
            for host in ("127.0.0.2", "127.0.0.3")
        ]
        for server in (first, *others):
            stack.enter_context(clients(server, 2))
        for server in (first, *others):
            assert server.audit().clean
            assert server.audit().clean


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_audit_finds_a_leak_whatever_address_the_listener_has(host: str) -> None:
    family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    with ExitStack() as stack:

        def leak(sock: Any, _address: Any) -> None:
            stolen = _socket.socket(fileno=sock.detach())
            stack.callback(stolen.close)

        listener = tcp_listener(("" if ":" in host else host, 0), 8, family)
        adopted = gevent.socket.socket(listener.family, fileno=listener.detach())
        server = stack.enter_context(running(StreamServer(adopted, leak, max_connections=2)))
        stack.enter_context(connect_to(("127.0.0.1", server.address[1])))
        eventually(lambda: server.stats.finished[Ending.RETURNED] == 1)
        assert server.audit().clean
        assert server.audit().leaked_sockets == 1


def test_audit_does_not_take_clients_that_are_being_replied_to_for_leaks() -> None:
    server = StreamServer(LOCAL, greet, max_connections=1, rejection=Reply(b"busy", timeout=30))
    with running(server), clients(server, 1), connect(server) as told:
        assert told.recv(4) == b"busy"
        assert server.lingering_descriptors()
        assert server.audit().clean
        assert server.audit().clean


def test_an_audit_without_a_descriptor_is_one_line_and_the_next_one_is_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]
    listdir, audits = os.listdir, []

    def scarce(path: str) -> list[str]:
        if failures:
            raise failures.pop()
        audits.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", scarce)
    monkeypatch.setattr(serve, "_AUDIT_EVERY_S", 0.001)
    auditing = gevent.spawn(serve._audit_for_ever, Limiter(1), [])
    try:
        eventually(lambda: len(audits) > 1)
    finally:
        auditing.kill()
        monkeypatch.undo()
    assert [record.getMessage() for record in caplog.records] == [
        "no audit this time: [Errno 24] Too many open files"
    ]
