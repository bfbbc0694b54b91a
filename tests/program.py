"""The ``gserver`` command as its users run it: another process, its streams, its signals."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from support import DEADLINE, HERE

GSERVER = (sys.executable, "-m", "gserver")
LISTENING = re.compile(
    r"gserver: listening on (.+); cap (\d+); .*turned away by ([\w:-]+)(?:, .*)?\n"
)


def environment(**changes: str) -> dict[str, str]:
    """This one, with the package on the path whatever the current directory is."""
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **changes}


def gserver(
    *arguments: str | Path, cwd: Path | None = None, command: Sequence[str] = GSERVER
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def shell(line: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which ``$gserver`` is the command."""
    return subprocess.run(
        ["sh", "-c", line],
        env=environment(gserver=" ".join(GSERVER)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        **more,
    )


def one_line(text: str) -> str:
    """The text, which is one line and no traceback."""
    assert text.count("\n") == 1, text
    assert text.endswith("\n")
    assert "Traceback" not in text
    return text


class Program:
    """A running ``gserver serve``.

    :ivar line: the first line it printed; empty where its output is not read.
    :ivar log: what it has written to standard error so far.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: Any) -> None:
        self.process = process
        self._errors = errors
        self._buffer = b""
        self.line = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode()

    @property
    def addresses(self) -> list[str]:
        """Where it says it listens."""
        found = LISTENING.fullmatch(self.line)
        assert found, self.line
        return found[1].split(", ")

    @property
    def port(self) -> int:
        return int(self.addresses[0].rpartition(":")[2])

    def read_line(self, within: float = DEADLINE) -> str:
        """The next line of its standard output; empty at the end of it."""
        while b"\n" not in self._buffer and (chunk := self._read(within)):
            self._buffer += chunk
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return (line + newline).decode()

    def read_rest(self, within: float = DEADLINE) -> str:
        """Everything up to the end of its standard output."""
        while chunk := self._read(within):
            self._buffer += chunk
        rest, self._buffer = self._buffer, b""
        return rest.decode()

    def _read(self, within: float) -> bytes:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], within)
        assert readable, f"nothing printed within {within} s; its log: {self.log}"
        return os.read(self.process.stdout.fileno(), 1 << 16)

    def send(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)

    def wait(self, within: float = DEADLINE) -> int:
        """Its exit status; the negative number of the signal that ended it."""
        return self.process.wait(within)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.send(signum)
        return self.wait()

    def client(self) -> socket.socket:
        """A blocking client of its first listener; the caller closes it."""
        return client(self.addresses[0])

    def until_logged(self, text: str) -> None:
        wait_for(lambda: text in self.log, lambda: f"not logged: {text!r}; but: {self.log}")


def client(address: str) -> socket.socket:
    """Connect to what the first line calls an address."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        name = address.removeprefix("unix:")
        where: Any = "\0" + name[1:] if name.startswith("@") else name
    else:
        host, _, port = address.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        where = (host, int(port))
    sock.settimeout(DEADLINE)
    try:
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def wait_for(condition: Callable[[], Any], otherwise: Callable[[], str]) -> None:
    """Wait for an event of another process that has no descriptor to wait for."""
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline, otherwise()
        select.select([], [], [], 0.005)


@contextlib.contextmanager
def started(
    *arguments: str | Path,
    cwd: Path | None = None,
    command: Sequence[str] = GSERVER,
    **popen: Any,
) -> Iterator[Program]:
    """Start ``gserver serve`` with its standard error in a file; killed at the end if it still
    runs. Its first line is not read yet."""
    popen.setdefault("stdout", subprocess.PIPE)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*command, "serve", *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            **{"stdin": subprocess.DEVNULL, "stderr": errors, **popen},
        )
        try:
            yield Program(process, errors)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE)
            if process.stdout is not None:
                process.stdout.close()


@contextlib.contextmanager
def serving(
    *arguments: str | Path, listen: str | Path = "127.0.0.1:0", **more: Any
) -> Iterator[Program]:
    """A server that listens: on a free port, if not told where else."""
    with started(*arguments, "--listen", str(listen), **more) as program:
        program.line = program.read_line()
        assert LISTENING.fullmatch(program.line), program.line + program.log
        yield program


def served(sock: socket.socket) -> bool:
    """Whether the echo server serves this client, or turned it away."""
    try:
        sock.sendall(b"hello\n")
        return sock.recv(6, socket.MSG_WAITALL) == b"hello\n"
    except ConnectionError:
        return False


def turned_away(sock: socket.socket) -> str:
    """How: without saying anything, this client hears an end-of-file or a reset."""
    try:
        return "close" if sock.recv(1) == b"" else "served"
    except ConnectionResetError:
        return "reset"


def excess(address: str) -> str:
    """How a client that comes now is turned away. A reset may come as early as connect()."""
    try:
        with client(address) as sock:
            return turned_away(sock)
    except ConnectionResetError:
        return "reset"


@contextlib.contextmanager
def held(program: Program, count: int) -> Iterator[list[socket.socket]]:
    """So many clients, each of which the echo server serves."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(stack.enter_context(program.client()))
            assert served(found[-1])
        yield found


def module(folder: Path, text: str, name: str = "app") -> str:
    """Write a module with a handler; the MODULE:HANDLER that names it."""
    (folder / f"{name}.py").write_text(text)
    return f"{name}:handle"
