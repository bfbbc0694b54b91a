"""``gserver serve``, run as its users do: real processes, real clients, odd outputs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import (
    LISTENING,
    Program,
    client,
    gserver,
    module,
    served,
    serving,
    started,
    wait_for,
)
from support import DEADLINE


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


# ---- the first line, and where it listens ----------------------------------------------------


def test_the_first_line_says_where_it_listens_the_cap_and_the_rejection() -> None:
    with serving("echo", "--max-connections", "7", "--reject", "reset") as program:
        found = LISTENING.fullmatch(program.line)
        assert found
        assert found.groups() == (f"127.0.0.1:{program.port}", "7", "reset")
        assert program.port != 0
        with program.client() as sock:
            assert served(sock)


def test_without_arguments_it_is_the_console_on_port_8999() -> None:
    with started() as program:
        line = program.read_line()
        if not line:  # somebody else's port on this machine
            program.wait()
            assert "'127.0.0.1:8999': the port is taken" in program.log
            pytest.skip("port 8999 is taken")
        found = LISTENING.fullmatch(line)
        assert found
        assert found.groups() == ("127.0.0.1:8999", "100", "close")


def test_localhost_is_served_on_each_of_its_addresses() -> None:
    addresses = {row[4][0] for row in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with serving("echo", listen="localhost:0") as program:
        assert 1 <= len(program.addresses) <= len(addresses)
        assert len({address.rpartition(":")[2] for address in program.addresses}) == 1
        for address in program.addresses:
            with client(address) as sock:
                assert served(sock)


def test_a_unix_socket_is_served_and_its_file_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving("echo", listen=f"unix:{path}") as program:
        assert program.addresses == [f"unix:{path}"]
        with program.client() as sock:
            assert served(sock)
        assert program.stop() == 0
        assert not path.exists()


def test_an_abstract_unix_socket_is_served() -> None:
    name = f"unix:@gserver-test-{os.getpid()}"
    with serving("echo", listen=name) as program:
        assert program.addresses == [name]
        with program.client() as sock:
            assert served(sock)


def test_a_dead_servers_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving("echo", listen=f"unix:{path}") as program:
        program.process.kill()
        program.wait()
    assert stat.S_ISSOCK(path.stat().st_mode)
    with serving("echo", listen=f"unix:{path}") as program, program.client() as sock:
        assert served(sock)


def test_a_live_servers_is_not_and_goes_on(tmp_path: Path) -> None:
    with serving("echo", listen=f"unix:{tmp_path}/s") as program:
        second = gserver("serve", "echo", "--listen", f"unix:{tmp_path}/s")
        assert "a server listens there already; stop it" in second.stderr
        assert second.returncode == 2
        with program.client() as sock:
            assert served(sock)


def test_all_listeners_share_one_cap(tmp_path: Path) -> None:
    with serving(
        *["echo", "--max-connections", "2", "--listen", "127.0.0.1:0"],
        listen=f"unix:{tmp_path}/s",
    ) as program:
        tcp, unix = program.addresses
        with client(tcp) as first, client(unix) as second:
            assert served(first)
            assert served(second)
            for address in tcp, unix:
                assert excess(address) == "close"
            assert served(first)
            assert served(second)


# ---- at the cap ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_next_client_is_turned_away_while_the_admitted_go_on(how: str) -> None:
    with serving("echo", "--max-connections", "3", "--reject", how) as program:
        with held(program, 3) as clients:
            for _ in range(5):
                assert excess(program.addresses[0]) == how
            assert all(served(sock) for sock in clients)
            clients[0].close()
            with program.client() as fourth:
                assert served(fourth)
        program.until_logged("WARNING full 3/3, rejecting\n")


def _netcat() -> str:
    nc = shutil.which("nc.openbsd") or shutil.which("nc")
    if nc is not None:
        usage = subprocess.run([nc, "-h"], capture_output=True, text=True, check=False)
        if "OpenBSD" in usage.stderr + usage.stdout:
            return nc
    pytest.skip("no OpenBSD nc: apt-get install netcat-openbsd")


def test_netcats_fill_the_cap_and_the_next_one_ends_at_once() -> None:
    nc = _netcat()
    with serving("echo", "--max-connections", "2") as program, contextlib.ExitStack() as stack:

        def netcat(*flags: str) -> subprocess.Popen[bytes]:
            process = stack.enter_context(
                subprocess.Popen(
                    [nc, *flags, "127.0.0.1", str(program.port)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
            stack.callback(process.kill)
            return process

        def says(process: subprocess.Popen[bytes], line: bytes) -> bytes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line)
            return process.stdout.readline()

        admitted = [netcat(), netcat()]
        for process in admitted:
            assert says(process, b"hello\n") == b"hello\n"
        third = netcat("-d")  # reads no input: it is the server that ends it
        assert third.wait(DEADLINE) == 0
        assert third.stdout is not None
        assert third.stdout.read() == b""
        for process in admitted:
            assert says(process, b"again\n") == b"again\n"


# ---- the console and its output --------------------------------------------------------------


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


# ---- handlers --------------------------------------------------------------------------------

HANDLER = "def handle(sock, address):\n    sock.sendall(b'mine')\n"


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """An installed script: Python's first place for modules is the folder it lies in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gserver").write_text("from gserver.cli import main\nmain()\n")
    return [sys.executable, str(folder / "gserver")]


