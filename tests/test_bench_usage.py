"""What the suite reads of the kernel about a server: against known processes and sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import environment, kernel, usage

MIB = 1024 * 1024


@contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``text`` in a session of its own until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def said(process: subprocess.Popen[str]) -> str:
    """Wait for the program's next line."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_cpu_of_threads_that_have_ended_is_counted() -> None:
    busy = (
        "import threading, time\n"
        "def burn():\n"
        "    end = time.thread_time() + 0.2\n"
        "    while time.thread_time() < end: pass\n"
        "input()\n"
        "t = threading.Thread(target=burn); t.start(); t.join()\n"
        "print('done', flush=True)\n"
        "input()\n"
    )
    with program(busy) as process:
        assert process.stdin is not None
        before = usage.cpu_seconds(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert said(process) == "done"
        assert usage.cpu_seconds(process.pid) - before >= 0.2


def test_cpu_and_memory_of_children_are_counted() -> None:
    parent = (
        "import os, sys, time\n"
        "if not os.fork():\n"
        "    held = os.urandom(32 << 20)\n"
        "    end = time.process_time() + 0.2\n"
        "    while time.process_time() < end: pass\n"
        "    print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with program(parent) as process:
        assert said(process) == "done"
        assert len(usage.process_tree(process.pid)) == 2
        assert usage.cpu_seconds(process.pid) >= 0.2
        assert usage.memory(process.pid).pss > 32 * MIB


def test_cpu_of_a_process_that_is_gone_is_an_error_and_not_zero() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError):
        usage.cpu_seconds(process.pid)


def test_whole_machine_has_used_at_least_what_this_process_burns() -> None:
    before, end = usage.machine_cpu_seconds(), time.process_time() + 0.3
    while time.process_time() < end:
        pass
    # A tick of 10 ms at each end.
    assert usage.machine_cpu_seconds() - before >= 0.28


def test_kernel_holds_more_socket_memory_while_data_lies_unread() -> None:
    here, there = socketpair()
    with here, there:
        before = usage.memory(os.getpid()).sockets
        there.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += there.send(bytes(65_536))
        grown = usage.memory(os.getpid()).sockets - before
        assert sent > MIB
        # Of the whole machine, where others may free some meanwhile: half of it must show.
        assert grown > sent / 2


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return server, client


def test_side_that_closes_first_is_left_in_time_wait_and_counted() -> None:
    server, client = socketpair()
    port = server.getsockname()[1]
    with client:
        before = usage.leftovers(port)
        assert before.time_wait == 0
        server.close()
        assert client.recv(1) == b""
    # The client's FIN is answered before its close() returns: all on this machine.
    assert (usage.leftovers(port) - before).time_wait == 1


def test_reset_leaves_no_time_wait() -> None:
    server, client = socketpair()
    port = server.getsockname()[1]
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    server.close()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert usage.leftovers(port).time_wait == 0


def test_listener_shows_its_queue_and_the_waiting_have_no_inode() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            row = kernel.listener(port)
            assert row is not None
            assert row.receive_queue == 1
            (waiting,) = (r for r in kernel.rows(port) if r.state == kernel.State.ESTABLISHED)
            assert waiting.inode == 0
            assert waiting.remote_port == client.getsockname()[1]
    assert kernel.listener(port) is None


def test_counter_of_the_kernel_is_read_by_name() -> None:
    assert kernel.counter("TCPTimeWaitOverflow") >= 0
    with pytest.raises(KeyError):
        kernel.counter("NoSuchCounter")


def test_environment_is_json_and_names_no_path_and_no_host() -> None:
    text = json.dumps(environment.capture(["compare", "--seed", "7"], 7))
    found = json.loads(text)
    assert found["command"] == ["python", "-m", "bench", "compare", "--seed", "7"]
    assert found["seed"] == 7
    assert found["sysctls"]["net.core.somaxconn"].isdecimal()
    assert found["kernel"].startswith("Linux ")
    assert os.getcwd() not in text
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4


def test_sysctl_that_this_kernel_lacks_is_none() -> None:
    assert environment.sysctl("net.ipv4.no_such_setting") is None
