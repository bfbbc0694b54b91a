"""What ``gserver serve`` prints, and outputs that are blocked, closed or full."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from program import Program, client, excess, served, serving, started, turned_away, wait_for
from support import DEADLINE


def test_the_console_prints_what_each_client_sends(tmp_path: Path) -> None:
    with serving() as program:
        with program.client() as sock:
            host, port = sock.getsockname()
            sock.sendall("grüße\n\x1b[2J\n".encode())
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        lines = [program.read_line() for _ in range(4)]
        assert program.stop() == 0
        assert program.read_rest() == ""
    assert [line.removeprefix(f"{host}:{port}") for line in lines] == [
        " connected\n",
        ": grüße\n",
        ": \\x1b[2J\n",
        " disconnected\n",
    ]


def test_a_unix_client_cannot_steer_by_the_name_of_its_socket(tmp_path: Path) -> None:
    with serving(listen=f"unix:{tmp_path}/s") as program:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.bind(f"{tmp_path}/\x1b[2J\nforged")
            sock.connect(f"{tmp_path}/s")
            assert program.read_line() == f"unix:{tmp_path}/\\x1b[2J\\nforged connected\n"


LINES = 40_000


def _sends_many_lines(program: Program) -> None:
    """A client sends more lines than may wait, and sees that the server has read them all."""
    with program.client() as sock:
        sock.sendall(b"".join(b"line %d\n" % number for number in range(LINES)))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_a_pipe_nobody_reads_stalls_nobody_and_the_dropped_lines_are_counted() -> None:
    with serving("--max-connections", "1") as program:
        _sends_many_lines(program)
        # The server goes on: it admits and serves another one, and turns away the next.
        with program.client() as second, program.client() as third:
            assert turned_away(third) == "close"
            second.sendall(b"afterwards\n")
        # Then somebody reads. One client's lines after that are all printed.
        text = ""
        while "dropped" not in text:
            text += program.read_line()
        assert "lines dropped: they came faster than they were written]\n" in text
        program.send()
        text += program.read_rest()
        assert program.wait() == 0
        printed = sum(not line.startswith("[") for line in text.splitlines())
        dropped = sum(
            int(line[1:].split()[0].replace(",", ""))
            for line in text.splitlines()
            if line.startswith("[")
        )
        # Each line was printed or counted; a read that ends inside a line makes two of it.
        assert LINES + 5 <= printed + dropped <= LINES * 1.1
        assert printed >= 10_000


def test_it_ends_though_nobody_reads_what_it_prints() -> None:
    with serving() as program:
        _sends_many_lines(program)
        assert program.stop() == 0


@pytest.mark.parametrize("output", [">&-", ">/dev/full", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_an_output_that_is_closed_or_full_stops_nobody(output: str, tmp_path: Path) -> None:
    # Where it listens cannot be read from its output, so it is a name that is known.
    where = f"unix:{tmp_path}/s"
    command = ["sh", "-c", f'exec "$0" -m gserver "$@" {output}', sys.executable]
    for handler in "console", "echo":
        with started(
            *[handler, "--max-connections", "1", "--listen", where],
            command=command,
            stdout=subprocess.DEVNULL,
        ) as program:
            wait_for((tmp_path / "s").exists, lambda: program.log)
            # The file is there a moment before it listens.
            sock = _connected(where)
            with sock:
                assert excess(where) == "close"
                if handler == "echo":
                    assert served(sock)
                else:
                    sock.sendall(b"hello\n")
            assert program.stop() == 0
            assert "Traceback" not in program.log


def _connected(address: str) -> socket.socket:
    found: list[socket.socket] = []

    def attempt() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            found.append(client(address))
        return bool(found)

    wait_for(attempt, lambda: f"nobody listens on {address}")
    return found[0]


def test_no_client_gets_a_closed_standard_descriptor(tmp_path: Path) -> None:
    """What is printed would go to it."""
    where = f"unix:{tmp_path}/s"
    command = ["sh", "-c", 'exec "$0" -m gserver "$@" <&- >&- 2>&-', sys.executable]
    with started("echo", "--listen", where, command=command) as program:
        wait_for((tmp_path / "s").exists, lambda: "no server")
        with _connected(where) as sock:
            assert served(sock)
            names = [os.readlink(f"/proc/{program.pid}/fd/{fd}") for fd in range(3)]
            assert names == ["/dev/null"] * 3
