"""What the limiter should do, said as simply as possible: who is where, and whether that is right.

It is told what happens at the instant when it does, and finds out by itself who has come to wait
and who has left; of each such step it says whether the rules allow it.
"""

from __future__ import annotations

import collections
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from simulated import SimulatedLoop

from gserver import Limiter, Limits, Reason
from gserver.admission.verdict import ENDINGS_MAKE_ROOM
from gserver.candidates import MAX_CANDIDATES
from gserver.header_room import Guest
from gserver.stats import Ending

__all__ = ["DENIED", "EXEMPT", "OPERATORS", "PROXY", "Client", "Model", "Place"]

OPERATORS = ipaddress.ip_network("10.0.0.0/8")
EXEMPT = ipaddress.ip_network("198.51.100.0/24")
DENIED = ipaddress.ip_network("203.0.113.0/24")
#: A proxy that is trusted.
PROXY = "127.0.0.1"

_ENDINGS_MAKE_ROOM = {verdict.reason for verdict in ENDINGS_MAKE_ROOM}


class Place(Enum):
    QUEUE = "in the kernel's queue"
    DOOR = "accepted, and not decided on"
    CANDIDATE = "a candidate"
    READING = "has a slot, and its proxy has yet to say who it is"
    WAITING = "waits for a slot"
    INSIDE = "admitted"
    GONE = "gone"


@dataclass(eq=False)
class Client:
    """One, from its coming on.

    :ivar host: who it is; None: its proxy has not said.
    :ivar says: who its proxy says that it is, in a header of ``header_bytes``, once all is sent.
    :ivar counted_as: the source whose count it raises.
    :ivar is_operator: while it waits: who it was by the rules when it began.
    """

    address: Any
    sock: socket.socket  # its own end
    fd: int  # the server's
    host: str | None
    front: Any = None  # that has accepted it
    says: str | None = None
    header_bytes: int = 0
    place: Place = Place.QUEUE
    counted_as: str | None = None
    is_operator: bool = False
    came_at: float = 0.0
    came_in: int = 0
    since: float = 0.0
    left_at: float | None = None
    receipt: Any = None
    holder: Any = None
    inode: int = field(init=False)

    def __post_init__(self) -> None:
        self.inode = os.fstat(self.fd).st_ino

    @property
    def is_held(self) -> bool:
        """Whether the server has its descriptor open."""
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def descriptors(self) -> tuple[int]:
        return (self.fd,)

    def is_in(self, network: ipaddress.IPv4Network) -> bool:
        return self.host is not None and ipaddress.ip_address(self.host) in network


