"""The article's two experiments, live: real processes, real sockets, blocking clients."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["run"]

_STAY_S: Final = 1.5  # how long the first client stays
_DEADLINE_S: Final = 5.0  # for anything that should happen at once

#: -P: not the current directory first, where a gserver.py or a select.py may be.
_PYTHON: Final = (sys.executable, "-P", "-m")

Say = Callable[[str], object]


class _Unexpected(Exception):
    """What the demo shows did not happen."""


def run(say: Say) -> bool:
    """Run both experiments, in under ten seconds. False when what they show does not happen.

    :param say: takes each line of the transcript. Both servers have ended when this returns.
    """
    try:
        _sequential(say)
        say("")
        _capped(say)
    except (_Unexpected, OSError) as error:
        say(f"\nThis was not to happen: {error}")
        return False
    return True


def _sequential(say: Say) -> None:
    say("1. A sequential server without a limit")
    with _server([*_PYTHON, "gserver.demo.sequential"]) as line:
        port = int(line)
        tell = _teller(say)
        with _Client(port) as first:
            tell(f"A connects to port {port}, says hello, and is answered after {first.hello()}")
            with _Client(port) as second:
                tell(f"B connects: accepted by the kernel after {second.connected}")
                second.send()
                # The sequential server is inside A's connection for as long as A stays.
                if second.answers_within(_STAY_S):
                    raise _Unexpected("the sequential server answered two clients at once")
                tell(f"B has said hello and heard nothing; the kernel's queue holds {_queue(port)}")
                first.leave()
                left = time.perf_counter()
                tell("A leaves")
                if not second.answers_within(_DEADLINE_S):
                    raise _Unexpected("B was not answered after A had left")
                since = _duration(time.perf_counter() - left)
                waited = _duration(time.perf_counter() - second.began)
                tell(f"B is answered, {since} after A left, having waited {waited}")


def _capped(say: Say) -> None:
    say("2. A server that knows when it is full: gserver serve echo --max-connections 1")
    command = [*_PYTHON, "gserver", "serve", "echo"]
    command += ["--listen", "127.0.0.1:0", "--max-connections", "1", "--drain-timeout", "0"]
    with _server(command) as line:
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found is None:
            raise _Unexpected(f"the server said {line!r}")
        port = int(found[1])
        tell = _teller(say)
        with _Client(port) as first:
            tell(f"A connects to port {port}, says hello, and is answered after {first.hello()}")
            with _Client(port) as second:
                how = second.turned_away()
                tell(f"B connects, and is turned away after {second.age()}: {how}")
            tell(f"A goes on: it says hello again, and is answered after {first.hello()}")
        tell("A leaves")
        with _Client(port) as third:
            tell(f"C connects, is admitted, says hello, and is answered after {third.hello()}")


class _Client:
    """A blocking client on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(_DEADLINE_S)
        self.began = time.perf_counter()
        self._socket.connect(("127.0.0.1", port))
        self.connected = self.age()

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def leave(self) -> None:
        self._socket.close()

    def age(self) -> str:
        return _duration(time.perf_counter() - self.began)

    def send(self) -> None:
        self._socket.sendall(b"hello")

    def hello(self) -> str:
        """Say hello and wait for the answer. Returns how long that took."""
        began = time.perf_counter()
        try:
            self.send()
            answer = self._socket.recv(100)
        except OSError as error:
            raise _Unexpected(f"a client that was to be served got {error}") from None
        if answer != b"hello":
            raise _Unexpected(f"a client that was to be served got {answer!r}")
        return _duration(time.perf_counter() - began)

    def answers_within(self, seconds: float) -> bool:
        readable, _, _ = select.select([self._socket], [], [], seconds)
        return bool(readable) and self._socket.recv(100) == b"hello"

    def turned_away(self) -> str:
        """Wait for the verdict without saying anything. Returns what it was."""
        try:
            data = self._socket.recv(100)
        except ConnectionResetError:
            return "reset (RST)"
        except TimeoutError:
            raise _Unexpected("the client over the cap heard nothing") from None
        if data:
            raise _Unexpected(f"the client over the cap was sent {data!r}")
        return "end of file (FIN)"


@contextlib.contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """Start a server; yields the first line it prints, and ends it afterwards."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        # Ends a server that says nothing, so that reading its line ends too.
        alarm = threading.Timer(2 * _DEADLINE_S, process.kill)
        alarm.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            alarm.cancel()
            if not line:
                process.wait()
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise _Unexpected(f"the server did not start: {last or ' '.join(command)}")
            yield line
        finally:
            alarm.cancel()
            process.kill()


def _teller(say: Say) -> Say:
    began = time.perf_counter()
    return lambda text: say(f"   {time.perf_counter() - began:6.3f} s  {text}")


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds:.2f} s"


def _queue(port: int) -> str:
    """How many clients wait in the kernel's queue of the listener on ``port``.

    Linux: a listening socket's row in /proc/net/tcp has that number as its rx_queue (proc(5)).
    """
    try:
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return "it (its length is only told on Linux)"
    for row in rows:
        fields = row.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":  # TCP_LISTEN
            waiting = int(fields[4].split(":")[1], 16)
            return f"{waiting} client" + ("" if waiting == 1 else "s")
    raise _Unexpected("the sequential server is gone")
