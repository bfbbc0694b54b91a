"""The engine: kept connections are watched on, our own faults are LOCAL, nothing leaks."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable
from contextlib import closing

import gevent
import pytest

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.engine import Engine
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import PROFILES
from gserver.probe.target import parse_target
from gserver.probe.timerfd import TimerFd

QUICK = Patience(quiet_s=0.02, deadline_s=0.5)


def wait_for(condition: Callable[[], object]) -> None:
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.005)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield sock


@pytest.mark.parametrize("profile", ["echo", "silent"])
def test_a_kept_queued_attempt_is_seen_served_when_its_turn_comes(
    listener: socket.socket, profile: str
) -> None:
    changed: list[Attempt] = []
    target = parse_target(f"127.0.0.1:{listener.getsockname()[1]}")
    with closing(Oracle()) as oracle:
        engine = Engine(target, PROFILES[profile], QUICK, oracle=oracle, on_change=changed.append)
        with closing(engine):
            attempt = engine.start(keep=True)
            wait_for(lambda: attempt.outcome)
            assert attempt.outcome is Outcome.QUEUED
            assert attempt.is_waiting
            assert not attempt.is_held
            served, _ = listener.accept()
            with served:
                if profile == "echo":
                    served.sendall(served.recv(100))
                wait_for(lambda: changed)
                assert attempt.is_held
            wait_for(lambda: attempt.ended)
            assert not attempt.is_held
            assert changed == [attempt, attempt]
        assert engine.failure is None


def test_a_socket_connected_to_itself_is_refused_not_admitted() -> None:
    """Our own port may be the target's: the probe would then come back as its own echo."""
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    seen: list[Attempt] = []
    target = parse_target(f"127.0.0.1:{port}")
    with closing(Engine(target, PROFILES["echo"], QUICK, on_outcome=seen.append)) as engine:
        engine._sources._hosts = [("127.0.0.1", port)]
        engine.start()
        wait_for(lambda: seen)
    assert [a.outcome for a in seen] == [Outcome.REFUSED]
    assert seen[0].probed


def test_latency_is_counted_from_the_connect_call(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this machine needs for the socket and its address is slip, not the server's doing."""
    target = parse_target(f"127.0.0.1:{listener.getsockname()[1]}")
    needed_s = 0.05
    with closing(Engine(target, PROFILES["echo"], QUICK)) as engine:
        make = engine._sources.socket

        def slowly(index: int) -> object:
            time.sleep(needed_s)
            return make(index)

        monkeypatch.setattr(engine._sources, "socket", slowly)
        attempt = engine.start()
    assert attempt.started - attempt.intended >= needed_s * 1e9


def test_address_that_is_not_ours_is_local_and_leaves_no_socket(listener: socket.socket) -> None:
    target = parse_target(f"127.0.0.1:{listener.getsockname()[1]}")
    seen: list[Attempt] = []
    with closing(
        Engine(target, PROFILES["echo"], QUICK, sources=["192.0.2.1"], on_outcome=seen.append)
    ) as engine:
        before = len(os.listdir("/proc/self/fd"))
        engine.start()
        assert len(os.listdir("/proc/self/fd")) == before
    assert [a.outcome for a in seen] == [Outcome.LOCAL]
    assert 0 < seen[0].intended <= seen[0].started <= seen[0].finished


def test_no_descriptor_left_is_local(listener: socket.socket) -> None:
    target = parse_target(f"127.0.0.1:{listener.getsockname()[1]}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen: list[Attempt] = []
    with closing(Engine(target, PROFILES["echo"], QUICK, on_outcome=seen.append)) as engine:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            engine.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [a.outcome for a in seen] == [Outcome.LOCAL]


def test_close_gives_back_every_descriptor(listener: socket.socket) -> None:
    before = len(os.listdir("/proc/self/fd"))
    target = parse_target(f"127.0.0.1:{listener.getsockname()[1]}")
    engine = Engine(target, PROFILES["echo"], QUICK, sources=["127.1.0.1", "127.1.0.2"])
    attempts = [engine.start(keep=i % 2 == 0) for i in range(10)]
    assert {a.sock.getsockname()[0] for a in attempts} == {"127.1.0.1", "127.1.0.2"}
    engine.close()
    engine.close()
    assert engine.in_flight == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_timer_fires_at_its_time_and_not_before() -> None:
    from time import monotonic_ns

    with closing(TimerFd()) as timer:
        at = monotonic_ns() + 20_000_000
        timer.arm(at)
        watcher = gevent.get_hub().loop.io(timer.fileno(), 1)
        gevent.get_hub().wait(watcher)
        assert monotonic_ns() >= at
        timer.clear()
        timer.clear()
        watcher.close()