def test_a_handler_is_found_in_the_current_directory(script: list[str], tmp_path: Path) -> None:
    with serving(module(tmp_path, HANDLER), cwd=tmp_path, command=script) as program:
        with program.client() as sock:
            assert sock.recv(4, socket.MSG_WAITALL) == b"mine"


def test_a_handler_is_found_in_the_folder_of_app_dir(script: list[str], tmp_path: Path) -> None:
    (tmp_path / "apps").mkdir()
    name = module(tmp_path / "apps", HANDLER)
    with serving(name, "--app-dir", "apps", cwd=tmp_path, command=script) as program:
        with program.client() as sock:
            assert sock.recv(4, socket.MSG_WAITALL) == b"mine"
    assert "no module 'app'" in gserver("serve", name, cwd=tmp_path, command=script).stderr


def test_a_handler_that_raises_is_logged_once_with_its_peer_and_the_server_goes_on(
    tmp_path: Path,
) -> None:
    name = module(tmp_path, "def handle(sock, address):\n    raise RuntimeError('\\x1b[2J')\n")
    with serving(name, "--max-connections", "1", cwd=tmp_path) as program:
        for _ in range(2):
            with program.client() as sock:
                assert turned_away(sock) == "close"
        assert program.stop() == 0
        assert program.log.count("Traceback (most recent call last):") == 2
        assert program.log.count("RuntimeError: \\x1b[2J\n") == 2
        assert program.log.count("ERROR handler of ('127.0.0.1', ") == 2


MONKEY = """
from gevent import monkey
monkey.patch_all()
import queue, select, socket, threading, time

def handle(sock, address):
    time.sleep(0.001)
    found = queue.Queue()
    thread = threading.Thread(target=found.put, args=(sock.recv(6),))
    thread.start()
    sock.sendall(found.get())
    thread.join()
    while sock.recv(100):
        pass
"""


def test_a_handlers_module_may_monkey_patch_when_it_is_imported(tmp_path: Path) -> None:
    with serving(module(tmp_path, MONKEY), "--max-connections", "2", cwd=tmp_path) as program:
        with held(program, 2):
            assert excess(program.addresses[0]) == "close"
        assert program.stop() == 0
        assert "Warning" not in program.log
        assert "Traceback" not in program.log
        assert program.read_rest() == ""


# ---- descriptors -----------------------------------------------------------------------------


def _limits(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/limits").read_text()
    return next(line for line in text.splitlines() if "open files" in line).split()[3:5]


def test_the_soft_descriptor_limit_is_raised_to_what_the_cap_needs() -> None:
    command = ["sh", "-c", 'ulimit -S -n 100; exec "$0" -m gserver "$@"', sys.executable]
    with serving("echo", "--max-connections", "200", command=command) as program:
        assert _limits(program.pid)[0] == str(200 + 128 + 64)
        with held(program, 200):
            assert excess(program.addresses[0]) == "close"


def test_a_cap_above_the_hard_limit_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 300; exec "$0" -m gserver "$@"', sys.executable]
    result = gserver(
        *["serve", "--max-connections", "200", "--listen", f"unix:{tmp_path}/s"], command=command
    )
    assert result.stderr == (
        "gserver: --max-connections 200: needs 392 descriptors and the hard limit is 300; "
        "give at most 108, or raise the limit (ulimit -Hn, LimitNOFILE=)\n"
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []
