"""What the probe's tests share: servers in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