class Model:
    def __init__(self, limiter: Limiter, loop: SimulatedLoop) -> None:
        self._limiter = limiter
        self._loop = loop
        self.limits: Limits = limiter.limits
        self.cap = self.limits.max_connections
        self.clients: list[Client] = []  # accepted, and not gone, as they came
        self.waiting: list[Client] = []  # as they began to
        self._candidates: list[Client] = []  # first come first
        self.books: collections.Counter[str] = collections.Counter()
        self.rejected: collections.Counter[Reason] = collections.Counter()
        self.finished: collections.Counter[Ending] = collections.Counter()
        self.leaving: Any = None  # the front that closes
        self.is_quiet = True  # as far as the kernel has told in this turn
        self.without_asking = False

    # -- who is who, by the rules in force

    def name(self, client: Client) -> str:
        prefix = self.limits.source_prefix_v4
        network = ipaddress.ip_network((client.host, prefix), strict=False)
        return str(client.host) if prefix == 32 else str(network)

    def operates(self, client: Client) -> bool:
        if client.place is Place.WAITING:
            return client.is_operator
        return client.host is None or (bool(self.limits.reserved_for) and client.is_in(OPERATORS))

    def is_denied(self, client: Client) -> bool:
        return bool(self.limits.deny) and client.is_in(DENIED)

    def counts(self, client: Client) -> bool:
        exempt = bool(self.limits.source_exempt) and client.is_in(EXEMPT)
        return self.limits.per_source is not None and client.host is not None and not exempt

    def is_over(self, client: Client) -> bool:
        if not self.counts(client):
            return False
        return self.counted()[self.name(client)] >= (self.limits.per_source or 0)

    def counted(self) -> collections.Counter[str]:
        """What each source holds."""
        names = [client.counted_as for client in self.clients]
        return collections.Counter(name for name in names if name is not None)

    # -- who is where

    def those(self, place: Place) -> list[Client]:
        return [client for client in self.clients if client.place is place]

    def slots(self, but: Client) -> tuple[int, int]:
        """Slots taken, and those of clients who have not said who they are, without its own."""
        inside, reading = (
            sum(client is not but for client in self.those(place))
            for place in (Place.INSIDE, Place.READING)
        )
        return inside + reading, reading

    def is_open_to(self, client: Client, in_use: int, reading: int) -> bool:
        """The reserve is kept from those who have said who they are."""
        others_share = self.cap - self.limits.reserved
        return in_use < self.cap and (self.operates(client) or in_use - reading < others_share)

    def has_room(self, client: Client) -> bool:
        """Whether there is a slot for it, when all who are before it have theirs."""
        in_use, reading = self.slots(client)
        if client.place is Place.READING:
            return self.is_open_to(client, in_use, reading)  # it keeps its own
        if client.place is Place.DOOR:
            in_use += len(self.those(Place.CANDIDATE))
        # Those who can have fewer slots first: the others can have what is left besides.
        for other in sorted(self.waiting, key=self.operates):
            if self.is_open_to(other, in_use, reading):
                in_use += 1
        return self.is_open_to(client, in_use, reading)

    def next_waiter(self) -> Client | None:
        in_use, reading = self.slots(self.waiting[0]) if self.waiting else (0, 0)
        entitled = [one for one in self.waiting if self.is_open_to(one, in_use, reading)]
        return None if not entitled else entitled[-1 if self.limits.wait_order == "lifo" else 0]

    # -- what happens

    def came(self, client: Client, front: Any) -> None:
        """It has been accepted."""
        self.find_out()
        client.place, client.front = Place.DOOR, front
        client.came_at, client.came_in = self._loop.now, self._loop.iteration
        self.clients.append(client)
        self.books["accepted"] += 1

    def begins_to_read(self, client: Client) -> None:
        """It has a slot, and is asked who it is."""
        self.find_out(but=client)
        assert client.host is None
        self._check_turn(client)
        self._go(client, Place.READING)

    def admitted(self, client: Client, address: Any, header_bytes: int) -> None:
        self.find_out(but=client)
        waited = client.place is Place.WAITING
        self._named(client)
        assert address == (client.host, 1)
        assert header_bytes == client.header_bytes
        if client.place in (Place.DOOR, Place.READING):
            assert not self.is_denied(client)
        self._check_turn(client)
        if not waited:  # else it is counted already
            assert not self.is_over(client)
            self._count(client)
        self._go(client, Place.INSIDE)
        self.books["admitted"] += 1

    def ended(self, client: Client, ending: Ending) -> None:
        """Its slot is coming back, or has not been taken."""
        self._gone(client)
        self.finished[ending] += 1

    def rejected_for(self, client: Client, reason: Reason) -> None:
        self.find_out(but=client)
        if reason not in (Reason.HEADER, Reason.DRAINING, Reason.DESCRIPTORS):
            self._named(client)
        if client.place is Place.READING and reason in _ENDINGS_MAKE_ROOM:
            client.place = Place.CANDIDATE  # so many that it is decided on at once
        self._check_reason(client, reason)
        self._gone(client)
        self.rejected[reason] += 1

    def _check_turn(self, client: Client) -> None:
        """Whether it is its turn to have a slot."""
        if client.place is Place.WAITING:
            assert client is self.next_waiter()
            assert client.left_at is None
            return
        assert self.has_room(client)
        if client.place is Place.CANDIDATE:
            for earlier in self._candidates:
                if earlier is client:
                    break
                if earlier.place is Place.CANDIDATE and earlier.is_held:
                    assert self.is_over(earlier) or not self.has_room(earlier)

    def _check_reason(self, client: Client, reason: Reason) -> None:
        if reason is Reason.DRAINING:
            assert client.front is self.leaving
        elif reason is Reason.DESCRIPTORS:
            assert self.without_asking
        elif reason is Reason.DENIED:
            untrusted = client.host is None and client.address[0] != PROXY
            assert untrusted or (self.is_denied(client) and client.place is not Place.CANDIDATE)
        elif reason is Reason.HEADER:
            assert client.place is Place.READING
        elif reason is Reason.WAIT_TIMEOUT:
            assert client.since + self.limits.wait <= self._loop.now
            assert client.since == min(other.since for other in self.waiting)
        else:
            assert reason in _ENDINGS_MAKE_ROOM
            assert client.place in (Place.DOOR, Place.CANDIDATE)
            self._check_settled(client)
            if reason is Reason.SOURCE:
                assert self.is_over(client)
                return
            assert not self.is_over(client)
            assert not self.has_room(client)
            if reason is Reason.WAIT_FULL:
                assert self.limits.wait
                assert len(self.waiting) >= self.limits.wait_queue
            else:
                assert not self.limits.wait

    def _check_settled(self, client: Client) -> None:
        """Whether all endings under way when it came are over."""
        if len(self.those(Place.CANDIDATE)) > MAX_CANDIDATES:
            return
        settle = self._limiter.settle
        assert client.came_at + settle <= self._loop.now
        assert settle or client.came_in < self._loop.iteration or self.is_quiet

    # -- what is to be found out

    def find_out(self, but: Client | None = None) -> None:
        """Who is a candidate now, or waits, or has left. ``but``: the one that it is about."""
        turns = {waiter.client[0]: waiter.turn for waiter in self._limiter.gate.waiters()}
        joining = [
            client
            for client in self.clients
            if client.fd in turns
            and client is not but
            and client.place not in (Place.INSIDE, Place.WAITING)
        ]
        # Of several the limiter knows who joined first. Behind proxies that need not be the first
        # to come; but candidates are asked in the order in which they became some.
        in_turn = iter(sorted(joining, key=lambda client: turns[client.fd]))
        stood = [client for client in joining if client in self._candidates]
        assert sorted(stood, key=self._candidates.index) == sorted(
            stood, key=lambda client: turns[client.fd]
        )
        held = self._limiter.descriptors()
        reading = {guest.fd for guest in self._limiter.pool if isinstance(guest, Guest)}
        for client in self.clients.copy():
            if client is but or client.place is Place.INSIDE:
                continue
            if client.fd in turns:
                if client in joining:
                    self._joins(next(in_turn))
            elif not client.is_held:
                assert client.place in (Place.WAITING, Place.READING) or self.limits.wait
                assert client.left_at is not None
                self._gone(client)
                self.books["abandoned"] += 1
            elif client.fd in reading:
                assert client.place is Place.READING
            elif client.place is Place.READING or (
                client.place is Place.DOOR and client.fd in held
            ):
                self._named(client)
                assert not self.is_denied(client)
                if client.place is Place.READING:
                    client.came_at = self._loop.now  # its settle begins
                client.place = Place.CANDIDATE

    def all_are_somewhere(self) -> None:
        """Between two steps: nobody is forgotten."""
        self.find_out()
        held = self._limiter.descriptors()
        assert len(held) == len(set(held))
        of_fd = {client.fd: client for client in self.clients}
        self._candidates = [of_fd[fd] for fd in held if of_fd[fd].place is Place.CANDIDATE]
        undecided = [client for client in self.clients if client.place is not Place.INSIDE]
        assert sorted(client.fd for client in undecided) == sorted(held)
        assert not self.those(Place.DOOR)

    def all_is_done(self) -> None:
        """The loop is at rest: nobody stays where nothing keeps it."""
        now = self._loop.now
        assert self.next_waiter() is None
        for client in self.waiting:
            assert now < client.since + self.limits.wait
            assert client.left_at is None or now < max(client.left_at, client.since) + 0.2
        for client in self.those(Place.CANDIDATE):
            assert now < client.came_at + self._limiter.settle
            assert self.is_over(client) or not self.has_room(client)

    def _joins(self, client: Client) -> None:
        """It has begun to wait."""
        self._named(client)
        assert not (self.is_denied(client) and client.place is not Place.CANDIDATE)
        assert self.limits.wait
        assert len(self.waiting) < self.limits.wait_queue
        assert not self.is_over(client)
        assert not self.has_room(client)
        client.is_operator = self.operates(client)
        self._count(client)
        client.since = self._loop.now
        self._go(client, Place.WAITING)

    def _named(self, client: Client) -> None:
        if client.place is Place.READING:
            assert client.says is not None
            client.host = client.says

    def _count(self, client: Client) -> None:
        client.counted_as = self.name(client) if self.counts(client) else None

    def _go(self, client: Client, place: Place) -> None:
        if client.place is Place.WAITING:
            self.waiting.remove(client)
        client.place = place
        if place is Place.WAITING:
            self.waiting.append(client)

    def _gone(self, client: Client) -> None:
        self._go(client, Place.GONE)
        client.counted_as = None
        self.clients.remove(client)

    # -- other rules

    def other_rules(self, limits: Limits) -> None:
        self.limits, self.cap = limits, limits.max_connections
        for client in self.clients:
            if client.place in (Place.INSIDE, Place.WAITING) and client.host is not None:
                self._count(client)
