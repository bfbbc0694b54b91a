"""Fork per connection: the parent closes its copy, and the slot stays with the child."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from capped import inside
from legacy_matrix import ECHO, Program, Row

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and pidfd are Linux's")

#: A child that has ``conn`` open until it is told to go, by a byte in a pipe.
CHILD = """
service = Service()
conn = service.accepted()
told, tell = os.pipe()
def child(then):
    pid = os.fork()
    if not pid:
        os.read(told, 1)
        then()
        os.read(told, 1)
        os._exit(0)
    conn.close()
    return pid
def end(pid):
    os.write(tell, b"xx")
    os.waitpid(pid, 0)
"""


def test_a_slot_stays_taken_while_a_child_serves_and_comes_back_when_it_ends() -> None:
    assert inside(
        CHILD
        + """
pid = child(lambda: None)
during = [service.taken, service.full()]
end(pid)
eventually(lambda: service.taken == 0)
found([*during, service.full(), *service.books()])
"""
    ) == [1, True, False, 0, True, 0]


def test_a_child_that_ends_before_gevent_watches_it_is_heard_of() -> None:
    """gevent listens for SIGCHLD only once it has forked, and waited for ever for this one."""
    assert (
        inside(
            """
cap()
def until_it_has_ended():
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
os.register_at_fork(after_in_parent=until_it_has_ended)
pid = os.fork()
if not pid:
    os._exit(3)
with gevent.Timeout(10):
    found(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        )
        == 3
    )


def test_a_slot_comes_back_though_nobody_waits_for_the_child() -> None:
    assert inside(
        CHILD
        + """
pid = child(lambda: None)
os.write(tell, b"xx")
eventually(lambda: service.taken == 0)
found([service.full(), *service.books()])
"""
    ) == [False, 0, True, 0]


def test_a_slot_comes_back_when_the_child_closes_and_lives_on() -> None:
    assert inside(
        CHILD
        + """
pid = child(conn.close)
os.write(tell, b"x")
eventually(lambda: not service.full())
taken = service.taken
end(pid)
found([taken, *service.books()])
"""
    ) == [0, 0, True, 0]


def test_two_children_with_one_connection_hold_one_slot_until_both_have_ended() -> None:
    assert inside(
        CHILD
        + """
pids = []
for _ in range(2):
    pid = os.fork()
    if not pid:
        os.read(told, 1)
        os._exit(0)
    pids.append(pid)
conn.close()
os.write(tell, b"x")
os.waitpid(-1, 0)
children = service.installed.holders.children
eventually(lambda: len(children._children) == 1)  # it has seen the first one's end
during = [service.taken, service.full()]
os.write(tell, b"x")
eventually(lambda: service.taken == 0)
found([*during, *service.books()])
"""
    ) == [1, True, 0, True, 0]


def test_a_child_with_a_terminal_of_its_own_holds_the_slot() -> None:
    """As telnetd does it, with pty.fork()."""
    assert inside(
        CHILD
        + """
import pty
pid, terminal = pty.fork()
if not pid:
    os.read(told, 1)
    os._exit(0)
conn.close()
during = [service.taken, service.full()]
os.write(tell, b"x")
os.waitpid(pid, 0)
eventually(lambda: service.taken == 0)
found([*during, service.full(), *service.books()])
"""
    ) == [1, True, False, 0, True, 0]


def test_a_child_that_ended_before_it_was_looked_for_holds_nothing_and_is_not_told_of() -> None:
    """With SIGCHLD ignored the kernel forgets it at once."""
    assert inside(
        """
import logging, subprocess
lines = []
class Keep(logging.Handler):
    def emit(self, record): lines.append(record.getMessage())
logging.getLogger("gserver").addHandler(Keep())
process = subprocess.Popen(["true"])
process.wait()
service = Service()
conn = service.accepted()
holders = service.installed.holders
holders.children.forked(process.pid, set(holders.slots()))
conn.close()
found([lines, *service.books()])
"""
    ) == [[], 0, True, 0]


def test_a_client_turned_away_during_a_fork_hears_of_it() -> None:
    """The child inherits the candidate's descriptor: it must not keep the connection open."""
    assert (
        inside(
            """
service = Service(settle=0.2)
conn = service.accepted()
told, tell = os.pipe()
client = connect(service.port)
eventually(lambda: service.limiter.pending == 1)
pid = os.fork()
if not pid:
    os.read(told, 1)
    os._exit(0)
client.settimeout(5)
try: answer = client.recv(1).decode()
except ConnectionResetError: answer = ""
os.write(tell, b"x")
os.waitpid(pid, 0)
found(answer)
"""
        )
        == ""
    )


def test_a_child_that_accepts_has_the_same_cap_and_a_count_of_its_own() -> None:
    assert inside(
        """
service = Service(2)
conn = service.accepted()
pid = os.fork()
if not pid:
    a, b = service.accepted(), service.accepted()
    full = service.full()
    os._exit(0 if [service.taken, full, service.limiter.snapshot().admitted] == [2, True, 2] else 1)
_, status = os.waitpid(pid, 0)
found([os.waitstatus_to_exitcode(status), service.taken])
"""
    ) == [0, 1]


