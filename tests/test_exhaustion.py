"""G6: out of descriptors is a verdict too; no error of accept leaves clients waiting."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

import gevent.server
import pytest
from gevent import GreenletExit
from gevent.pool import Pool
from support import (
    LOCAL,
    Process,
    clients,
    connect,
    connect_to,
    echo,
    eventually,
    greet,
    never_within,
    outcome,
    running,
    visit,
)

import gserver.accept
import gserver.server
from gserver import Reason, StreamServer


@contextlib.contextmanager
def short_of_descriptors(kind: str, cap: int, free: int) -> Iterator[tuple[Process, Any]]:
    with Process("served.py", kind, cap, free) as process:
        yield process, tuple(process.read())


def test_without_descriptors_every_client_is_answered_and_the_admitted_go_on() -> None:
    free = 5
    with short_of_descriptors("gserver", 1000, free) as (process, address):
        with contextlib.ExitStack() as stack:
            served = []
            for _ in range(free):
                sock = stack.enter_context(connect_to(address))
                assert outcome(sock) == "served"
                served.append(sock)
            for _ in range(100):
                with connect_to(address, timeout=5.0) as extra:
                    assert outcome(extra) == "closed"
            for sock in served:
                sock.sendall(b"still here")
                assert sock.recv(100) == b"still here"
            process.tell()
            books = process.read()
            assert books["active"] == free
            assert books["descriptors"] == 100
            # One EMFILE answers all that are queued at that moment, up to a turn's share.
            assert books["errors"]["EMFILE"] > 0
            assert books["balanced"]
            # And it recovers: the moment one leaves, its descriptor serves the next.
            served.pop().close()
            with connect_to(address) as after:
                assert outcome(after) == "served"


def test_control_without_descriptors_stock_gevent_lets_its_clients_hang() -> None:
    with short_of_descriptors("gevent", 1000, 3) as (_, address), contextlib.ExitStack() as stack:
        for _ in range(3):
            assert outcome(stack.enter_context(connect_to(address))) == "served"
        extra = stack.enter_context(connect_to(address, timeout=0.5))
        assert outcome(extra) == "hung"


class FakeListener:
    """A listener whose accept fails as told, and works otherwise."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.errors: list[OSError] = []
        self.always: OSError | None = None
        self.calls = 0

    def _accept(self) -> Any:
        self.calls += 1
        if self.always is not None:
            raise self.always
        if self.errors:
            raise self.errors.pop(0)
        return self._real._accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextlib.contextmanager
def faked(pause: float | None = None) -> Iterator[tuple[Any, FakeListener]]:
    server: Any = StreamServer(LOCAL, greet, max_connections=2)
    if pause is not None:
        server.min_delay = server.max_delay = pause
    server.init_socket()
    fake = FakeListener(server.socket)
    server.socket = fake
    with running(server):
        yield server, fake


def error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPROTO", "EINTR", "ENETDOWN", "EHOSTUNREACH"])
def test_a_dead_peers_error_never_pauses_accepting(name: str) -> None:
    with faked(pause=3600.0) as (server, fake):  # a pause would be noticed
        fake.errors = [error(name) for _ in range(5)]
        assert visit(server) == "served"
        assert server.stats.accept_errors == {name: 5}
        assert server.stats.accepted == 1


def test_a_flood_of_dead_peers_does_not_hold_the_loop() -> None:
    """At most a share of them a turn."""
    with faked() as (server, fake):
        fake.always = error("ECONNABORTED")
        with connect(server):
            eventually(lambda: fake.calls >= 64)
        fake.always = None
        eventually(lambda: visit(server) == "served")


