"""G4: whatever ends a connection, its socket is closed, then its slot comes back, once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    DEADLINE,
    LOCAL,
    OrderedPool,
    connect,
    eventually,
    inode_of,
    is_open,
    running,
    turn,
    vanish,
)

import gserver.connection
from gserver import StreamServer, slots
from gserver.stats import Ending


@dataclass
class Stage:
    """What one ending needs."""

    server: Any = None
    pool: OrderedPool = field(default_factory=lambda: OrderedPool(2))
    client: Any = None
    inside: Event = field(default_factory=Event)
    leave: Event = field(default_factory=Event)
    kept: list[Any] = field(default_factory=list)
    greenlet: Any = None


Handler = Callable[[Stage, Any], object]
ENDINGS: dict[str, tuple[Ending, Handler]] = {}


def ending(expected: Ending) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ENDINGS[handler.__name__] = (expected, handler)
        return handler

    return register


@ending(Ending.RETURNED)
def the_handler_returns(stage: Stage, sock: Any) -> None:
    pass


@ending(Ending.RETURNED)
def the_client_leaves(stage: Stage, sock: Any) -> None:
    stage.client.close()
    assert sock.recv(1) == b""


@ending(Ending.RAISED)
def the_handler_raises(stage: Stage, sock: Any) -> None:
    raise RuntimeError("on purpose")


@ending(Ending.RAISED)
def the_handler_raises_a_base_exception(stage: Stage, sock: Any) -> None:
    class OnPurpose(BaseException):
        pass

    raise OnPurpose


@ending(Ending.EXITED)
def the_handler_calls_sys_exit(stage: Stage, sock: Any) -> None:
    sys.exit(3)


@ending(Ending.KILLED)
def the_handler_is_killed(stage: Stage, sock: Any) -> None:
    gevent.spawn(gevent.getcurrent().kill)
    stage.leave.wait()


@ending(Ending.RAISED)
def the_handler_is_killed_with_an_exception(stage: Stage, sock: Any) -> None:
    gevent.spawn(gevent.getcurrent().kill, RuntimeError("on purpose"))
    stage.leave.wait()


@ending(Ending.RETURNED)
def a_makefile_is_still_alive(stage: Stage, sock: Any) -> None:
    stage.kept.append(sock.makefile("rb"))


@ending(Ending.RETURNED)
def the_handler_closed_the_socket_itself(stage: Stage, sock: Any) -> None:
    sock.close()


@ending(Ending.RETURNED)
def the_handler_detached_the_socket_and_closed_the_descriptor(stage: Stage, sock: Any) -> None:
    os.close(sock.detach())


@ending(Ending.RETURNED)
def the_descriptor_was_closed_behind_the_sockets_back(stage: Stage, sock: Any) -> None:
    os.close(sock.fileno())


@ending(Ending.PEER_GONE)
def the_peer_resets_while_the_handler_reads(stage: Stage, sock: Any) -> None:
    vanish(stage.client)
    sock.recv(1)
    sock.recv(1)


@ending(Ending.PEER_GONE)
def the_peer_resets_while_the_handler_writes(stage: Stage, sock: Any) -> None:
    vanish(stage.client)
    while True:
        sock.sendall(b"x" * 65536)


@ending(Ending.RAISED)
def another_connections_reset_is_the_handlers_own_fault(stage: Stage, sock: Any) -> None:
    raise ConnectionResetError("of a database, say")


@ending(Ending.RETURNED)
def another_greenlet_still_waits_for_the_socket(stage: Stage, sock: Any) -> None:
    def read() -> None:
        with contextlib.suppress(OSError):
            sock.recv(1)

    gevent.spawn(read)
    turn()


@ending(Ending.KILLED)
def killed_while_another_greenlet_waits_for_the_socket(stage: Stage, sock: Any) -> None:
    another_greenlet_still_waits_for_the_socket(stage, sock)
    the_handler_is_killed(stage, sock)


def _stage(
    handler: Handler, server_class: Any = StreamServer, **arguments: Any
) -> tuple[Stage, Any]:
    stage = Stage()

    def handle(sock: Any, _address: Any) -> object:
        stage.greenlet = gevent.getcurrent()
        stage.pool.sockets.append((sock.fileno(), inode_of(sock)))
        stage.inside.set()
        stage.leave.wait()
        stage.leave.clear()
        return handler(stage, sock)

    stage.server = server_class(LOCAL, handle, spawn=stage.pool, **arguments)
    return stage, stage.server


def _check_all_came_back(stage: Stage, expected: Ending) -> None:
    server = stage.server
    eventually(lambda: server.stats.active == 0)
    books = server.stats
    assert books.finished == {e: int(e is expected) for e in Ending}
    assert books.balanced
    assert stage.pool.closed_first == [True]  # once, and in this order
    assert len(stage.pool) == 0
    assert stage.pool._semaphore.counter == stage.pool.size == 2
    assert not any(is_open(*key) for key in stage.pool.sockets)
    assert not server.limiter.connections
    assert server.audit().clean


@pytest.mark.parametrize("name", ENDINGS)
def test_socket_closes_then_slot_comes_back_when(name: str) -> None:
    expected, handler = ENDINGS[name]
    stage, server = _stage(handler)
    with running(server):
        stage.client = connect(server)
        try:
            assert stage.inside.wait(DEADLINE)
            stage.leave.set()
            _check_all_came_back(stage, expected)
            # Nothing later, the pool's own link among it, gives it back again.
            turn()
            turn()
            assert len(stage.pool.closed_first) == 1
            # Both slots serve again.
            stage.inside.clear()
            with connect(server) as again:
                assert stage.inside.wait(DEADLINE)
                assert server.stats.active == 1
                stage.client.close()
                stage.client = again
                stage.leave.set()
                eventually(lambda: server.stats.active == 0)
        finally:
            stage.client.close()
            for thing in stage.kept:
                thing.close()


def test_control_giving_the_slot_back_before_the_close_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close = gserver.connection.Connection._close_socket

    def slot_first(self: Any) -> None:
        slots.give_back(self._limiter.pool, gevent.getcurrent())
        close(self)

    monkeypatch.setattr(gserver.connection.Connection, "_close_socket", slot_first)
    stage, server = _stage(the_handler_returns)
    with running(server), connect(server):
        assert stage.inside.wait(DEADLINE)
        stage.leave.set()
        eventually(lambda: server.stats.active == 0)
        assert stage.pool.closed_first == [False]


def test_slot_returns_when_the_handler_detached_and_the_descriptor_is_the_handlers() -> None:
    taken: list[int] = []

    def handler(sock: Any, _address: Any) -> None:
        taken.append(sock.detach())

    with running(StreamServer(LOCAL, handler, max_connections=1)) as server:
        with connect(server) as client:
            eventually(lambda: taken and server.stats.active == 0)
            os.write(taken[0], b"!")  # not ours to close
            assert client.recv(1) == b"!"
            os.close(taken[0])
            assert server.stats.finished[Ending.RETURNED] == 1


def test_slot_returns_when_do_close_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Server(StreamServer):
        def do_close(self, *_client: Any) -> None:
            raise RuntimeError("on purpose")

    stage, server = _stage(the_handler_returns, Server)
    with running(server), connect(server):
        assert stage.inside.wait(DEADLINE)
        stage.leave.set()
        _check_all_came_back(stage, Ending.RETURNED)
    assert "on purpose" in caplog.text


def test_slot_is_held_while_do_close_yields_and_returns_after_it() -> None:
    closing, go_on = Event(), Event()

    class Server(StreamServer):
        def do_close(self, *client: Any) -> None:
            closing.set()
            go_on.wait()
            super().do_close(*client)

    stage, server = _stage(the_handler_returns, Server)
    with running(server), connect(server):
        assert stage.inside.wait(DEADLINE)
        stage.leave.set()
        assert closing.wait(DEADLINE)
        assert server.stats.active == 1
        assert server.stats.balanced
        go_on.set()
        _check_all_came_back(stage, Ending.RETURNED)


def test_slot_returns_when_killed_while_do_close_yields() -> None:
    closing = Event()

    class Server(StreamServer):
        def do_close(self, *client: Any) -> None:
            closing.set()
            Event().wait()

    stage, server = _stage(the_handler_returns, Server)
    with running(server), connect(server):
        assert stage.inside.wait(DEADLINE)
        stage.leave.set()
        assert closing.wait(DEADLINE)
        stage.greenlet.kill()
        _check_all_came_back(stage, Ending.RETURNED)


def test_slot_returns_at_once_when_the_handler_returns_not_in_a_later_turn() -> None:
    """G3 stands on this: in the callback that follows the handler's end the slot is back."""
    seen: list[int] = []

    def handler(_sock: Any, _address: Any) -> None:
        gevent.get_hub().loop.run_callback(lambda: seen.append(server.stats.active))

    server = StreamServer(LOCAL, handler, max_connections=1)
    with running(server), connect(server):
        eventually(lambda: seen)
        assert seen == [0]
