"""The limiter and its listeners against a model: arrivals, departures, waits, other rules, closing
doors, in any order. Sockets are real, the clock and the turns of the loop are simulated."""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
import socket
from dataclasses import replace
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from limiter_model import DENIED, EXEMPT, OPERATORS, PROXY, Client, Model, Place
from simulated import SimulatedLoop
from speaking import v1, v2

from gserver import Limiter, Limits, Reason, SettingError, slots
from gserver.accept import AcceptLoop
from gserver.admission.verdict import Receipt
from gserver.audit import Auditor
from gserver.candidates import MAX_CANDIDATES, MAX_REJECTIONS_PER_TURN
from gserver.net.proxies import Proxies
from gserver.net.proxy_protocol import Done
from gserver.stats import Ending, Snapshot

HOSTS = ["10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1"]
HEADER_S = 2.0
#: Of what may be turned away in a turn: each listener, and where those are who have no verdict.
ASKERS = 2 + 3


@st.composite
def waiting(draw: st.DrawFn, waits: tuple[float, ...]) -> dict[str, Any]:
    given = {
        "wait": draw(st.sampled_from(waits)),
        "wait_queue": draw(st.integers(1, 4)),
        "wait_order": draw(st.sampled_from(["fifo", "lifo"])),
    }
    return given if given["wait"] else {}


@st.composite
def limits(draw: st.DrawFn, waits: tuple[float, ...]) -> Limits:
    if 0.0 in waits and draw(st.integers(0, 3)) == 0:  # only the cap, for which ways are shorter
        return Limits(max_connections=draw(st.integers(1, 4)))
    reserved = draw(st.sampled_from([0, 0, 1, 2]))
    per_source = draw(st.sampled_from([None, 1, 2]))
    return Limits(
        max_connections=reserved + draw(st.integers(1, 3)),
        reserved=reserved,
        reserved_for=[str(OPERATORS)] if reserved else [],
        per_source=per_source,
        source_prefix_v4=draw(st.sampled_from([32, 32, 24])),
        source_exempt=draw(st.sampled_from([[], [str(EXEMPT)]])) if per_source else [],
        deny=draw(st.sampled_from([[], [str(DENIED)]])),
        **draw(waiting(waits)),
    )


class Queue:
    """A listener with clients in its queue, each of which is one end of a pair of sockets."""

    family, type, proto = socket.AF_UNIX, socket.SOCK_STREAM, 0

    def __init__(self, number: int) -> None:
        self.clients: collections.deque[Client] = collections.deque()
        self.errors: list[int] = []
        self.front: Any = None
        self._number = number

    def fileno(self) -> int:
        return -2 - self._number

    def is_readable(self) -> bool:
        return bool(self.clients or self.errors)

    def _accept(self) -> tuple[int, Any]:
        if self.errors:
            error = self.errors.pop()
            raise OSError(error, os.strerror(error))
        if not self.clients:
            raise BlockingIOError
        client = self.clients.popleft()
        self.front.machine.tell("came", client, self.front)
        return client.fd, client.address


class Noted:
    """A rejection that the model is told of."""

    name = "noted"

    def __init__(self, machine: LimiterModelMachine, reason: Reason) -> None:
        self._machine = machine
        self._reason = reason

    def on(self, _family: int, _loop: Any) -> Any:
        def turn_away(fd: int) -> None:
            self._machine.turned_away(fd, self._reason)
            os.close(fd)

        return turn_away