@pytest.mark.parametrize("name", ["ENOBUFS", "ENOMEM", "EDOM"])
def test_short_of_memory_or_unknown_backs_off_bounded_and_begins_again(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with faked() as (server, fake):
        fake.errors = [error(name) for _ in range(4)]  # 10 + 20 + 40 + 80 ms
        assert visit(server) == "served"
        assert server.stats.accept_errors == {name: 4}
    assert len(caplog.records) == 1  # not one a retry


def test_each_outage_is_logged_and_one_that_lasts_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(gserver.accept, "monotonic", lambda: now)
    with faked(pause=0.001) as (server, fake):
        for lines in 1, 2, 3:
            fake.errors = [error("ENOMEM") for _ in range(4)]
            assert visit(server) == "served"
            assert len(caplog.records) == lines
            now += 10.0


def test_an_error_of_dead_peers_that_never_ends_backs_off_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with faked(pause=3600.0) as (server, fake):
        fake.always = error("EPERM")
        with connect(server):
            eventually(lambda: server._accepting._watcher is None)
            assert fake.calls == 64
    (record,) = caplog.records
    assert "Operation not permitted; pausing" in record.getMessage()


def test_a_client_whose_socket_cannot_be_made_is_closed_and_the_books_balance(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("on purpose")

    with running(StreamServer(LOCAL, greet, max_connections=1)) as server:
        with monkeypatch.context() as patch:
            patch.setattr(gserver.server, "GeventSocket", fails)
            assert visit(server) == "closed"
        assert server.stats.balanced
        assert visit(server) == "served"
    assert "on purpose" in caplog.text


def test_the_pauses_double_up_to_a_bound_and_start_over_after_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with faked() as (server, fake):
        accepting = server._accepting
        pauses: list[float] = []
        back_off = accepting._back_off

        def note() -> None:
            pauses.append(accepting._delay)
            back_off()

        monkeypatch.setattr(accepting, "_back_off", note)
        accepting._min_delay = accepting._delay = 0.001
        accepting._max_delay = 0.004
        fake.errors = [error("ENOBUFS") for _ in range(5)]
        assert visit(server) == "served"
        assert pauses == [0.001, 0.002, 0.004, 0.004, 0.004]
        pauses.clear()
        fake.errors = [error("ENOBUFS")]
        eventually(lambda: server.stats.active == 0)
        assert visit(server) == "served"
        assert pauses == [0.001]


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE"])
def test_out_of_descriptors_takes_and_rejects_one_client_with_the_reserve(name: str) -> None:
    with faked(pause=3600.0) as (server, fake):
        reserve = server._accepting._reserve
        fake.errors = [error(name)]
        assert visit(server) == "closed"
        assert server.stats.rejected[Reason.DESCRIPTORS] == 1
        assert server.stats.accept_errors == {name: 1}
        assert server._accepting._reserve == reserve
        assert visit(server) == "served"


def test_out_of_descriptors_without_a_reserve_backs_off_until_there_is_one() -> None:
    with faked() as (server, fake):
        os.close(server._accepting._reserve)
        server._accepting._reserve = None
        fake.errors = [error("EMFILE")]
        assert visit(server) == "served"
        assert server._accepting._reserve is not None


def test_no_descriptor_to_keep_in_reserve_is_one_line_not_one_a_retry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [error("EMFILE") for _ in range(5)]
    really = os.open

    def fails(*arguments: Any, **more: Any) -> int:
        if failures:
            raise failures.pop()
        return really(*arguments, **more)

    with faked(pause=0.001) as (server, fake):
        os.close(server._accepting._reserve)
        server._accepting._reserve = None
        fake.errors = [error("EMFILE") for _ in range(5)]
        monkeypatch.setattr(os, "open", fails)
        assert visit(server) == "served"
        assert not failures
    (record,) = caplog.records
    assert "no descriptor to keep in reserve" in record.getMessage()


@pytest.mark.parametrize("name", ["EBADF", "EINVAL", "ENOTSOCK"])
def test_a_listener_that_is_none_any_more_closes_the_server_and_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with faked() as (server, fake):
        fake.always = error(name)
        with connect(server):
            eventually(lambda: not server.started)
        assert server.closed
        assert "the listener failed" in caplog.text


def test_serve_forever_returns_when_the_listener_fails() -> None:
    with faked() as (server, fake):
        serving = gevent.spawn(server.serve_forever)
        fake.always = error("EBADF")
        with connect(server):
            serving.get(timeout=10)


def test_control_an_aborted_client_pauses_stock_gevent(
    hub_errors: list[BaseException],
) -> None:
    errors = [error("ECONNABORTED")]

    class Server(gevent.server.StreamServer):
        min_delay = max_delay = 3600.0

        def do_read(self) -> Any:
            if errors:
                raise errors.pop()
            return super().do_read()

    with running(Server(LOCAL, echo)) as server:
        with connect(server, timeout=0.3) as client:
            assert outcome(client) == "hung"
    hub_errors.clear()


def test_no_error_of_ours_leaves_the_server_deaf(hub_errors: list[BaseException]) -> None:
    """gevent stops a watcher whose callback raised."""
    with faked() as (server, fake):
        fake.errors = [RuntimeError("on purpose")]
        assert visit(server) == "served"
        (seen,) = hub_errors
        assert str(seen) == "on purpose"
    hub_errors.clear()


def test_no_error_of_ours_forgets_the_candidates(hub_errors: list[BaseException]) -> None:
    """The same for the timer that decides on them."""
    pool = Pool(1)
    add, failures = pool.add, [GreenletExit()]

    def failing_add(greenlet: Any, **arguments: Any) -> None:
        if len(pool) == 0 and candidates and failures:
            raise failures.pop()
        add(greenlet, **arguments)

    pool.add = failing_add
    candidates: list[Any] = []
    with running(StreamServer(LOCAL, greet, spawn=pool, settle=3600.0)) as server:
        with clients(server, 1):
            candidates += [connect(server), connect(server)]
            eventually(lambda: server.stats.pending == 2)
        assert [outcome(sock) for sock in candidates] == ["closed", "served"]
        assert server.stats.balanced
        for sock in candidates:
            sock.close()
    hub_errors.clear()


def test_a_rejection_that_raises_is_counted_and_the_next_client_is_rejected_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        name = "broken"

        def on(self, family: int, loop: Any) -> Any:
            return self.fail

        def fail(self, fd: int) -> None:
            _socket.close(fd)
            raise failures.pop()

    failures: list[Exception] = [RuntimeError("on purpose"), error("EIO")]
    server = StreamServer(LOCAL, greet, max_connections=1, rejection=Broken())
    with running(server), connect(server) as first:
        assert outcome(first) == "served"
        for number in 1, 2:
            assert visit(server) == "closed"
            assert server.stats.rejection_errors == number
    assert "on purpose" in caplog.text


def test_nothing_is_accepted_before_the_start_or_after_the_stop() -> None:
    server = StreamServer(LOCAL, greet, max_connections=1)
    server.init_socket()
    address = server.socket.getsockname()
    with connect_to(address):
        never_within(0.05, lambda: server.stats.accepted)
        server.close()
    with pytest.raises(ConnectionRefusedError):
        connect_to(address)
