"""What the server's processes use is read over the whole tree, threads and children included."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from gserver.probe.measuring import _report_cpu
from gserver.probe.procstat import Usage, is_running, listening_process, measure, process_tree
from gserver.probe.result import Result

BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def test_threads_and_children_count() -> None:
    before = measure(os.getpid()).server_cpu_s
    done = threading.Event()

    def burn() -> None:
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        burnt.set()
        done.wait(30)

    burnt = threading.Event()
    thread = threading.Thread(target=burn)
    thread.start()
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY + "print('x', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert burnt.wait(30)
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in process_tree(os.getpid())
        assert measure(os.getpid()).server_cpu_s - before > 0.55
        child.kill()
    done.set()
    thread.join()


ENDED = """
import os, sys, threading, time
def burn(clock, seconds):
    end = clock() + seconds
    while clock() < end:
        pass
for _ in range(100):
    if sys.argv[1] == "threads":
        one = threading.Thread(target=burn, args=(time.thread_time, 0.003))
        one.start()
        one.join()
    elif not (child := os.fork()):
        burn(time.process_time, 0.003)
        os._exit(0)
    else:
        os.waitpid(child, 0)
print("x", flush=True)
input()
"""


@pytest.mark.parametrize("what", ["threads", "children"])
def test_those_that_have_ended_count(what: str) -> None:
    """A server with a thread, or a process, a connection is not free."""
    child = subprocess.Popen(
        [sys.executable, "-c", "input()\n" + ENDED, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        before = measure(child.pid).server_cpu_s
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        used = measure(child.pid).server_cpu_s - before
        child.kill()
    assert 0.29 < used < 3


def test_who_has_ended_does_not_run_even_before_anyone_has_waited_for_it() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert is_running(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(child.pid)
    assert not is_running(child.pid)


def test_memory_and_machine_counters_are_read() -> None:
    usage = measure(os.getpid(), memory=True)
    assert usage.server_pss > 1 << 20
    assert usage.machine_cpu_s > 0
    assert measure(None).server_cpu_s == 0


def test_the_machines_time_is_of_the_processors_that_the_kernel_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not of those that Python was told: of 400, 0.2 s would be 80 s of work."""
    monkeypatch.setattr(os, "cpu_count", lambda: 400)
    before, began = measure(None).machine_cpu_s, time.monotonic()
    while time.monotonic() - began < 0.2:
        pass
    used = measure(None).machine_cpu_s - before
    passed = time.monotonic() - began
    assert 0 < used < passed * os.sysconf("SC_NPROCESSORS_ONLN") + 1


def test_the_listening_process_is_found_by_the_sockets_inode() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        assert listening_process([inode]) == os.getpid()
    assert listening_process([1]) is None
    assert listening_process([0]) is None


def test_cpu_has_its_unit_with_and_without_the_servers_process() -> None:
    before, after = Usage(0.0, 0.0, 0, 0, 0), Usage(0.5, 2.6, 0, 0, 0)
    result = Result("storm", "127.0.0.1:1")
    _report_cpu(result, None, before, after, 2.0)
    _report_cpu(result, 1, before, after, 2.0)
    assert [text.partition(";")[0] for _, text in result.lines] == [
        "the whole machine 130% of a core",
        "server 25% of a core, the whole machine 130% of a core",
    ]
