"""What accepted connections inherit from their listener, so that a vanished peer's slot returns."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from gevent import socket
from missing import needs
from support import HERE, LOCAL, clients, eventually, running

from gserver import (
    Close,
    Keepalive,
    Refuse,
    Reply,
    Reset,
    SettingError,
    StreamServer,
    Timeouts,
)
from gserver.timeouts import MOST_USER_TIMEOUT_S

TCP = socket.IPPROTO_TCP
REJECTIONS = [Close(), Reset(), Reply("http"), Refuse()]


def inherited(server: Any) -> tuple[int, int, int, int, int]:
    """Keepalive on; idle, interval, count; user timeout in ms: of an accepted connection."""
    with running(server), clients(server, 1):
        return options(server)


def options(server: Any) -> tuple[int, int, int, int, int]:
    """The same of the one connection that is there."""
    (connection,) = server.limiter.connections
    sock = connection.socket
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(TCP, socket.TCP_KEEPIDLE),
        sock.getsockopt(TCP, socket.TCP_KEEPINTVL),
        sock.getsockopt(TCP, socket.TCP_KEEPCNT),
        sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT),
    )


def greet(sock: Any, _address: Any) -> None:
    sock.sendall(b"+")
    sock.recv(1)


@pytest.mark.parametrize("rejection", REJECTIONS, ids=str)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_keepalive_is_on_by_default(host: str, rejection: Any) -> None:
    server = StreamServer((host, 0), greet, max_connections=1, rejection=rejection)
    assert inherited(server) == (1, 60, 15, 4, 0)


@pytest.mark.parametrize("rejection", REJECTIONS, ids=str)
def test_keepalive_can_be_set_and_turned_off(rejection: Any) -> None:
    timeouts = Timeouts(keepalive=Keepalive(5, 2, 3), user_timeout=2.5)
    how: dict[str, Any] = {"max_connections": 1, "rejection": rejection}
    server = StreamServer(LOCAL, greet, timeouts=timeouts, **how)
    assert inherited(server) == (1, 5, 2, 3, 2500)
    server = StreamServer(LOCAL, greet, timeouts=Timeouts(keepalive=None), **how)
    assert inherited(server)[0] == 0


def test_a_listener_that_was_shut_and_opened_again_passes_it_on_too() -> None:
    timeouts = Timeouts(keepalive=Keepalive(5, 2, 3), user_timeout=2.5)
    server = StreamServer(LOCAL, greet, max_connections=1, rejection=Refuse(), timeouts=timeouts)
    with running(server):
        for _ in range(2):
            with clients(server, 1):
                assert options(server) == (1, 5, 2, 3, 2500)
            eventually(lambda: not server.full())


def test_the_longest_user_timeout_is_one_that_the_kernel_takes() -> None:
    timeouts = Timeouts(user_timeout=MOST_USER_TIMEOUT_S)
    server = StreamServer(LOCAL, greet, max_connections=1, timeouts=timeouts)
    assert inherited(server)[-1] == 2_147_483_000
    with pytest.raises(SettingError, match=r"^user_timeout 3000000: .* up to 2,147,483$"):
        Timeouts(user_timeout=3_000_000)


def test_an_adopted_listener_passes_it_on_too() -> None:
    with socket.create_server(LOCAL) as listener:
        assert inherited(StreamServer(listener, greet, max_connections=1))[0] == 1


def test_a_system_without_a_user_timeout_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gserver.net.keepalive._USER_TIMEOUT", None)
    server = StreamServer(LOCAL, greet, max_connections=1, timeouts=Timeouts(user_timeout=1.0))
    with pytest.raises(SettingError, match=r"^user_timeout 1.0: needs Linux"):
        server.start()
    server.close()


@pytest.mark.long
@pytest.mark.parametrize("start", ["started", "deferred"])
def test_the_slot_of_a_peer_that_vanished_comes_back_and_is_counted_as_such(start: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program, package in ("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables"):
        needs(program, package)
    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(HERE / "vanished.py"), start],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "vanished\n", done.stderr
