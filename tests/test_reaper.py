"""The reaper: connections whose time is over end, counted by kind; nobody else does."""

from __future__ import annotations

import os
import ssl
from time import monotonic
from typing import Any

import gevent
import gevent.ssl
import pytest
from gevent import socket
from gevent.event import Event
from support import (
    CERTIFICATE,
    KEY,
    LOCAL,
    Holding,
    connect,
    echo,
    eventually,
    greet,
    outcome,
    running,
    turn,
    visit,
)

import gserver.reaper
from gserver import Ending, SettingError, StreamServer, Timeouts, WSGIServer
from gserver.net.tcp_info import read
from gserver.tls_files import TlsFiles

SHORT = 0.05
LONG = 60.0


def finished(server: Any) -> dict[Ending, int]:
    return {ending: count for ending, count in server.stats.finished.items() if count}


def test_a_client_that_says_nothing_is_ended_at_its_first_byte_timeout() -> None:
    timeouts = Timeouts(first_byte=SHORT, grace=LONG)
    with running(StreamServer(LOCAL, greet, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as silent:
            assert outcome(silent) == "served"
            assert outcome(silent) == "closed"
        assert finished(server) == {Ending.FIRST_BYTE_TIMEOUT: 1}
        assert visit(server) == "served"


@pytest.mark.parametrize(
    ("timeout", "ending"),
    [("first_byte", Ending.FIRST_BYTE_TIMEOUT), ("idle", Ending.IDLE_TIMEOUT)],
)
def test_a_client_that_closes_its_half_without_a_word_is_as_silent_as_any(
    timeout: str, ending: Ending
) -> None:
    """The handler is not reading, and does not see the end-of-file."""
    timeouts = Timeouts(**{timeout: SHORT}, grace=SHORT)
    handler = Holding()
    with running(StreamServer(LOCAL, handler, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as half_closed:
            half_closed.shutdown(socket.SHUT_WR)
            assert outcome(half_closed) == "served"
            assert outcome(half_closed) == "closed"
        assert finished(server) == {ending: 1}


def test_a_client_that_has_said_something_is_none_of_the_first_byte_timeouts_business() -> None:
    with running(
        StreamServer(LOCAL, greet, max_connections=2, timeouts=Timeouts(first_byte=0.2))
    ) as server:
        with connect(server) as talker:
            talker.sendall(b"x")
            eventually(lambda: server.stats.active == 1)
            with connect(server) as silent:  # one that came later is over
                assert outcome(silent) == "served"
                assert outcome(silent) == "closed"
            assert server.stats.active == 1


def test_where_the_server_greets_first_the_first_byte_timeout_includes_its_greeting() -> None:
    def greets(sock: Any, _address: Any) -> None:
        if server.stats.active == 2:
            Event().wait()
        sock.sendall(b"220 ready\r\n")
        while sock.recv(100):
            pass

    timeouts = Timeouts(first_byte=0.2, grace=SHORT)
    server = StreamServer(LOCAL, greets, max_connections=2, timeouts=timeouts)
    with running(server), connect(server) as greeted:
        assert greeted.recv(100) == b"220 ready\r\n"
        greeted.sendall(b"EHLO client\r\n")
        with connect(server) as waiting:
            assert outcome(waiting) == "closed"
        eventually(lambda: server.stats.active == 1)
        assert finished(server) == {Ending.FIRST_BYTE_TIMEOUT: 1}


def test_a_client_to_which_nobody_owes_an_answer_is_ended_when_idle() -> None:
    timeouts = Timeouts(idle=SHORT, grace=LONG)
    with running(StreamServer(LOCAL, echo, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as client:
            client.sendall(b"x")  # before it is accepted: then it is not idle until it has its echo
            assert outcome(client) == "served"
            assert client.recv(1) == b"x"
            assert outcome(client) == "closed"
        assert finished(server) == {Ending.IDLE_TIMEOUT: 1}


def test_a_client_that_keeps_talking_is_not_idle() -> None:
    for idle in (0.2, 1.0, 5.0):  # a machine under load may keep it from talking for as long
        timeouts = Timeouts(idle=idle)
        with running(StreamServer(LOCAL, echo, max_connections=1, timeouts=timeouts)) as server:
            with connect(server) as client:
                if keeps_talking(client, 2.5 * idle) < 0.9 * idle:  # the kernel counts in ticks
                    assert server.stats.active == 1
                    return
    pytest.fail("it never could go on talking")


def keeps_talking(client: Any, seconds: float) -> float:
    """To an echo. The longest that it was silent."""
    longest, last = 0.0, monotonic()
    until = last + seconds
    while last < until:
        try:
            client.sendall(b"x")
            heard = client.recv(1)
        except ConnectionError:
            heard = b""
        longest, last = max(longest, monotonic() - last), monotonic()
        if not heard:
            break
        turn(0.01)
    return longest


def test_a_handler_that_computes_an_answer_is_never_ended_as_idle() -> None:
    answer = Event()

    def slow(sock: Any, _address: Any) -> None:
        while sock.recv(1):
            answer.wait()
            sock.sendall(b"answer")

    # A second connection shows that the timeout has passed over the first one.
    timeouts = Timeouts(idle=SHORT, grace=0.01)
    with running(StreamServer(LOCAL, slow, max_connections=2, timeouts=timeouts)) as server:
        with connect(server) as asking:
            asking.sendall(b"?")
            turn(SHORT)
            with connect(server) as silent:
                assert outcome(silent) == "closed"
            turn(SHORT)
            assert server.stats.active == 1
            answer.set()
            assert asking.recv(100) == b"answer"
            assert outcome(asking) == "closed"  # and then it is idle
        assert finished(server) == {Ending.IDLE_TIMEOUT: 2}


def in_parts(rest: Event) -> Any:
    """A handler that pauses inside its answer."""

    def handler(sock: Any, _address: Any) -> None:
        while request := sock.recv(1):
            eventually(lambda: a_tick_after(sock))
            sock.sendall(b"part;")
            rest.wait()
            sock.sendall(request)

    return handler


def a_tick_after(sock: Any) -> bool:
    """Whether what is sent now is seen to be sent after what has come."""
    info = read(sock._sock)
    return info is not None and info.last_received_ms >= 20


def test_a_pause_inside_an_answer_is_idleness_and_the_timeout_must_be_longer() -> None:
    """Once its first part is out the last data is ours, and nobody can know of the next."""
    rest = Event()
    timeouts = Timeouts(idle=1.0, grace=LONG)
    server = StreamServer(LOCAL, in_parts(rest), max_connections=1, timeouts=timeouts)
    with running(server), connect(server) as client:
        client.sendall(b"?")
        assert client.recv(100) == b"part;"
        rest.set()  # a pause shorter than the timeout
        assert client.recv(100) == b"?"
        rest.clear()
        client.sendall(b"!")
        assert client.recv(100) == b"part;"
        (connection,) = server.limiter.connections
        eventually(lambda: connection.nudged)  # and a longer one
        rest.set()
        assert client.recv(100) == b"!"  # within the grace
        assert outcome(client) == "closed"
        eventually(lambda: finished(server) == {Ending.IDLE_TIMEOUT: 1})


def test_a_client_that_does_not_read_its_answer_is_idle() -> None:
    def floods(sock: Any, _address: Any) -> None:
        sock.recv(1)
        eventually(lambda: a_tick_after(sock))
        while True:
            sock.sendall(b"x" * 65536)

    timeouts = Timeouts(idle=SHORT, grace=SHORT)
    with running(StreamServer(LOCAL, floods, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as deaf:
            deaf.sendall(b"?")
            eventually(lambda: finished(server) == {Ending.IDLE_TIMEOUT: 1})


def test_idle_works_under_tls() -> None:
    context = TlsFiles(str(CERTIFICATE), str(KEY)).context()
    ours = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.check_hostname = False
    ours.verify_mode = ssl.CERT_NONE
    server = StreamServer(
        LOCAL, echo, max_connections=1, ssl_context=context, timeouts=Timeouts(idle=0.5)
    )
    with running(server), connect(server) as plain, ours.wrap_socket(plain) as client:
        assert outcome(client) == "served"
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert outcome(client) == "closed"
        assert finished(server) == {Ending.IDLE_TIMEOUT: 1}


def test_idle_works_for_wsgi_between_requests() -> None:
    def app(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    server = WSGIServer(LOCAL, app, max_connections=1, log=None, timeouts=Timeouts(idle=SHORT))
    with running(server), connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = b""
        while data := client.recv(4096):
            seen += data
        assert seen.endswith(b"ok")
        eventually(lambda: finished(server) == {Ending.IDLE_TIMEOUT: 1})


def test_a_lifetime_ends_whoever_is_still_there() -> None:
    timeouts = Timeouts(lifetime=0.1)
    with running(StreamServer(LOCAL, echo, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as client:
            assert outcome(client) == "served"
            with pytest.raises((AssertionError, OSError)):
                for _ in range(100_000):  # talks on and on
                    client.sendall(b"x")
                    assert client.recv(1)
        eventually(lambda: finished(server) == {Ending.LIFETIME: 1})


def test_only_lifetime_holds_on_a_unix_socket(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        timeouts = Timeouts(first_byte=0.01, idle=0.01, lifetime=0.3)
        with running(StreamServer(listener, greet, max_connections=1, timeouts=timeouts)) as server:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                assert outcome(client) == "served"
                assert outcome(client) == "closed"
            assert finished(server) == {Ending.LIFETIME: 1}


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("kind", [socket.AF_UNIX, socket.AF_INET])
def test_what_ends_nobody_on_a_listener_is_in_the_log_once(
    kind: Any, deferred: bool, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener = socket.socket(kind)
    listener.bind(str(tmp_path / "s") if kind == socket.AF_UNIX else LOCAL)
    listener.listen()
    timeouts = Timeouts(first_byte=LONG, lifetime=LONG)
    server = StreamServer(
        listener,
        greet,
        max_connections=1,
        timeouts=timeouts,
        evict_idle=LONG,
        deferred_start=deferred,
    )
    with running(server):
        told = [record.getMessage() for record in caplog.records]
    if kind == socket.AF_UNIX and not deferred:
        (line,) = told
        assert ": without effect here: first_byte, evict_idle (" in line
    else:
        assert not told


def test_on_a_unix_socket_a_deferred_start_has_a_first_byte_timeout(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        server = StreamServer(
            listener,
            echo,
            max_connections=1,
            deferred_start=True,
            timeouts=Timeouts(first_byte=SHORT),
        )
        with running(server), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            assert outcome(client) == "closed"
            assert finished(server) == {Ending.FIRST_BYTE_TIMEOUT: 1}


def test_a_handler_that_does_not_heed_its_end_of_file_is_killed_after_the_grace() -> None:
    never = Event()
    seen = []

    def deaf(sock: Any, _address: Any) -> None:
        try:
            never.wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    timeouts = Timeouts(first_byte=SHORT, grace=SHORT)
    with running(StreamServer(LOCAL, deaf, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as client:
            assert outcome(client) == "closed"
        eventually(lambda: finished(server) == {Ending.FIRST_BYTE_TIMEOUT: 1})
        assert seen == [gevent.GreenletExit]


def test_the_client_of_a_handler_that_survives_its_kill_is_cut_off() -> None:
    leave = Event()

    def swallows(sock: Any, _address: Any) -> None:
        while not leave.is_set():
            try:
                leave.wait()
            except gevent.GreenletExit:
                pass

    timeouts = Timeouts(lifetime=SHORT, grace=SHORT)
    with running(StreamServer(LOCAL, swallows, max_connections=1, timeouts=timeouts)) as server:
        with connect(server) as client:
            assert outcome(client) == "closed"
            assert server.stats.active == 1  # its slot comes back when it ends, not before
            leave.set()
            eventually(lambda: server.stats.active == 0)
        assert finished(server) == {Ending.LIFETIME: 1}


def test_timeouts_go_on_after_the_server_has_closed() -> None:
    with running(
        StreamServer(LOCAL, greet, max_connections=1, timeouts=Timeouts(idle=SHORT))
    ) as server:
        with connect(server) as client:
            assert outcome(client) == "served"
            server.close()
            assert outcome(client) == "closed"
        eventually(lambda: server.stats.active == 0)


def test_the_sweep_runs_only_while_there_is_somebody_to_watch() -> None:
    server = StreamServer(LOCAL, greet, max_connections=1, timeouts=Timeouts(idle=LONG))
    with running(server):
        assert server._reaper._timer is None
        with connect(server) as client:
            assert outcome(client) == "served"
            assert server._reaper._timer is not None
        eventually(lambda: server.stats.active == 0)
        assert server._reaper._timer is None
        assert not server._reaper._watched


def test_without_a_timeout_nobody_is_watched() -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1)) as server:
        with connect(server) as client:
            assert outcome(client) == "served"
            assert not server._reaper.wanted
            assert server._reaper._timer is None


def test_a_sweep_looks_at_a_part_and_lets_the_loop_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget of nothing, one connection a turn: and all of them are looked at."""
    monkeypatch.setattr(gserver.reaper, "BUDGET_S", 0.0)
    looked: list[int] = []  # the loop's turn of each look
    original = gserver.reaper.look

    def look(*arguments: Any) -> Any:
        looked.append(gevent.get_hub().loop.iteration)
        return original(*arguments)

    monkeypatch.setattr(gserver.reaper, "look", look)
    timeouts = Timeouts(idle=0.3)
    with running(StreamServer(LOCAL, greet, max_connections=10, timeouts=timeouts)) as server:
        held = [connect(server) for _ in range(10)]
        for client in held:
            assert outcome(client) == "served"
        for client in held:
            assert outcome(client) == "closed"
            client.close()
        assert len(looked) >= 10
        assert len(set(looked)) == len(looked)
        eventually(lambda: finished(server) == {Ending.IDLE_TIMEOUT: 10})


def test_an_error_in_a_sweep_does_not_end_the_sweeping(
    monkeypatch: pytest.MonkeyPatch, hub_errors: list[BaseException]
) -> None:
    original = gserver.reaper.look
    failing = [RuntimeError("on purpose")]

    def look(*arguments: Any) -> Any:
        if failing:
            raise failing.pop()
        return original(*arguments)

    monkeypatch.setattr(gserver.reaper, "look", look)
    with running(
        StreamServer(LOCAL, greet, max_connections=1, timeouts=Timeouts(idle=SHORT))
    ) as server:
        with connect(server) as client:
            assert outcome(client) == "served"
            assert outcome(client) == "closed"
    assert [str(error) for error in hub_errors] == ["on purpose"]
    hub_errors.clear()


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"timeouts": 5}, "timeouts"),
        ({"evict_idle": 0}, "evict_idle"),
        ({"handshake_timeout": 0}, "handshake_timeout"),
    ],
)
def test_a_bad_value_is_refused_naming_its_setting(arguments: Any, setting: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} "):
        StreamServer(LOCAL, greet, max_connections=1, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"timeouts": Timeouts()}, {"evict_idle": 1.0}, {"deferred_start": True}]
)
def test_without_a_cap_there_are_no_timeouts(arguments: Any) -> None:
    with pytest.raises(SettingError, match=f"^{next(iter(arguments))} .*needs a cap"):
        StreamServer(LOCAL, greet, **arguments)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"handshake_timeout": 3.0}, "handshake_timeout"),
        ({"timeouts": Timeouts(grace=0.5)}, "grace"),
    ],
    ids=str,
)
def test_a_time_of_what_there_is_none_of_is_an_error_and_leaves_nothing_open(
    arguments: Any, setting: str
) -> None:
    """Like the first: who gives one means to be protected, and would not be."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SettingError, match=rf"^{setting} .*needs ") as caught:
        StreamServer(LOCAL, greet, max_connections=1, **arguments)
    assert caught.value.setting == setting
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_grace_is_used_where_an_idle_connection_is_evicted() -> None:
    server = StreamServer(
        LOCAL, greet, max_connections=1, timeouts=Timeouts(grace=0.5), evict_idle=1.0
    )
    server.close()