class Front(AcceptLoop):
    """One of the listeners."""

    def __init__(self, machine: LimiterModelMachine, queue: Queue, *, proxied: bool) -> None:
        super().__init__(
            queue,
            machine.limiter,
            machine.starts,
            {reason: Noted(machine, reason) for reason in Reason},
            machine.fatal,
            backlog=1,
            max_accept=100,
            delays=(1.0, 1.0),
            proxies=Proxies([PROXY], HEADER_S) if proxied else None,
        )
        self.machine = machine
        self.queue = queue
        queue.front = self
        self._epoll, self._process = self, os.getpid()
        self.start()

    def poll(self, _timeout: float, _most: int) -> list[tuple[int, int]]:
        """As of the loop's epoll set: whether an ending is under way, or a client in the queue."""
        if not self.machine.model.is_quiet:
            return [(1000, 1)]
        return [(self.queue.fileno(), 1)] if self.queue.clients else []

    def read_header(self, fd: int, done: Done) -> Any:
        self.machine.tell("begins_to_read", self.machine.of_fd(fd))
        return super().read_header(fd, done)

    def close(self) -> None:
        self.machine.model.leaving = self
        self._epoll = None
        super().close()
        self.machine.model.leaving = None


class LimiterModelMachine(RuleBasedStateMachine):
    """Two listeners of one limiter.

    :cvar proxied: whether each is for proxies.
    :cvar settles: what ``settle`` may be, in seconds.
    :cvar waits: what ``wait`` may be.
    """

    proxied = (False, False)
    settles: tuple[float, ...] = (0.0,)
    waits: tuple[float, ...] = (0.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("gserver").setLevel(logging.CRITICAL)
        self.stack = contextlib.ExitStack()
        self.stack.callback(logging.getLogger("gserver").setLevel, logging.NOTSET)
        self.loop = SimulatedLoop()
        self.stack.enter_context(self.loop.in_place())
        self.everybody: list[Client] = []
        self.by_turn: collections.Counter[int] = collections.Counter()
        self.fails = False
        self.faults: list[Exception] = []

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        settle = data.draw(st.sampled_from(self.settles))
        self.limiter = Limiter(data.draw(limits(self.waits)), settle=settle)
        self.model = Model(self.limiter, self.loop)
        self.queues = [Queue(number) for number in range(2)]
        for queue in self.queues:
            self.loop.readable[queue.fileno()] = queue.is_readable
        for number in range(2):
            self.opens(number)

    def opens(self, number: int) -> None:
        Front(self, self.queues[number], proxied=self.proxied[number])

    # -- what the limiter does with them

    def of_fd(self, fd: int) -> Client:
        [client] = [client for client in self.model.clients if client.fd == fd]
        return client

    def tell(self, step: str, client: Client, *more: Any) -> None:
        """The model may find fault, in the midst of what goes on whatever fails."""
        try:
            getattr(self.model, step)(client, *more)
        except Exception as error:
            self.faults.append(error)

    def starts(self, fd: int, address: Any, receipt: Receipt, header_bytes: int) -> None:
        client = self.of_fd(fd)
        self.tell("admitted", client, address, header_bytes)
        if self.fails:
            self.fails = False
            self.model.ended(client, Ending.NOT_STARTED)
            os.close(fd)
            raise RuntimeError("on purpose")
        client.address, client.receipt, client.holder = address, receipt, gevent.Greenlet()
        slots.take(self.limiter.pool, client.holder)
        self.limiter.connections.add(client)

    def turned_away(self, fd: int, reason: Reason) -> None:
        self.tell("rejected_for", self.of_fd(fd), reason)
        if reason is not Reason.DRAINING:
            self.by_turn[self.loop.iteration] += 1

    def fatal(self, error: OSError) -> None:
        raise AssertionError(error)

    # -- clients

    @rule(which=st.integers(0, 1), hosts=st.lists(st.sampled_from(HOSTS), min_size=1, max_size=6))
    def connect(self, which: int, hosts: list[str]) -> None:
        for host in hosts:
            theirs, ours = socket.socketpair()
            if self.proxied[which]:
                client = Client((PROXY, 1), theirs, ours.detach(), None)
            else:
                client = Client((host, 1), theirs, ours.detach(), host)
            self.everybody.append(client)
            self.queues[which].clients.append(client)

    def those_there(self) -> list[Client]:
        return [
            client
            for client in self.everybody
            if client.left_at is None and client.place is not Place.GONE
        ]

    @precondition(lambda self: self.those_there())
    @rule(data=st.data(), half=st.booleans())
    def leave(self, data: st.DataObject, half: bool) -> None:
        self.one_leaves(data.draw(st.sampled_from(self.those_there())), half)

    @precondition(lambda self: self.model.waiting and self.model.those(Place.INSIDE))
    @rule(half=st.booleans())
    def the_first_that_waits_leaves_and_a_slot_comes_free(self, half: bool) -> None:
        if self.model.waiting[0].left_at is None:
            self.one_leaves(self.model.waiting[0], half)
        self.one_ends(self.model.those(Place.INSIDE)[0])

    def one_leaves(self, client: Client, half: bool) -> None:
        client.left_at = self.loop.now
        if half:
            client.sock.shutdown(socket.SHUT_WR)
        else:
            client.sock.close()

    @precondition(lambda self: self.model.those(Place.INSIDE))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.one_ends(data.draw(st.sampled_from(self.model.those(Place.INSIDE))))

    def one_ends(self, client: Client) -> None:
        os.close(client.fd)
        self.model.ended(client, Ending.RETURNED)
        self.limiter.ended(client, client.holder, client.receipt, Ending.RETURNED)

    # -- the loop

    @rule(is_quiet=st.booleans(), fails=st.sampled_from([False, False, True]))
    def turn(self, is_quiet: bool, fails: bool) -> None:
        self.model.is_quiet, self.fails = is_quiet, fails
        self.loop.turn()
        self.fails = False

    @rule(quarters=st.integers(1, 6))
    def time_passes(self, quarters: int) -> None:
        self.loop.now += quarters / 4

    @rule(quarters=st.integers(0, 6))
    def the_loop_comes_to_rest(self, quarters: int) -> None:
        self.loop.now += quarters / 4
        for _ in range(1000):
            if self.loop.at_rest:
                break
            self.turn(True, False)
            self.all_are_where_the_model_has_them()
        assert self.loop.at_rest
        self.model.all_is_done()
        assert not any(queue.is_readable() for queue in self.queues)

    # -- what else may happen

    @rule(cap=st.integers(1, 6))
    def resize(self, cap: int) -> None:
        limits = self.model.limits
        if cap <= limits.reserved:
            with pytest.raises(SettingError, match="reserved"):
                self.limiter.max_connections = cap
            return
        self.model.cap = cap
        self.model.limits = replace(limits, max_connections=cap)
        self.limiter.max_connections = cap
        assert self.limiter.limits == self.model.limits

    @rule(data=st.data())
    def other_rules(self, data: st.DataObject) -> None:
        new = data.draw(limits((0.0,) if self.limiter.settle else self.waits))
        self.model.other_rules(new)
        self.limiter.limits = new
        assert self.limiter.limits == new

    @rule(which=st.integers(0, 1))
    def one_listener_closes_and_another_opens_in_its_stead(self, which: int) -> None:
        self.queues[which].front.close()
        self.opens(which)

    @rule(which=st.integers(0, 1), is_quiet=st.booleans())
    def descriptors_run_out(self, which: int, is_quiet: bool) -> None:
        self.queues[which].errors = [errno.EMFILE]
        self.model.without_asking = True
        self.turn(is_quiet, False)
        self.model.without_asking = False

    # -- always

    @invariant()
    def all_are_where_the_model_has_them(self) -> None:
        model, limiter = self.model, self.limiter
        for fault in self.faults:
            raise fault
        model.all_are_somewhere()
        books: Snapshot = limiter.snapshot()
        assert books.balanced, books
        assert books.active == len(model.those(Place.INSIDE))
        assert books.reading == len(model.those(Place.READING))
        assert books.occupied == len(limiter.pool) == books.active + books.reading
        assert books.pending - books.reading == len(model.those(Place.CANDIDATE))
        assert books.pending - books.reading <= MAX_CANDIDATES + MAX_REJECTIONS_PER_TURN
        assert books.waiting == len(model.waiting)
        assert books.accepted == model.books["accepted"]
        assert books.admitted == model.books["admitted"]
        assert books.abandoned == model.books["abandoned"]
        assert {k: v for k, v in books.rejected.items() if v} == model.rejected
        assert {k: v for k, v in books.finished.items() if v} == model.finished
        assert books.rejection_errors == 0
        assert slots.semaphore_error(limiter.pool) == 0

    @invariant()
    def each_source_holds_what_the_model_says(self) -> None:
        assert dict(self.limiter.gate.top_sources(99)) == self.model.counted()
        assert self.limiter.gate.figures().sources_counted == len(self.model.counted())

    @invariant()
    def nobody_waits_for_a_slot_that_is_open_to_it(self) -> None:
        if not self.model.those(Place.CANDIDATE):  # who came before, perhaps
            assert self.model.next_waiter() is None

    @invariant()
    def nobody_is_left_without_an_answer(self) -> None:
        """Nor is a socket closed before."""
        decided = [client for client in self.everybody if client.place is Place.GONE]
        assert not any(client.is_held for client in decided)
        assert all(client.is_held for client in self.model.clients)

    @invariant()
    def no_turn_of_the_loop_rejects_more_than_its_share(self) -> None:
        """Nobody who asks for some of it is given less than one."""
        assert all(n <= MAX_REJECTIONS_PER_TURN + ASKERS for n in self.by_turn.values())

    def teardown(self) -> None:
        with self.stack:
            if not hasattr(self, "queues"):
                return
            for queue in self.queues:
                queue.front.close()
            for client in self.model.those(Place.INSIDE):
                self.one_ends(client)
            self.all_are_where_the_model_has_them()
            assert not self.model.clients
            assert not self.limiter.pool
            assert self.limiter.gate.figures().sources_counted == 0
            auditor = Auditor(self.limiter)
            assert auditor.audit().clean
            assert auditor.audit().clean
            for client in self.everybody:
                client.sock.close()
                if client.place is Place.QUEUE:
                    os.close(client.fd)
                assert not client.is_held


bounds = settings(
    derandomize=True,
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class TestWaiting(LimiterModelMachine.TestCase):  # type: ignore[misc]
    settings = bounds


class SettlingMachine(LimiterModelMachine):
    settles = (0.0, 1.0)
    waits = (0.0,)

    @rule(which=st.integers(0, 1))
    def more_connect_than_there_may_be_candidates(self, which: int) -> None:
        self.connect(which, ["192.0.2.1"] * (MAX_CANDIDATES + 20))


class TestSettling(SettlingMachine.TestCase):  # type: ignore[misc]
    settings = bounds


class ProxiedMachine(LimiterModelMachine):
    """One of the two listeners is for proxies, who say for whom they come when it suits them."""

    proxied = (True, False)

    def silent(self) -> list[Client]:
        return [
            client for client in self.those_there() if client.host is None and client.says is None
        ]

    @precondition(lambda self: self.silent())
    @rule(data=st.data(), host=st.sampled_from(HOSTS), text=st.booleans(), words=st.booleans())
    def say(self, data: st.DataObject, host: str, text: bool, words: bool) -> None:
        client = data.draw(st.sampled_from(self.silent()))
        header = (v1 if text else v2)(host, 1)
        client.sock.sendall(header + b"words" * words)
        client.says, client.header_bytes = host, len(header)

    @precondition(lambda self: self.silent())
    @rule(data=st.data(), words=st.sampled_from([b"GET / HTTP/1.1\r\n\r\n", v1("1.2.3.4")[:9]]))
    def say_something_else(self, data: st.DataObject, words: bytes) -> None:
        client = data.draw(st.sampled_from(self.silent()))
        client.sock.sendall(words)
        client.says = ""


class TestProxied(ProxiedMachine.TestCase):  # type: ignore[misc]
    settings = settings(bounds, max_examples=250)
