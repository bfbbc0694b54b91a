"""The slot lives with the descriptor: every way a socket can change hands.

Each script takes the only slot with ``conn``, does something to it, and says before and after
whether the slot is taken. Without the owner's bookkeeping each of these fails one way or the
other: a slot given back too early admits too many, one never given back admits nobody.
"""

from __future__ import annotations

import sys

import pytest
from capped import inside

BEGIN = "service = Service(); conn = service.accepted()\n"

#: What leaves the slot taken, and what then gives it back.
WAYS = {
    "close": ("pass", "conn.close()"),
    "makefile keeps it": ("file = conn.makefile('rb'); conn.close()", "file.close()"),
    "makefile collected": ("file = conn.makefile('rb'); conn.close()", "del file"),
    "collected": ("pass", "del conn"),
    "collected in a cycle": (
        "box = [conn]; box.append(box); del conn, box; import gc",
        "gc.collect()",
    ),
    "shutdown is no end": ("conn.shutdown(socket.SHUT_RDWR)", "conn.close()"),
    "the client leaves": ("service.clients.pop().close()", "conn.close()"),
    "dup": ("other = conn.dup(); conn.close()", "other.close()"),
    "dup, the copy first": ("other = conn.dup(); other.close()", "conn.close()"),
    "fromfd": (
        "other = socket.fromfd(conn.fileno(), conn.family, conn.type); conn.close()",
        "other.close()",
    ),
    "detach and rewrap": ("other = socket.socket(fileno=conn.detach())", "other.close()"),
    "detach and os.close": ("fd = conn.detach(); del conn", "os.close(fd)"),
    "detach and socket.close": ("fd = conn.detach()", "socket.close(fd)"),
    "os.close behind its back": ("pass", "os.close(conn.fileno())"),
    "os.dup": ("fd = os.dup(conn.fileno()); conn.close()", "os.close(fd)"),
    "os.dup2": (
        "fd = os.open('/dev/null', 0); os.dup2(conn.fileno(), fd); conn.close()",
        "os.close(fd)",
    ),
    "os.dup2 over it": ("null = os.open('/dev/null', 0)", "os.dup2(null, conn.fileno())"),
    "two objects on one descriptor": (
        "other = socket.socket(fileno=conn.fileno()); other.detach()",
        "conn.close()",
    ),
    "moved to another thread": ("t = threading.Thread(target=conn.close)", "t.start(); t.join()"),
    "wrapped by a failing TLS": (
        "import ssl; context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
        "service.clients[0].sendall(b'no TLS at all\\r\\n')",
        "try: context.wrap_socket(conn, server_side=True)\nexcept ssl.SSLError: pass",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_slot_is_taken_exactly_as_long_as_a_descriptor_is_open(way: str) -> None:
    first, then = WAYS[way]
    script = "\n".join(
        (
            BEGIN,
            first,
            "before = [service.taken, service.full()]",
            then,
            "eventually(lambda: service.taken == 0)",
            "found([*before, service.full(), *service.books()])",
        )
    )
    assert inside(script) == [1, True, False, 0, True, 0]


def test_a_second_close_gives_back_nothing() -> None:
    assert inside(
        """
service = Service(2)
conn, other = service.accepted(), service.accepted()
conn.close(); conn.close()
found([service.taken, *service.books()])
"""
    ) == [1, 1, True, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a C library by its Linux name")
def test_a_descriptor_closed_in_c_frees_its_slot_when_the_next_client_comes() -> None:
    assert inside(
        BEGIN
        + """
import ctypes
libc = ctypes.CDLL(None)
taken = service.taken
libc.close(conn.fileno())
found([taken, service.full(), *service.books()])
"""
    ) == [1, False, 0, True, 0]


#: Closed where nobody can see it, at a time that the script sets; the cap of one is full.
CLOSED_IN_C = """
import ctypes
import gserver.legacy.holders as holders
libc = ctypes.CDLL(None)
clock = [1000.0]
holders.monotonic = lambda: clock[0]
service = Service()
kept = []  # collected, they would give their slots back
def closed_in_c():
    kept.append(service.accepted())
    libc.close(kept[-1].fileno())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a C library by its Linux name")
def test_two_looks_for_descriptors_closed_in_c_are_a_quarter_of_a_second_apart() -> None:
    """Each takes as long as there are connections: a flood of clients must not cost one each."""
    assert inside(
        CLOSED_IN_C
        + """
closed_in_c()
first = service.full()
closed_in_c()
at_once = [service.full(), service.full()]
clock[0] += 0.24
soon = service.full()
clock[0] += 0.02
found([first, *at_once, soon, service.full(), *service.books()])
"""
    ) == [False, True, True, True, False, 0, True, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a C library by its Linux name")
def test_a_look_takes_at_most_a_twentieth_of_the_time() -> None:
    assert inside(
        CLOSED_IN_C
        + """
def slow(fd, plain=holders._inode):
    clock[0] += 1.0
    return plain(fd)
closed_in_c()
holders._inode = slow
first = service.full()
holders._inode = slow.__defaults__[0]
took = clock[0] - 1000.0
closed_in_c()
clock[0] += 10 * took
before = service.full()
clock[0] += 11 * took
found([first, took >= 1.0, before, service.full(), *service.books()])
"""
    ) == [False, True, True, False, 0, True, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a C library by its Linux name")
def test_a_full_program_that_does_not_accept_finds_what_was_closed_in_c() -> None:
    """The overload watcher looks, too."""
    assert inside(
        CLOSED_IN_C
        + """
closed_in_c()
waiting = connect(service.port)
eventually(lambda: service.limiter.snapshot().admitted == 2)
conn, _ = service.listener.accept()
conn.sendall(b"+")
answer = waiting.recv(1).decode()
conn.close()
found([answer, *service.books()])
"""
    ) == ["+", 0, True, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a C library by its Linux name")
def test_a_descriptor_duplicated_in_c_keeps_its_slot() -> None:
    assert inside(
        BEGIN
        + """
import ctypes
libc = ctypes.CDLL(None)
copy = libc.dup(conn.fileno())
libc.close(conn.fileno())
full = service.full()
os.close(copy)
eventually(lambda: service.taken == 0)
found([full, *service.books()])
"""
    ) == [True, 0, True, 0]


def test_a_number_used_again_is_another_connection() -> None:
    """What the old socket object still does must not touch the new connection's slot."""
    assert inside(
        """
service = Service(2)
first = service.accepted()
service.clients.append(connect(service.port))
number = first.fileno()
while os.open("/dev/null", os.O_RDONLY) < number:
    pass  # no lower number is free
os.close(number)
eventually(lambda: service.taken == 0)
second, _ = service.listener.accept()
same = second.fileno() == number
first.detach()
taken = service.taken
second.close()
found([same, taken, *service.books()])
"""
    ) == [True, 1, 0, True, 0]


def test_a_client_that_waits_when_the_listener_is_closed_leaves_nothing_behind() -> None:
    assert inside(
        """
import select
service = Service(2)
client = connect(service.port)
select.select([service.listener], [], [], 20)
taken = service.taken
service.listener.close()
ended = client.recv(1).decode()
left = len(list(service.installed.holders.slots()))
killed = service.limiter.snapshot().finished["killed"]
found([taken, ended, left, killed, *service.books()])
"""
    ) == [1, "", 0, 1, 0, True, 0]


def test_a_listener_may_change_hands_too() -> None:
    assert inside(
        """
service = Service()
other = socket.socket(fileno=service.listener.detach())
service.listener = other.dup()
other.close()
conn = service.accepted()
full = service.full()
conn.close()
found([full, service.full(), *service.books()])
"""
    ) == [True, False, 0, True, 0]


def test_a_closed_listener_gives_back_what_waited_in_it() -> None:
    """A candidate admitted from the overload watcher, and never accepted by the program."""
    assert inside(
        """
service = Service(settle=10.0)
conn = service.accepted()
waiting = connect(service.port)
eventually(lambda: service.limiter.pending == 1)
conn.close()
eventually(lambda: service.limiter.snapshot().admitted == 2)
service.listener.close()
found([waiting.recv(1).decode(), *service.books()])
"""
    ) == ["", 0, True, 0]
