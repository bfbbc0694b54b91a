"""What the cap cannot see or help is told; which listeners it is for can be chosen."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from capped import inside

#: The lines that our logger gets, in ``lines``.
LOG = """
import logging
lines = []
class Keep(logging.Handler):
    def emit(self, record): lines.append(record.getMessage())
logging.getLogger("gserver").addHandler(Keep())
logging.getLogger("gserver").setLevel(logging.INFO)
from time import monotonic
def said(*words):
    return sum(all(word in line for word in words) for line in lines)
"""


# ---- CLOSE_WAIT --------------------------------------------------------------------------------


def test_connections_whose_client_left_are_told_of_once() -> None:
    assert inside(
        LOG
        + """
service = Service(2)
conn, other = service.accepted(), service.accepted()
service.clients[0].close()
watch = service.installed._watch
eventually(lambda: conn.recv(1) == b"")
for later in (0.0, 1.0, 2.0): watch.look_for_left_clients(monotonic() + later)
found([said("1 of 2 slots", "CLOSE_WAIT"), len(lines), *service.books()])
"""
    ) == [1, 1, 2, True, 0]


def test_reaping_is_opt_in_and_ends_only_what_stayed_for_long() -> None:
    assert inside(
        LOG
        + """
service = Service(3, reap_after=60.0)
left, half, alive = (service.accepted() for _ in range(3))
service.clients[0].close()
eventually(lambda: left.recv(1) == b"")
watch, now = service.installed._watch, monotonic()
watch.look_for_left_clients(now)
watch.look_for_left_clients(now + 50)
early = service.taken
service.clients[1].shutdown(socket.SHUT_WR)
eventually(lambda: half.recv(1) == b"")
watch.look_for_left_clients(now + 61)
late = service.taken
finished = service.limiter.snapshot().finished["peer_gone"]
left.close()
found([early, late, finished, *service.books()])
"""
    ) == [3, 2, 1, 2, True, 0]


def test_a_connection_that_is_reaped_is_shut_and_its_slot_goes_to_the_next() -> None:
    """By the clock of the machine, and at the cap."""
    assert inside(
        """
service = Service(1, reap_after=0.05)
conn = service.accepted()
before = service.full()
service.clients[0].close()
eventually(lambda: not service.full())
try: sent = conn.send(b"x")
except OSError as error: sent = type(error).__name__
found([before, sent, conn.recv(1).decode(), *service.books()])
"""
    ) == [True, "BrokenPipeError", "", 0, True, 0]


def test_while_there_is_room_nobody_is_reaped() -> None:
    """Who shut only its sending side may still be reading, and is in nobody's way."""
    assert inside(
        """
import gserver.legacy.watch
clock = [1000.0]
gserver.legacy.watch.monotonic = lambda: clock[0]
service = Service(2, reap_after=60.0)
conn = service.accepted()
service.clients[0].shutdown(socket.SHUT_WR)
eventually(lambda: conn.recv(1) == b"")
watch = service.installed._watch
def later():
    for _ in range(3):
        watch._tick(); clock[0] += 50
later()
with_room = service.taken
other = service.accepted()
watch._tick(); clock[0] += 50; watch._tick()
just_full = service.taken
conn.sendall(b"the answer")
answer = service.clients[0].recv(100).decode()
later()
found([with_room, just_full, answer, *service.books()])
"""
    ) == [1, 2, "the answer", 1, True, 0]


# ---- escapes -----------------------------------------------------------------------------------


