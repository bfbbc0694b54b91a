"""Busy replies on real sockets: they arrive, and what they hold is bounded and comes back."""

from __future__ import annotations

import _socket
import gc
import os
import socket
import struct
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import greenlet
import pytest
from ends import DEADLINE_S, Place, is_open, read_to_end, until
from gevent import socket as gevent_socket

from gserver.net.linger import Linger
from gserver.replies import Reply, Script, named
from gserver.stats import Telling

BUSY = Reply(b"busy\r\n")


@pytest.fixture
def make_linger() -> Iterator[Callable[..., Linger]]:
    made: list[Linger] = []

    def make(**settings: Any) -> Linger:
        made.append(Linger(gevent.get_hub().loop, **({"timeout": DEADLINE_S} | settings)))
        return made[-1]

    yield make
    for linger in made:
        linger.close_all()
        assert linger.lingering == 0


def counts(linger: Linger) -> tuple[int, ...]:
    return (*(linger.counts[telling] for telling in Telling), linger.lingering)


@pytest.mark.parametrize("script", [BUSY, named("http"), named("redis")])
def test_reply_survives_a_client_that_has_spoken_first(
    place: Place, make_linger: Callable[..., Linger], script: Script
) -> None:
    linger = make_linger()
    client, fd = place.connect(b"G" * 40_000)
    linger.start(fd, place.family, script)
    client.sendall(b"still talking" * 1000)
    assert read_to_end(client) == script.turn(b"G").due
    client.close()
    until(lambda: linger.lingering == 0)
    assert counts(linger) == (1, 0, 0, 0, 0, 0)
    assert not is_open(fd)


def test_without_lingering_the_same_client_gets_a_reset(tcp: Place) -> None:
    """The control: what this module is for."""
    client, fd = tcp.connect(b"G" * 40_000)
    _socket.socket(tcp.family, _socket.SOCK_STREAM, 0, fd).close()
    with pytest.raises(ConnectionResetError):
        read_to_end(client)


