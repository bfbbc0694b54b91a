"""What the probe's tests share: servers in processes of their own, and one batch of attempts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.engine import Engine
from gserver.probe.oracle import Oracle
from gserver.probe.profiles import Profile
from gserver.probe.target import parse_target

HERE = Path(__file__).parent


@pytest.fixture
def start_server() -> Iterator[Callable[..., int]]:
    """Start ``tests/probe/NAME.py ARGUMENT...``; returns the port that it prints."""
    children: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: object) -> int:
        child = subprocess.Popen(
            [sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.strip().isdecimal(), f"{name} {arguments} did not start"
        return int(line)

    yield start
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def zoo(start_server: Callable[..., int]) -> Callable[..., int]:
    """Start one animal of the zoo: ``zoo("fin_late", 0.05)``; returns its port."""
    return lambda kind, *more: start_server("zoo", kind, *more)


def run_attempts(
    port: int, profile: Profile, count: int, patience: Patience, *, use_oracle: bool = True
) -> list[Attempt]:
    """*count* attempts at once; returns them, all with an outcome, every socket closed."""
    oracle = Oracle() if use_oracle else None
    engine = Engine(parse_target(f"127.0.0.1:{port}"), profile, patience, oracle=oracle)
    try:
        attempts = [engine.start() for _ in range(count)]
        with gevent.Timeout(patience.deadline_s + 20):
            while engine.in_flight:
                gevent.sleep(0.005)
        assert engine.failure is None, engine.failure
        return attempts
    finally:
        engine.close()
        if oracle is not None:
            oracle.close()