def run(source: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.stderr.splitlines()


def test_a_module_with_the_unpatched_class_is_named() -> None:
    lines = run(
        """
import sys, types
early = types.ModuleType("early"); sys.modules["early"] = early
exec("from socket import socket\\nclass Mine(socket): pass", vars(early))
import gevent.monkey; gevent.monkey.patch_all()
import gserver.legacy
gserver.legacy.install(1)
"""
    )
    assert lines == [
        f"early.{name} is the socket class of before the patching: it escapes the cap"
        for name in ("Mine", "socket")
    ]


def test_a_module_that_accepts_with_the_unpatched_class_is_named() -> None:
    lines = run(
        """
import socket; early = socket.socket
import gevent.monkey; gevent.monkey.patch_all()
import gserver.legacy
gserver.legacy.install(1)
listener = early(); listener.bind(("127.0.0.1", 0)); listener.listen()
clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
held = [listener.accept() for _ in range(2)]
"""
    )
    assert len(lines) == 2
    assert lines[0].startswith("__main__.early is the socket class")
    assert lines[1].startswith("__main__ accepts with the socket class of before the patching")


def test_connections_accepted_natively_are_told_of() -> None:
    """A C library accepts from a listener of the program's, and one that Python never saw."""
    assert inside(
        LOG
        + """
import _socket, sys, types
sys.modules["uvloop"] = types.ModuleType("uvloop")
service = Service(2)
client = connect(service.port)
native = _socket.socket(fileno=os.dup(service.listener.fileno()))
def accept():
    try: return native._accept()
    except BlockingIOError: return None
fd, _ = eventually(accept)
own = _socket.socket(); own.bind(("127.0.0.1", 0)); own.listen()
port = own.getsockname()[1]
watch = service.installed._watch
watch.look_for_escapes(); watch.look_for_escapes()
found([
    said("accepted elsewhere", "uvloop"),
    said(f"127.0.0.1:{port} is not capped"),
    said("is not capped"),
])
"""
    ) == [1, 1, 1]


# ---- which listeners ---------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment, on any address."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in found]


def capped_ports(only: str, program: str) -> list[bool]:
    """Which of the program's ``listeners`` are capped."""
    found: list[bool] = inside(
        f"""
installed = cap(1, only={only})
{program}
capped = {{it.address for it in installed.holders.listeners()}}
found([it.getsockname() in capped for it in listeners])
"""
    )
    return found


def test_the_first_listener_is_the_service_and_those_with_its_port() -> None:
    assert capped_ports(
        "()",
        """
first = socket.create_server(("127.0.0.1", 0))
port = first.getsockname()[1]
listeners = [first, socket.create_server(("127.0.0.2", port)),
             socket.create_server(("127.0.0.1", 0))]
""",
    ) == [True, True, False]


def test_internal_listeners_are_not_the_service() -> None:
    assert capped_ports(
        "()",
        """
import multiprocessing.connection
import logging.config
internal = multiprocessing.connection.Listener(("127.0.0.1", 0))
from gevent import _socket3
pair = _socket3._fallback_socketpair()
listeners = [internal._listener._socket, socket.create_server(("127.0.0.1", 0))]
""",
    ) == [False, True]


def test_named_listeners_are_the_service(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    one, other = free_ports(2)
    assert capped_ports(
        f"('127.0.0.2:{one}', ':{other}', 'unix:{path}')",
        f"""
unix = socket.socket(socket.AF_UNIX); unix.bind({str(path)!r}); unix.listen()
listeners = [socket.create_server(("127.0.0.1", {one})),
             socket.create_server(("127.0.0.2", {one})),
             socket.create_server(("127.0.0.2", {other})), unix]
""",
    ) == [False, True, True, True]


def test_a_listener_is_named_by_its_host_or_by_any_spelling_of_its_address() -> None:
    a, b, c, d = free_ports(4)
    assert capped_ports(
        f"('localhost:{a}', '127.2:{b}', ':0{c}', '[::ffff:127.0.0.1]:{d}')",
        f"""
listeners = [socket.create_server((host, port)) for host, port in (
    ("127.0.0.1", {a}), ("127.0.0.2", {b}), ("127.0.0.3", {c}), ("127.0.0.1", {d}),
    ("127.0.0.2", {a}), ("127.0.0.1", {b}),
)]
""",
    ) == [True, True, True, True, False, False]


def test_a_listener_that_was_listening_before_is_capped_when_it_accepts() -> None:
    assert (
        inside(
            """
import _socket
raw = _socket.socket(); raw.bind(("127.0.0.1", 0)); raw.listen()
installed = cap(1)
listener = socket.socket(fileno=raw.detach())
clients = [connect(listener.getsockname()[1]) for _ in range(2)]
conn, _ = listener.accept()
found(clients[1].recv(1).decode())
"""
        )
        == ""
    )


@pytest.mark.parametrize(
    "call",
    [
        "gserver.legacy.install(1); gserver.legacy.install(1)",
        "gserver.legacy.install()",
        "gserver.legacy.install(1, limiter=gserver.Limiter(1))",
        "gserver.legacy.install(1, rejection='close')",
    ],
)
def test_a_setting_that_cannot_be_used_is_an_error(call: str) -> None:
    assert (
        inside(
            f"""
import gserver.legacy
try: {call}
except gserver.SettingError as error: found(type(error).__name__)
"""
        )
        == "SettingError"
    )


def test_an_unpatched_process_cannot_be_capped() -> None:
    lines = run(
        """
import sys, gserver.legacy
try: gserver.legacy.install(1)
except gserver.SettingError as error: print(error, file=sys.stderr)
"""
    )
    assert len(lines) == 1
    assert "patch_all" in lines[0]