def test_reply_larger_than_the_buffers_arrives_whole(
    place: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger()
    payload = os.urandom(1 << 20) * 16
    client, fd = place.connect(b"hello")
    linger.start(fd, place.family, Reply(payload))
    assert linger.lingering == 1
    assert read_to_end(client) == payload
    client.close()
    until(lambda: linger.lingering == 0)
    assert linger.counts[Telling.REPLIED] == 1


def test_dialogue_goes_step_by_step(tcp: Place, make_linger: Callable[..., Linger]) -> None:
    linger = make_linger()
    client, fd = tcp.connect()
    linger.start(fd, tcp.family, named("postgres"))
    for byte in struct.pack("!II", 8, 80877103):
        client.sendall(bytes([byte]))
    assert client.recv(100) == b"N"
    client.sendall(struct.pack("!II", 23, 3 << 16) + b"user\0someone\0\0")
    assert b"C53300\0" in read_to_end(client)
    client.close()
    until(lambda: linger.lingering == 0)
    assert linger.counts[Telling.REPLIED] == 1


@pytest.mark.parametrize("script", [BUSY, named("http")], ids=["told", "waited-for"])
def test_silent_client_is_closed_at_the_deadline(
    place: Place, make_linger: Callable[..., Linger], script: Script
) -> None:
    linger = make_linger(timeout=0.1)
    client, fd = place.connect()
    began = monotonic()
    linger.start(fd, place.family, script)
    until(lambda: linger.lingering == 0)
    assert monotonic() - began >= 0.1
    assert counts(linger) == (0, 1, 0, 0, 0, 0)
    assert not is_open(fd)
    assert read_to_end(client) == script.turn(b"").due


def test_a_trickle_of_data_does_not_move_the_deadline(
    tcp: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger(timeout=0.1)
    client, fd = tcp.connect()
    linger.start(fd, tcp.family, BUSY)

    def trickle() -> None:
        try:
            while True:
                client.sendall(b"x")
                gevent.sleep(0.01)
        except OSError:
            pass

    talker = gevent.spawn(trickle)
    until(lambda: linger.lingering == 0)
    assert linger.counts[Telling.EXPIRED] == 1
    talker.join(DEADLINE_S)
    assert talker.successful()


def test_an_endless_upload_is_closed_at_its_bound(
    place: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger(max_drained=100_000)
    client, fd = place.connect()
    linger.start(fd, place.family, BUSY)
    with pytest.raises(ConnectionError):
        for _ in range(10_000):
            client.sendall(b"x" * 10_000)
    assert counts(linger) == (0, 1, 0, 0, 0, 0)


def test_at_the_bound_the_close_is_plain_and_counted(
    place: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger(max_lingering=2)
    held = [place.connect() for _ in range(2)]
    for _, fd in held:
        linger.start(fd, place.family, BUSY)
    extra, fd = place.connect()
    linger.start(fd, place.family, BUSY)
    assert not is_open(fd)
    assert read_to_end(extra) == b""
    assert counts(linger) == (0, 0, 0, 1, 0, 2)
    assert read_to_end(held[0][0]) == BUSY.payload
    held[0][0].close()
    until(lambda: linger.lingering == 1)
    again, fd = place.connect()
    linger.start(fd, place.family, BUSY)
    assert read_to_end(again) == BUSY.payload
    assert counts(linger) == (1, 0, 0, 1, 0, 2)


def test_close_all_leaves_nothing_open_or_running(
    tcp: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger()
    fds = []
    for script in (BUSY, named("http"), Reply(b"x" * (64 << 20))):
        _, fd = tcp.connect()
        linger.start(fd, tcp.family, script)
        fds.append(fd)
    assert linger.lingering == 3
    active = gevent.get_hub().loop.activecnt
    assert linger.close_all() == 3
    assert counts(linger) == (0, 0, 0, 0, 3, 0)
    assert not any(map(is_open, fds))
    # Three descriptors' watchers and the timer.
    assert gevent.get_hub().loop.activecnt == active - 4
    assert linger.close_all() == 0


@pytest.mark.parametrize(
    "script", [BUSY, named("http"), named("mqtt"), Reply(b"x" * (64 << 20))],
    ids=["plain", "http", "mqtt", "large"],
)  # fmt: skip
def test_a_client_that_resets_is_counted_and_raises_nothing(
    tcp: Place, make_linger: Callable[..., Linger], script: Script
) -> None:
    linger = make_linger()
    for first_words in (b"", b"\x10"):
        client, fd = tcp.connect(first_words)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        linger.start(fd, tcp.family, script)
        until(lambda: linger.lingering == 0)
        assert not is_open(fd)
    assert counts(linger) == (0, 0, 2, 0, 0, 0)


def test_a_client_that_leaves_before_it_is_told_is_broken_not_replied(
    place: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger()
    client, fd = place.connect()
    linger.start(fd, place.family, named("http"))
    client.close()
    until(lambda: linger.lingering == 0)
    assert counts(linger) == (0, 0, 1, 0, 0, 0)


def test_a_half_closed_client_still_gets_its_reply(
    place: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger()
    client, fd = place.connect(b"GET / HTTP/1.0\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    linger.start(fd, place.family, named("http"))
    assert read_to_end(client).startswith(b"HTTP/1.1 503 ")
    until(lambda: linger.lingering == 0)
    assert linger.counts[Telling.REPLIED] == 1


def test_a_default_timeout_of_the_program_never_blocks_the_loop(
    tcp: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger()
    _, fd = tcp.connect()
    second, other = tcp.connect(b"GET / HTTP/1.1\r\n\r\n")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DEADLINE_S)
    try:
        began = monotonic()
        linger.start(fd, tcp.family, Reply(b"x" * (64 << 20)))
        linger.start(other, tcp.family, named("http"))
        assert read_to_end(second).startswith(b"HTTP/1.1 503 ")
        assert monotonic() - began < DEADLINE_S / 2
    finally:
        socket.setdefaulttimeout(before)
    assert linger.lingering == 2


def test_no_greenlet_and_no_gevent_socket_is_made_for_a_reply(
    tcp: Place, make_linger: Callable[..., Linger], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greenlets() -> int:
        return sum(isinstance(thing, greenlet.greenlet) for thing in gc.get_objects())

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a gevent socket was made")

    linger = make_linger()
    pairs = [tcp.connect(b"GET / HTTP/1.1\r\n\r\n") for _ in range(20)]
    gc.collect()
    before = greenlets()
    monkeypatch.setattr(gevent_socket.socket, "__init__", refuse)
    for _, fd in pairs:
        linger.start(fd, tcp.family, named("http"))
    assert greenlets() == before
    for client, _ in pairs:
        assert read_to_end(client).startswith(b"HTTP/1.1 503 ")
        client.close()
    until(lambda: linger.counts[Telling.REPLIED] == 20)
    assert greenlets() == before


def test_every_descriptor_comes_back_and_the_books_balance(
    tcp: Place, make_linger: Callable[..., Linger]
) -> None:
    linger = make_linger(timeout=0.3, max_lingering=40)
    script = named("http")
    before = len(os.listdir("/dev/fd"))
    for n in range(300):
        client, fd = tcp.connect(b"GET / HTTP/1.1\r\n\r\n" if n % 3 else b"")
        linger.start(fd, tcp.family, script)
        if n % 2:
            if n % 3 and is_open(fd):
                assert read_to_end(client).startswith(b"HTTP/1.1 503 ")
            client.close()
        elif n % 7 == 0:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        if n % 10 == 0:
            gevent.sleep(0)
        assert sum(counts(linger)) == n + 1
        assert linger.lingering <= 40
    until(lambda: linger.lingering == 0)
    for client in tcp.clients:
        client.close()
    assert len(os.listdir("/dev/fd")) == before
    assert linger.counts[Telling.REPLIED]
    assert linger.counts[Telling.EXPIRED]
    assert linger.counts[Telling.DEGRADED]
