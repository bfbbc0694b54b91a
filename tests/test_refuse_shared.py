"""Refuse on a listener that other processes have, too: after a fork, any of them may shut it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support import (
    LOCAL,
    clients,
    connect_to,
    eventually,
    outcome,
    turn,
)
from test_refuse import is_shut, refused, serving, taken_three_times

from gserver.net.door import bound_to_number, open_door, shut_door
from gserver.net.listeners import tcp_listener
from gserver.server import NumberedSocket


@contextmanager
def sharing_a_listener(cap: int) -> Iterator[tuple[Any, Any]]:
    """Two servers on one listener, each with a cap of its own, as two processes after a fork:
    what shuts it shuts it for both, and either hears of that from the kernel alone."""
    listener = bound_to_number(tcp_listener(LOCAL, 128), 128)
    with ExitStack() as stack:
        stack.callback(listener.close)
        first, second = (
            stack.enter_context(
                serving(
                    address=NumberedSocket(
                        listener.family, listener.type, fileno=os.dup(listener.fileno())
                    ),
                    max_connections=cap,
                )
            )
            for _ in range(2)
        )
        yield first, second


def served(address: Any, stack: ExitStack) -> Any:
    """The next client of those who try until they are served. In the moment after one of the
    servers has filled they may be refused or reset though the other has room."""

    def attempt() -> Any:
        try:
            sock = connect_to(address)
        except ConnectionRefusedError:
            return None
        if outcome(sock) == "served":
            return stack.enter_context(sock)
        sock.close()
        return None

    return eventually(attempt)


def test_who_has_room_opens_again_what_another_process_has_shut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with sharing_a_listener(cap=2) as servers:
        for _ in range(20):
            with ExitStack() as stack:
                for _ in range(4):
                    served(servers[0].address, stack)
                assert [server.stats.active for server in servers] == [2, 2]
                assert refused(servers[0].address)
            eventually(lambda: not any(server.stats.active for server in servers))
        assert not any(server.closed for server in servers)
    assert "failed" not in caplog.text


@pytest.mark.parametrize("how", ["shut", "closed while it was shut"])
def test_another_process_that_shuts_the_listener_shuts_it_for_a_moment_only(how: str) -> None:
    with serving(max_connections=2) as server, clients(server, 1):
        other = socket.socket(fileno=os.dup(server.socket.fileno()))
        with other:
            other.shutdown(socket.SHUT_RD)
            if how != "shut":
                other.close()
            with ExitStack() as stack:
                served(server.address, stack)
                assert refused(server.address)
        eventually(lambda: not is_shut(server))
        so_far = server.stats.time_refusing
        turn(0.01)
        assert server.stats.time_refusing == so_far > 0.0


def test_a_listener_that_another_process_has_shut_just_before_is_shut_all_the_same() -> None:
    """Filled before the loop has told of it."""
    with serving(max_connections=2) as server, clients(server, 1):
        other = socket.socket(fileno=os.dup(server.socket.fileno()))
        with other:
            other.shutdown(socket.SHUT_RD)
            server.max_connections = 1
            assert is_shut(server)
            assert not server.closed
            assert refused(server.address)
            server.max_connections = 2
            with clients(server, 1):
                assert refused(server.address)


def test_a_shut_listener_that_cannot_be_opened_at_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken_three_times(monkeypatch)
    with serving(max_connections=1) as server:
        with socket.socket(fileno=os.dup(server.socket.fileno())) as other:
            other.shutdown(socket.SHUT_RD)
        with ExitStack() as stack:
            served(server.address, stack)
    assert caplog.text.count("cannot listen again") == 3


def test_connections_can_be_read_after_two_processes_have_shut_a_listener_at_once() -> None:
    class Raced(socket.socket):
        """Another process is always a moment faster."""

        others = True

        def shutdown(self, how: int) -> None:
            if self.others:
                self.others = False
                super().shutdown(how)
            super().shutdown(how)

    raw = bound_to_number(tcp_listener(LOCAL, 128), 128)
    with Raced(fileno=raw.detach()) as listener:
        shut_door(listener)
        assert refused(listener.getsockname())
        open_door(listener, 128)
        with connect_to(listener.getsockname()), listener.accept()[0] as accepted:
            accepted.setblocking(False)
            with pytest.raises(BlockingIOError):
                accepted.recv(1)
