"""What a client that is turned away sees, on the wire and in the kernel's tables."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from sockdiag import TIME_WAIT, kernel_rows
from support import (
    LOCAL,
    Holding,
    clients,
    connect,
    eventually,
    inode_of,
    is_open,
    load,
    outcome,
    running,
)

from gserver import (
    Close,
    Reason,
    Refuse,
    Rejection,
    Reply,
    Reset,
    SettingError,
    StreamServer,
)
from gserver.net.rejection import by_reason

LOOP: Any = gevent.get_hub().loop
BOTH = [Close(), Reset()]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """An accepted TCP socket and its client."""
    with socket.socket() as listener:
        listener.bind(LOCAL)
        listener.listen()
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            accepted, _ = listener.accept()
            with accepted:
                yield accepted, client


@pytest.mark.parametrize("reasons", [("descriptors",), ("capacity", "descriptors")])
def test_who_came_without_a_descriptor_left_gets_no_reply(reasons: tuple[str, ...]) -> None:
    """It would keep, for as long as it takes its reply, the one that all others are answered
    with (G6)."""
    reply = Reply("http")
    with pytest.raises(SettingError, match=r"^rejection Reply\('http'\): is not for the reason d"):
        StreamServer(LOCAL, Holding(), max_connections=1, rejection=dict.fromkeys(reasons, reply))
    assert by_reason(reply)[Reason.DESCRIPTORS].name == "reset"


@pytest.mark.parametrize("kind", [Close, Reset, Refuse, Reply])
def test_a_class_is_no_rejection(kind: Any) -> None:
    for rejection in (kind, {"capacity": kind}):
        with pytest.raises(SettingError, match=r"^rejection .* must be Close\(\), "):
            StreamServer(LOCAL, Holding(), max_connections=1, rejection=rejection)


def test_close_is_an_end_of_file(pair: tuple[socket.socket, socket.socket]) -> None:
    accepted, client = pair
    Close().on(socket.AF_INET, LOOP)(accepted.detach())
    assert client.recv(1) == b""


def test_close_with_data_unread_is_a_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    """RFC 2525, section 2.17; tcp_close in the kernel's net/ipv4/tcp.c."""
    accepted, client = pair
    client.sendall(b"unread")
    accepted.recv(1, socket.MSG_PEEK)  # it is here
    Close().on(socket.AF_INET, LOOP)(accepted.detach())
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_reset_is_a_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    accepted, client = pair
    Reset().on(socket.AF_INET, LOOP)(accepted.detach())
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("rejection", BOTH, ids=str)
def test_the_descriptor_is_released(
    rejection: Rejection, pair: tuple[socket.socket, socket.socket]
) -> None:
    accepted, _ = pair
    fd, inode = accepted.fileno(), inode_of(accepted)
    rejection.on(socket.AF_INET, LOOP)(accepted.detach())
    assert not is_open(fd, inode)


@pytest.mark.parametrize("rejection", BOTH, ids=str)
def test_on_a_unix_socket_it_is_a_close(rejection: Rejection) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        rejection.on(socket.AF_UNIX, LOOP)(ours.detach())
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("rejection", BOTH, ids=str)
def test_a_descriptor_that_is_none_raises_oserror(rejection: Rejection) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    with pytest.raises(OSError, match="Bad file descriptor"):
        rejection.on(socket.AF_INET, LOOP)(reading)


def test_reset_releases_a_descriptor_that_has_no_linger_option() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    inode = os.fstat(reading).st_ino
    with pytest.raises(OSError, match="non-socket"):
        Reset().on(socket.AF_INET, LOOP)(reading)
    assert not is_open(reading, inode)


@pytest.mark.parametrize(("rejection", "left"), [(Close(), True), (Reset(), False)], ids=str)
def test_time_wait_on_the_servers_side_is_left_by_close_and_not_by_reset(
    rejection: Rejection, left: bool
) -> None:
    server = StreamServer(LOCAL, Holding(), max_connections=1, rejection=rejection)
    with running(server), clients(server, 1), load("burst", server, 100) as burst:
        burst.read()

        def in_time_wait() -> int:
            return len(kernel_rows(server.server_port, 1 << TIME_WAIT))

        if left:
            if _time_wait_is_full():
                pytest.skip("the kernel keeps no more TIME_WAIT: tcp_max_tw_buckets")
            eventually(lambda: in_time_wait() > 0)
        else:
            assert in_time_wait() == 0


def _time_wait_is_full() -> bool:
    fields = Path("/proc/net/sockstat").read_text().split()
    most = int(Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").read_text())
    return int(fields[fields.index("tw") + 1]) >= most - 1000


@pytest.mark.parametrize("rejection", BOTH, ids=str)
def test_a_client_that_has_sent_already_is_answered_too(rejection: Rejection) -> None:
    server = StreamServer(LOCAL, Holding(), max_connections=1, rejection=rejection)
    with running(server), clients(server, 1):
        for _ in range(20):
            with connect(server) as client:
                try:
                    client.sendall(b"x" * 1000)
                except (ConnectionResetError, BrokenPipeError):
                    continue
                assert outcome(client) in ("closed", "reset")


@pytest.mark.parametrize(("rejection", "name"), [(Close(), "close"), (Reset(), "reset")])
def test_a_rejection_has_the_name_that_settings_and_metrics_use(
    rejection: Rejection, name: str
) -> None:
    assert rejection.name == name
