"""``gserver serve``, run as its users do: real processes, real clients, odd outputs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from missing import missing
from program import (
    LISTENING,
    client,
    excess,
    gserver,
    held,
    module,
    served,
    serving,
    started,
    turned_away,
)
from support import DEADLINE

from gserver import Reply

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
    usage = ""
    if nc is not None:
        done = subprocess.run([nc, "-h"], capture_output=True, text=True, check=False)
        usage = done.stderr + done.stdout
    if nc is None or "OpenBSD" not in usage:
        missing("OpenBSD nc is missing: apt-get install netcat-openbsd")
    return nc


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
        assert program.log.count("ERROR handler of 127.0.0.1:") == 2


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


#: Candidates (128, and a turn's share of 16 while they are told), what a listener is made of (3),
#: and what is left over (64).
ONE_LISTENERS = 128 + 16 + 3 + 64


def _limits(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/limits").read_text()
    return next(line for line in text.splitlines() if "open files" in line).split()[3:5]


def test_the_soft_descriptor_limit_is_raised_to_what_the_cap_needs() -> None:
    command = ["sh", "-c", 'ulimit -S -n 100; exec "$0" -m gserver "$@"', sys.executable]
    with serving("echo", "--max-connections", "200", command=command) as program:
        assert _limits(program.pid)[0] == str(200 + ONE_LISTENERS)
        with held(program, 200):
            assert excess(program.addresses[0]) == "close"


def test_headers_read_without_a_slot_have_descriptors_too() -> None:
    command = ["sh", "-c", 'ulimit -S -n 100; exec "$0" -m gserver "$@"', sys.executable]
    evicting = ["--evict-idle", "60", "--proxy-protocol-from", "127.0.0.1"]
    with serving("echo", "--max-connections", "200", *evicting, command=command) as program:
        assert _limits(program.pid)[0] == str(200 + 128 + ONE_LISTENERS)


def test_who_waits_and_who_is_taking_a_reply_on_any_listener_has_descriptors_too() -> None:
    command = ["sh", "-c", 'ulimit -S -n 100; exec "$0" -m gserver "$@"', sys.executable]
    rules = ["--wait", "1", "--wait-queue", "300", "--reject", "reply:http"]
    lingering = Reply("http").max_lingering
    for listeners in (1, 2):
        more = ["--listen", "127.0.0.1:0"] * (listeners - 1)
        with serving("echo", "--max-connections", "200", *rules, *more, command=command) as program:
            needed = 200 + 300 + lingering * listeners + ONE_LISTENERS + 3 * (listeners - 1)
            assert _limits(program.pid)[0] == str(needed)


def test_each_of_several_listeners_has_descriptors() -> None:
    command = ["sh", "-c", 'ulimit -S -n 100; exec "$0" -m gserver "$@"', sys.executable]
    more = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    with serving("echo", "--max-connections", "200", *more, command=command) as program:
        assert len(program.addresses) == 3
        assert _limits(program.pid)[0] == str(200 + ONE_LISTENERS + 2 * 3)


def test_a_cap_above_the_hard_limit_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 300; exec "$0" -m gserver "$@"', sys.executable]
    result = gserver(
        *["serve", "--max-connections", "200", "--listen", f"unix:{tmp_path}/s"], command=command
    )
    assert result.stderr == (
        "gserver: --max-connections 200: needs 411 descriptors and the hard limit is 300; "
        "give at most 89, or raise the limit (ulimit -Hn, LimitNOFILE=)\n"
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []


FAILING = """
import os, socket

def handle(sock, address):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            found = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.shutdown(socket.SHUT_RD)  # accept() is EINVAL from now on
                break
    sock.sendall(b"done")
    while sock.recv(100):
        pass
"""


def test_a_listener_that_fails_ends_the_server_with_a_drain_and_status_1(tmp_path: Path) -> None:
    listen = ["--listen", "127.0.0.1:0"]
    with serving(module(tmp_path, FAILING), *listen, cwd=tmp_path) as program:
        with program.client() as sock:
            assert sock.recv(4, socket.MSG_WAITALL) == b"done"
            assert sock.recv(1) == b""  # nudged: the drain
        assert program.wait() == 1
        (line,) = [line for line in program.log.splitlines() if "listener failed, and" in line]
        assert any(f"ERROR {address}: the listener" in line for address in program.addresses)
        assert "a listener failed: no longer admitting; 1 active, 10 s to finish" in program.log
