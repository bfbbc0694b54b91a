"""The PROXY header read from real sockets, and from the senders that people use."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from ends import DEADLINE_S, Place, is_open, read_to_end, until
from gevent import socket as gevent_socket
from gevent import subprocess as gevent_subprocess
from missing import needs
from support import turn
from test_proxy_header import BAD, GOOD, IPV4, v2

from gserver.net.proxy_header import Address, Fault, Header
from gserver.net.proxy_protocol import ProxyReader

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
SOURCE = ("192.0.2.1", 56324)


@pytest.fixture
def make_reader() -> Iterator[Callable[..., ProxyReader]]:
    made: list[ProxyReader] = []

    def make(timeout: float = DEADLINE_S) -> ProxyReader:
        made.append(ProxyReader(gevent.get_hub().loop, timeout=timeout))
        return made[-1]

    yield make
    for reader in made:
        assert reader.pending == 0


def unread(fd: int, family: int) -> bytes:
    """All that can still be read from the descriptor, which is closed."""
    with gevent_socket.socket(family, socket.SOCK_STREAM, 0, fd) as rest:
        rest.settimeout(DEADLINE_S)
        return read_to_end(rest)


@pytest.mark.parametrize("header", [V1, v2(0x21, 0x11, IPV4 + b"\x04\0\1\0")], ids=["v1", "v2"])
def test_source_is_told_and_not_a_byte_behind_the_header_is_consumed(
    place: Place, make_reader: Callable[..., ProxyReader], header: bytes
) -> None:
    reader = make_reader()
    found: list[Header | Fault] = []
    client, fd = place.connect(header + b"the first words\r\n")
    reader.read(fd, place.family, found.append)
    assert found == []
    assert reader.pending == 1
    until(lambda: bool(found))
    assert found == [Header(len(header), SOURCE)]
    assert reader.pending == 0
    client.shutdown(socket.SHUT_WR)
    assert unread(fd, place.family) == b"the first words\r\n"


@pytest.mark.parametrize(("data", "source"), GOOD)
def test_a_header_byte_by_byte_is_read_without_spinning(
    tcp: Place, make_reader: Callable[..., ProxyReader], data: bytes, source: Address | None
) -> None:
    reader = make_reader()
    found: list[Header | Fault] = []
    client, fd = tcp.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader.read(fd, tcp.family, found.append)
    step = max(1, len(data) // 120)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    pieces[-1] += b"behind"
    for piece in pieces:
        client.sendall(piece)
        turn()
    client.shutdown(socket.SHUT_WR)
    until(lambda: bool(found))
    assert found == [Header(len(data), source)]
    assert unread(fd, tcp.family) == b"behind"


def test_a_partial_header_leaves_the_loop_at_rest(
    tcp: Place, make_reader: Callable[..., ProxyReader]
) -> None:
    """With a peek alone the descriptor would stay readable and call back without end."""
    reader = make_reader()
    found: list[Header | Fault] = []
    _, fd = tcp.connect(V1[:20])
    reader.read(fd, tcp.family, found.append)
    until(lambda: fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) == bytes(4))  # it has been read
    loop = gevent.get_hub().loop
    before: Any = loop.iteration
    turn(0.1)
    assert loop.iteration - before < 20
    assert reader.cancel_all() == 1
    os.close(fd)


@pytest.mark.parametrize(("data", "fault"), BAD)
def test_a_bad_header_is_a_fault_and_the_descriptor_stays_the_callers(
    tcp: Place, make_reader: Callable[..., ProxyReader], data: bytes, fault: Fault
) -> None:
    reader = make_reader()
    found: list[Header | Fault] = []
    _, fd = tcp.connect(data)
    reader.read(fd, tcp.family, found.append)
    until(lambda: bool(found))
    assert found == [fault]
    assert is_open(fd)
    os.close(fd)


@pytest.mark.parametrize("sent", [b"", V1[:30], v2(0x21, 0x11, IPV4)[:20]])
def test_an_incomplete_header_is_a_fault_at_the_deadline_or_at_the_end(
    place: Place, make_reader: Callable[..., ProxyReader], sent: bytes
) -> None:
    reader = make_reader(timeout=0.1)
    found: list[Header | Fault] = []
    _, silent = place.connect(sent)
    began = monotonic()
    reader.read(silent, place.family, found.append)
    until(lambda: bool(found))
    assert found == [Fault.TIMEOUT]
    assert monotonic() - began >= 0.1
    leaver, left = place.connect(sent)
    leaver.close()
    reader.read(left, place.family, found.append)
    until(lambda: len(found) == 2)
    assert found[1] is Fault.CLOSED
    for fd in (silent, left):
        assert is_open(fd)
        os.close(fd)


def test_a_reset_is_a_fault_not_an_exception(
    tcp: Place, make_reader: Callable[..., ProxyReader]
) -> None:
    reader = make_reader()
    found: list[Header | Fault] = []
    client, fd = tcp.connect(V1[:30])
    reader.read(fd, tcp.family, found.append)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    until(lambda: bool(found))
    assert found == [Fault.CLOSED]
    os.close(fd)


def test_cancelling_tells_each_once_even_from_within(
    tcp: Place, make_reader: Callable[..., ProxyReader]
) -> None:
    reader = make_reader()
    found: list[Header | Fault] = []

    def done(result: Header | Fault) -> None:
        found.append(result)
        reader.cancel_all()

    fds = [tcp.connect(V1[:9])[1] for _ in range(3)]
    for fd in fds:
        reader.read(fd, tcp.family, done)
    reader.cancel_all()
    assert found == [Fault.CANCELLED] * 3
    assert reader.pending == 0
    for fd in fds:
        os.close(fd)


def accept_headers(
    reader: ProxyReader, listener: socket.socket, answer: bytes
) -> tuple[list[tuple[Header | Fault, bytes]], Any]:
    """Reads a header from each connection to the listener, then its first words, and answers.
    Returns the growing list of both, and the watcher, to be closed."""
    served: list[tuple[Header | Fault, bytes]] = []
    listener.setblocking(False)

    def serve(fd: int, found: Header | Fault) -> None:
        with gevent_socket.socket(listener.family, socket.SOCK_STREAM, 0, fd) as client:
            client.settimeout(DEADLINE_S)
            words = client.recv(65536) if isinstance(found, Header) else b""
            served.append((found, words))
            client.sendall(answer)

    def accept() -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        reader.read(fd, listener.family, lambda found: void(gevent.spawn(serve, fd, found)))

    def void(_: object) -> None:
        pass

    watcher = gevent.get_hub().loop.io(listener.fileno(), 1)
    watcher.start(accept)
    return served, watcher


HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def test_curl_sends_version_1(tcp: Place, make_reader: Callable[..., ProxyReader]) -> None:
    needs("curl")
    served, watcher = accept_headers(make_reader(), tcp.listener, HTTP)
    port = tcp.listener.getsockname()[1]
    outcome = gevent_subprocess.run(
        ["curl", "-sS", "--haproxy-protocol", f"http://127.0.0.1:{port}/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=False,
    )
    watcher.close()
    assert (outcome.returncode, outcome.stdout) == (0, b"ok"), outcome.stderr
    [(header, words)] = served
    assert isinstance(header, Header)
    assert isinstance(header.source, tuple)
    assert header.source[0] == "127.0.0.1"
    assert words.startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
def test_haproxy_sends_the_clients_address_and_local_checks(
    tcp: Place, make_reader: Callable[..., ProxyReader], tmp_path: Path, version: str
) -> None:
    needs("haproxy")
    served, watcher = accept_headers(make_reader(), tcp.listener, HTTP)
    config = tmp_path / "haproxy.cfg"
    with socket.socket() as unused:  # a port that is free now
        unused.bind(("127.0.0.1", 0))
        front_port = unused.getsockname()[1]
    config.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
        f"listen relay\n bind 127.0.0.1:{front_port}\n option httpchk GET /check\n"
        f" server one 127.0.0.1:{tcp.listener.getsockname()[1]} {version} check check-send-proxy\n"
    )
    haproxy = gevent_subprocess.Popen(
        ["haproxy", "-db", "-f", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: any(words.startswith(b"GET /check") for _, words in served))
        client = gevent_socket.create_connection(("127.0.0.1", front_port), timeout=DEADLINE_S)
        with client:
            name = client.getsockname()
            client.sendall(b"GET /ask HTTP/1.1\r\n\r\n")
            assert read_to_end(client) == HTTP
    finally:
        haproxy.terminate()
        haproxy.wait(DEADLINE_S)
        watcher.close()
    asked = [found for found, words in served if words.startswith(b"GET /ask")]
    assert [found.source for found in asked if isinstance(found, Header)] == [name]
    checks = [found for found, words in served if words.startswith(b"GET /check")]
    if version != "send-proxy":  # version 1 has no LOCAL: a check carries its own address
        assert {found.source for found in checks if isinstance(found, Header)} == {None}