def test_a_process_started_with_the_connection_as_its_stdin_holds_the_slot() -> None:
    """As inetd does it."""
    assert inside(
        """
import subprocess
service = Service()
conn = service.accepted()
process = subprocess.Popen(["cat"], stdin=conn, stdout=conn)
conn.close()
client = service.clients[0]
client.sendall(b"through cat"); answer = client.recv(100).decode()
during = [service.taken, service.full()]
client.close()
process.wait()
eventually(lambda: service.taken == 0)
found([answer, *during, *service.books()])
"""
    ) == ["through cat", 1, True, 0, True, 0]


PREFORK = """
import os, socket, time
parent = os.getpid()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
for _ in range(3):
    pid = os.fork()
    if not pid:
        {before}
        conn, _ = listener.accept()
        conn.sendall(b"+")
        conn.close()
        os._exit(0)
    {parent}
"""


@pytest.mark.parametrize(
    ("before", "parent", "lines"),
    [
        ("pass", "os.waitpid(pid, 0)", 1),
        ("while os.getppid() == parent: time.sleep(0.01)", "os._exit(0)", 0),
    ],
    ids=("prefork", "into the background"),
)
def test_processes_that_share_a_listener_are_told_of_once(
    before: str, parent: str, lines: int, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PREFORK.format(before=before, parent=parent))
    running = Program(Row("prefork", str(program), ECHO))
    for _ in range(3 if lines else 1):
        with socket.create_connection(("127.0.0.1", running.port), 20.0) as client:
            assert client.recv(1) == b"+"
    _, errors = running.process.communicate(timeout=20)
    assert errors.count("several processes share the listener 127.0.0.1:") == lines


SELECTS_AND_FORKS = """
import os, select, signal, socket
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.setpgrp()  # children that found no client wait for one, as without a cap
signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    select.select([listener], [], [])
    if not os.fork():
        conn, _ = listener.accept()
        conn.sendall(b"+")
        conn.recv(1)
        os._exit(0)
"""


def answer_of(client: socket.socket) -> bytes:
    client.settimeout(20.0)
    try:
        return client.recv(1)
    except ConnectionResetError:
        return b""


def test_a_program_that_selects_in_the_parent_and_accepts_in_children_loses_its_first_client_only(
    tmp_path: Path,
) -> None:
    """The parent takes it to know whether it is to be told of it. Then it knows better."""
    program = tmp_path / "program.py"
    program.write_text(SELECTS_AND_FORKS)
    running = Program(Row("selects and forks", str(program), ECHO))
    clients: list[socket.socket] = []
    try:
        for served in (b"", *[b"+"] * 10):
            clients.append(socket.create_connection(("127.0.0.1", running.port), 20.0))
            assert answer_of(clients[-1]) == served
    finally:
        for it in clients:
            it.close()
        running.process.terminate()
        _, errors = running.process.communicate(timeout=20)
    assert errors.count("its children accept") == 1


def test_a_client_that_was_told_of_before_a_fork_is_still_the_parents() -> None:
    assert inside(
        """
import select
service = Service(2)
client = connect(service.port)
select.select([service.listener], [], [], 20)
pid = os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
conn, _ = service.listener.accept()
conn.sendall(b"+")
answer = client.recv(1).decode()
conn.close()
found([answer, *service.books()])
"""
    ) == ["+", 0, True, 0]


WATCHED = """
import os, select, signal, socket
listener = socket.create_server(("127.0.0.1", 0))
told, tell = os.pipe()
workers = []
def end(*_):
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    os._exit(0)
for _ in range(2):
    workers.append(os.fork())
    if not workers[-1]:
        listener.settimeout(0.001)
        try: listener.accept()
        except TimeoutError: os.write(tell, b"x")
        listener.settimeout(None)
        while True:
            conn, _ = listener.accept()
            conn.sendall(b"+")
            conn.recv(1)
            conn.close()
    os.read(told, 1)
signal.signal(signal.SIGTERM, end)
print(listener.getsockname()[1], flush=True)
while True:
    select.select([listener], [], [], 0.01)
"""


def test_a_parent_that_watches_the_listener_of_its_workers_takes_none_of_their_clients(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(WATCHED)
    running = Program(Row("watched", str(program), ECHO))
    try:
        before = running.descriptors()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", running.port), 20.0) as client:
                assert answer_of(client) == b"+"
        assert running.descriptors() <= before
    finally:
        running.process.terminate()
        running.process.communicate(timeout=20)


def test_a_parent_that_watches_one_listener_takes_the_clients_of_its_other_one() -> None:
    assert inside(
        """
import select
service = Service(2)
ours = socket.create_server(("127.0.0.2", service.port))
told, tell = os.pipe()
pid = os.fork()
if not pid:
    service.listener.settimeout(0.001)
    try: service.listener.accept()
    except TimeoutError: os.write(tell, b"x")
    os._exit(0)
os.read(told, 1)
os.waitpid(pid, 0)
client = socket.create_connection(ours.getsockname(), 20.0)
select.select([ours], [], [], 20)
taken = service.taken
theirs = connect(service.port)
select.select([service.listener], [], [], 20)
found([taken, service.taken])
"""
    ) == [1, 1]
