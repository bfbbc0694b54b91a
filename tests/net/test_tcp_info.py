"""TCP_INFO against what really happened on the connection."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator

import pytest

from gserver.net import tcp_info
from gserver.net.tcp_info import TcpInfo, Turn, heard, is_idle, peer_left, read, turn_of

pytestmark = pytest.mark.skipif(not tcp_info.SUPPORTED, reason="TCP_INFO is Linux only")

DEADLINE_S = 20.0
#: Longer than a tick of the kernel's clock at its coarsest (CONFIG_HZ=100). The clocks can only be
#: told apart by letting time pass, so this is time, not something that has to settle.
TICK_S = 0.025


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and the server's end of its connection."""
    host = "::1" if request.param == socket.AF_INET6 else "127.0.0.1"
    try:
        listener = socket.create_server((host, 0), family=request.param)
    except OSError as error:
        pytest.skip(f"no such family here: {error}")
    client = socket.create_connection(listener.getsockname()[:2])
    served, _ = listener.accept()
    client.settimeout(DEADLINE_S)
    served.settimeout(DEADLINE_S)
    yield client, served
    for sock in (client, served, listener):
        sock.close()


def info_of(sock: socket.socket) -> TcpInfo:
    info = read(sock)
    assert info is not None
    return info


def tick() -> None:
    time.sleep(TICK_S)


def test_nothing_said_yet_is_idle_and_counts_from_the_handshake(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    _, served = pair
    tick()
    info = info_of(served)
    assert (info.state, info.bytes_acked, info.bytes_received) == (1, 0, 0)
    assert info.last_sent_ms == info.last_received_ms > 0
    assert is_idle(info, reading=False)


def test_a_greeting_without_an_answer_is_idle(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    tick()
    served.sendall(b"220 hello\r\n")
    client.recv(100)
    assert is_idle(info_of(served), reading=False)


def test_a_request_at_once_after_the_handshake_is_owed_an_answer(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, served = pair
    client.sendall(b"request")
    served.recv(100)
    assert turn_of(info_of(served)) is Turn.SERVER
    tick()
    assert not is_idle(info_of(served), reading=True)


def test_answered_is_idle_and_asked_again_is_not(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, served = pair
    client.sendall(b"request")
    served.recv(100)
    tick()
    served.sendall(b"answer")
    client.recv(100)
    info = info_of(served)
    assert info.last_sent_ms < info.last_received_ms
    assert turn_of(info) is Turn.CLIENT
    assert is_idle(info, reading=False)
    tick()
    client.sendall(b"again")
    served.recv(100)
    info = info_of(served)
    assert info.last_received_ms < info.last_sent_ms
    assert turn_of(info) is Turn.SERVER
    assert not is_idle(info, reading=True)


@pytest.mark.parametrize("reading", [True, False])
def test_within_one_tick_the_reader_decides(reading: bool) -> None:
    same = TcpInfo(1, last_sent_ms=60_000, last_received_ms=60_000, bytes_acked=1, bytes_received=1)
    assert turn_of(same) is Turn.UNCLEAR
    assert is_idle(same, reading=reading) is reading


@pytest.mark.parametrize("acked", [0, 1])
def test_a_header_is_none_of_the_clients_words(acked: int) -> None:
    silent = TcpInfo(1, last_sent_ms=9, last_received_ms=9, bytes_acked=acked, bytes_received=40)
    assert turn_of(silent, header_bytes=40) is Turn.CLIENT
    assert is_idle(silent, reading=False, header_bytes=40)
    spoke = silent._replace(last_received_ms=1, bytes_received=41)
    assert turn_of(spoke, header_bytes=40) is Turn.SERVER
    assert not is_idle(spoke, reading=True, header_bytes=40)


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_peer_that_left_is_seen_without_reading(
    pair: tuple[socket.socket, socket.socket], how: str
) -> None:
    client, served = pair
    client.sendall(b"unread")
    assert not peer_left(info_of(served))
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if how == "half-close":
        client.shutdown(socket.SHUT_WR)
    else:
        client.close()
    poll = select.poll()
    poll.register(served, select.POLLRDHUP)
    assert poll.poll(DEADLINE_S * 1000)
    assert peer_left(info_of(served))


@pytest.mark.parametrize("said", [b"", b"x"])
def test_the_end_of_file_is_none_of_the_clients_words(
    pair: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    """The kernel counts it as a byte received."""
    client, served = pair
    client.sendall(said)
    client.shutdown(socket.SHUT_WR)
    poll = select.poll()
    poll.register(served, select.POLLRDHUP)
    assert poll.poll(DEADLINE_S * 1000)
    info = info_of(served)
    assert info.bytes_received == len(said) + 1
    assert heard(info) is bool(said)
    assert turn_of(info) is (Turn.SERVER if said else Turn.CLIENT)
    assert not heard(info, header_bytes=len(said))
    assert turn_of(info, header_bytes=len(said)) is Turn.CLIENT


def test_we_closing_our_half_is_not_the_peer_leaving(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    _, served = pair
    served.shutdown(socket.SHUT_WR)
    assert not peer_left(info_of(served))


def test_a_bare_descriptor_stays_open(pair: tuple[socket.socket, socket.socket]) -> None:
    _, served = pair
    info = tcp_info.read_descriptor(served.fileno(), served.family)
    assert info is not None
    assert info.state == 1
    os.fstat(served.fileno())


def test_what_is_not_tcp_or_not_open_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert read(one) is None
        assert tcp_info.read_listen_queue(one) is None
        assert tcp_info.read_descriptor(one.fileno(), socket.AF_UNIX) is None
    assert read(one) is None
    assert tcp_info.read_listen_queue(one) is None


def test_listener_tells_its_queue_and_its_limit() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listener:
        assert tcp_info.read_listen_queue(listener) == (0, 7)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        assert poll.poll(DEADLINE_S * 1000)
        assert tcp_info.read_listen_queue(listener) == (3, 7)
        listener.accept()[0].close()
        assert tcp_info.read_listen_queue(listener) == (2, 7)
        listener.shutdown(socket.SHUT_RD)
        assert tcp_info.read_listen_queue(listener) is None
        for client in clients:
            client.close()
