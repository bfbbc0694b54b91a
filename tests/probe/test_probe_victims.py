"""Victims are an open loop: who waits for a turn has waited, and silence is no good news."""

from __future__ import annotations

import fcntl
import socket
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket

from gserver.probe.profiles import PROFILES
from gserver.probe.victims import Victims

MS = 1_000_000


@contextmanager
def victims(count: int) -> Iterator[tuple[Victims, list[Any]]]:
    """Victims over pairs of sockets, and the far ends of those."""
    pairs = [socket.socketpair() for _ in range(count)]
    for near, _ in pairs:
        near.setblocking(False)
    far = [gsocket.socket(fileno=there.detach()) for _, there in pairs]
    group = Victims([near for near, _ in pairs], PROFILES["echo"])
    try:
        yield group, far
    finally:
        group.close()
        for sock in far:
            sock.close()


def answer(sock: Any) -> None:
    with gevent.Timeout(10):
        sock.sendall(sock.recv(len(PROFILES["echo"].ping)))


def read(sock: Any) -> None:
    """Wait until the other end has read all that was sent to it."""
    with gevent.Timeout(10):
        while fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)) != bytes(4):
            gevent.sleep(0)


def answers(group: Victims, count: int) -> None:
    with gevent.Timeout(10):
        while len(group.pings.answered) < count:
            gevent.sleep(0)


def test_a_ping_that_waited_for_its_turn_counts_from_when_it_was_due() -> None:
    with victims(1) as (group, (server,)):
        group.begin()
        first = monotonic_ns()
        second, third = first + 1 * MS, first + 2 * MS
        for due in (first, second, third):
            assert group.send(due)
        gevent.sleep(0.05)  # the server stalls
        for _ in range(3):
            answer(server)
        answers(group, 3)
        pings = group.finish(5)
        assert list(pings.due) == [first, second, third]
        assert list(pings.late) == [second, third]
        assert not pings.missed
        for due, sent, answered in zip(pings.due, pings.sent, pings.answered, strict=True):
            assert answered - due >= 45 * MS
            assert (sent - due < 45 * MS) == (due == first)


def test_a_ping_without_an_answer_is_missed_and_its_late_answer_belongs_to_no_phase() -> None:
    with victims(1) as (group, (server,)):
        group.begin()
        due = monotonic_ns()
        group.send(due)
        group.send(due + 1)
        pings = group.finish(0.05)
        assert sorted(pings.missed) == [due, due + 1]
        assert pings.given_up - due >= 45 * MS
        group.begin()
        again = monotonic_ns()
        group.send(again)  # waits: the answer to the first has still to come
        answer(server)
        answer(server)
        answers(group, 1)
        pings = group.finish(5)
        assert list(pings.due) == [again]
        assert not pings.missed


def test_a_victim_that_the_server_ends_is_lost_and_its_pings_are_missed() -> None:
    with victims(2) as (group, (one, other)):
        group.begin()
        due = [monotonic_ns() + i for i in range(4)]
        group.send(due[0])
        group.send(due[1])
        group.send(due[2])  # waits for the answer to the first
        one.close()
        answer(other)
        with gevent.Timeout(10):
            while group.alive == 2:
                gevent.sleep(0)
        answers(group, 1)
        group.send(due[3])
        answer(other)
        answers(group, 2)
        group.send(monotonic_ns())  # the turn of who is gone
        pings = group.finish(5)
        assert pings.lost == 1
        assert list(pings.due) == [due[1], due[3]]
        assert len(pings.missed) == 3


def test_nobody_is_waited_for_when_all_are_gone() -> None:
    with victims(1) as (group, (server,)):
        group.begin()
        server.close()
        group.send(monotonic_ns())
        with gevent.Timeout(10):
            assert group.finish(1000).lost == 1
        assert group.alive == 0


@pytest.mark.parametrize("pieces", [1, 3])
def test_an_answer_may_come_in_pieces(pieces: int) -> None:
    ping = PROFILES["echo"].ping
    with victims(1) as (group, (server,)):
        group.begin()
        group.send(monotonic_ns())
        with gevent.Timeout(10):
            server.recv(100)
        size = -(-len(ping) // pieces)
        for i in range(pieces):
            assert not len(group.pings.answered)
            server.sendall(ping[i * size : (i + 1) * size])
            read(server)
        answers(group, 1)
