"""accept() after a rejection, the overload watcher, and TLS listeners."""

from __future__ import annotations

import pytest
from capped import inside

#: The slot is taken by ``conn``; a client that is to be turned away comes when it is told to.
FULL = "service = Service(); conn = service.accepted()\n"

TLS = """
import ssl
from pathlib import Path
crt = Path(gevent.__file__).parent / "tests" / "server.crt"
server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_side.load_cert_chain(crt, crt.with_suffix(".key"))
client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client_side.check_hostname, client_side.verify_mode = False, ssl.CERT_NONE

def tls_client(port):
    return client_side.wrap_socket(connect(port))
"""

#: Each way to wait for ``listener`` up to ``seconds``.
WAYS = """
import select, selectors
def ways_to_wait(listener, seconds):
    poll = select.poll(); poll.register(listener, select.POLLIN)
    selector = selectors.DefaultSelector(); selector.register(listener, selectors.EVENT_READ)
    old = selectors.SelectSelector(); old.register(listener, selectors.EVENT_READ)
    return [
        lambda: select.select([listener], [], [], seconds)[0],
        lambda: poll.poll(seconds * 1000),
        lambda: selector.select(seconds),
        lambda: old.select(seconds),
    ]
"""


def test_a_rejection_comes_though_the_program_is_not_accepting() -> None:
    assert inside(
        FULL
        + """
answers = []
for _ in range(40):
    client = connect(service.port)
    try: answers.append(client.recv(1).decode())
    except ConnectionResetError: answers.append("")
    client.close()
found([answers.count(""), service.limiter.snapshot().rejected["capacity"]])
"""
    ) == [40, 40]


def test_a_non_blocking_accept_finds_nothing_after_a_rejection() -> None:
    assert inside(
        FULL
        + """
service.listener.setblocking(False)
client = connect(service.port)
eventually(lambda: service.limiter.snapshot().accepted == 2 or service.listener.fileno() < 0)
try: service.listener.accept(); what = "a client"
except BlockingIOError as error: what = type(error).__name__
found([what, client.recv(1).decode()])
"""
    ) == ["BlockingIOError", ""]


def test_an_accept_with_a_timeout_keeps_its_timeout_through_rejections() -> None:
    assert inside(
        FULL
        + """
from time import monotonic
service.listener.settimeout(0.3)
def come():
    while True:
        connect(service.port).close(); gevent.sleep(0.01)
coming = gevent.spawn(come)
began = monotonic()
try:
    with gevent.Timeout(20): service.listener.accept(); what = "a client"
except TimeoutError as error: what = str(error)
took = monotonic() - began
coming.kill()
rejected = service.limiter.snapshot().rejected["capacity"]
found([what, took > 0.29, rejected > 0])
"""
    ) == ["timed out", True, True]


def test_a_blocking_accept_goes_on_waiting_after_a_rejection() -> None:
    assert inside(
        FULL
        + """
waiting = gevent.spawn(service.listener.accept)
with connect(service.port) as client: client.recv(1)
still = not waiting.ready()
conn.close()
admitted = connect(service.port)
sock, address = waiting.get(timeout=20)
found([still, address == admitted.getsockname()])
"""
    ) == [True, True]


def test_a_program_is_not_told_of_a_client_that_is_turned_away() -> None:
    """It waits on, for what is left of its timeout."""
    assert (
        inside(
            FULL
            + WAYS
            + """
from time import monotonic
result = []
for way in ways_to_wait(service.listener, 0.3):
    began = monotonic()
    waiting = gevent.spawn(way)
    gevent.sleep(0)
    with connect(service.port) as client:
        answer = client.recv(1).decode()
    told = waiting.get(timeout=20)
    result.append([answer, told, monotonic() - began > 0.29])
found(result)
"""
        )
        == [["", [], True]] * 4
    )


def test_a_program_is_told_of_the_client_that_comes_after_those_turned_away() -> None:
    assert (
        inside(
            FULL
            + WAYS
            + """
result = []
for way in ways_to_wait(service.listener, 20):
    waiting = gevent.spawn(way)
    gevent.sleep(0)
    with connect(service.port) as client:
        client.recv(1)
    conn.close()
    client = connect(service.port)
    told = len(waiting.get(timeout=20))
    service.listener.setblocking(False)
    conn, address = service.listener.accept()
    result.append([told, address == client.getsockname()])
found(result)
"""
        )
        == [[1, True]] * 4
    )


def test_a_program_that_waits_for_a_listener_wakes_when_it_is_closed() -> None:
    assert inside(
        WAYS
        + """
service = Service()
with_select, with_poll, *_ = ways_to_wait(service.listener, 20)
duplicate = service.listener.dup()
waiting = [gevent.spawn(with_select), gevent.spawn(with_poll)]
gevent.sleep(0)
service.listener.close()
eventually(lambda: all(it.ready() for it in waiting))
found([len(it.get()) for it in waiting])
"""
    ) == [1, 1]


def test_a_program_is_told_of_a_tls_client_when_its_handshake_is_done() -> None:
    assert (
        inside(
            TLS
            + WAYS
            + """
service = Service(9)
listener = server_side.wrap_socket(service.listener, server_side=True)
result, clients, accepted = [], [], []
for way in ways_to_wait(listener, 20):
    waiting = gevent.spawn(way)
    gevent.sleep(0)
    clients.append(connect(service.port))
    eventually(lambda: service.limiter.snapshot().admitted == len(clients))
    early = waiting.ready()
    clients.append(tls_client(service.port))
    told = len(waiting.get(timeout=20))
    with gevent.Timeout(5):
        conn, address = listener.accept()
    accepted.append(conn)
    result.append([early, told, address == clients[-1].getsockname()])
found(result)
"""
        )
        == [[False, 1, True]] * 4
    )


def test_a_client_that_waits_in_the_listener_is_reported_to_select_poll_and_selectors() -> None:
    """It was admitted while the program was not looking: the kernel's queue is empty."""
    assert (
        inside(
            """
import select, selectors
service = Service(settle=10.0)
poll = select.poll(); poll.register(service.listener, select.POLLIN)
selector = selectors.DefaultSelector(); selector.register(service.listener, selectors.EVENT_READ)
ways = [
    lambda: select.select([service.listener], [], [], 20)[0],
    lambda: select.select([service.listener], [], [], 0)[0],
    lambda: poll.poll(20000), lambda: poll.poll(0),
    lambda: selector.select(20), lambda: selector.select(0),
]
result = []
conn = service.accepted()
for way in ways:
    client = connect(service.port)
    eventually(lambda: service.limiter.pending == 1)
    admitted = service.limiter.snapshot().admitted
    conn.close()
    eventually(lambda: service.limiter.snapshot().admitted == admitted + 1)
    result.append(len(way()))
    conn, _ = service.listener.accept()
    client.close()
found(result)
"""
        )
        == [1] * 6
    )


def test_a_waiting_select_wakes_for_a_client_that_finds_room_after_all() -> None:
    assert inside(
        """
import select
service = Service(settle=10.0)
conn = service.accepted()
client = connect(service.port)
eventually(lambda: service.limiter.pending == 1)
gevent.spawn_later(0.05, conn.close)
read, _, _ = select.select([service.listener], [], [], 20)
service.listener.setblocking(False)
sock, _ = service.listener.accept()
found([len(read), *service.books()])
"""
    ) == [1, 1, True, 0]


def test_socketserver_shuts_down_while_full() -> None:
    assert inside(
        """
import socketserver
from time import monotonic
installed = cap(1)
class Hold(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"+"); self.request.recv(1)
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hold)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
held = connect(port); held.recv(1)
def flood():
    while True:
        connect(port).close(); gevent.sleep(0.001)
flooding = gevent.spawn(flood)
eventually(lambda: installed.limiter.snapshot().rejected["capacity"] > 20)
began = monotonic()
server.shutdown()
took = monotonic() - began
flooding.kill()
found(took < 10.0)  # seconds; half a second, its poll, on a machine that is not busy
"""
    )


def test_a_silent_tls_client_keeps_nobody_else_out() -> None:
    assert inside(
        TLS
        + """
service = Service(3, handshake_timeout=10.0)
listener = server_side.wrap_socket(service.listener, server_side=True)
silent = connect(service.port)
def accept_one():
    sock, _ = listener.accept(); sock.sendall(b"+"); return sock
accepting = gevent.spawn(accept_one)
with gevent.Timeout(5):
    client = tls_client(service.port)
    answer = client.recv(1).decode()
found([answer, accepting.get().version() is not None, service.taken])
"""
    ) == ["+", True, 2]


def test_a_stalled_handshake_gives_its_slot_back_at_its_deadline() -> None:
    assert inside(
        TLS
        + """
service = Service(1, handshake_timeout=0.1)
listener = server_side.wrap_socket(service.listener, server_side=True)
accepting = gevent.spawn(listener.accept)
silent = connect(service.port)
eventually(lambda: service.taken == 1)
end = silent.recv(1).decode()
eventually(lambda: service.taken == 0)
finished = service.limiter.snapshot().finished["handshake_timeout"]
client = gevent.spawn(tls_client, service.port)
accepting.get(timeout=20)
found([end, finished, service.taken])
"""
    ) == ["", 1, 1]


def test_a_failed_handshake_gives_its_slot_back_and_the_program_never_hears_of_it() -> None:
    assert inside(
        TLS
        + """
service = Service(1)
listener = server_side.wrap_socket(service.listener, server_side=True)
accepting = gevent.spawn(listener.accept)
garbage = connect(service.port); garbage.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
try:
    while garbage.recv(100): pass
except ConnectionResetError: pass
eventually(lambda: service.taken == 0)
finished = service.limiter.snapshot().finished["handshake_failed"]
found([finished, accepting.ready(), *service.books()])
"""
    ) == [1, False, 0, True, 0]


@pytest.mark.parametrize("turn", ["None", "gevent.sleep(0)"], ids=["before it ran", "later"])
def test_a_listener_closed_during_a_handshake_gives_the_slot_back(turn: str) -> None:
    assert inside(
        TLS
        + f"turn = lambda: {turn}"
        + """
service = Service(1)
listener = server_side.wrap_socket(service.listener, server_side=True)
listener.setblocking(False)
silent = connect(service.port)
def begin():
    try: listener.accept()
    except BlockingIOError: pass
    return service.taken == 1
eventually(begin)
turn()
keep = list(listener._sock.followed._handshakes._under_way)  # the collector is not to help
listener.close()
end = silent.recv(1).decode()
eventually(lambda: service.taken == 0)
found([end, service.limiter.snapshot().finished["killed"], *service.books()])
"""
    ) == ["", 1, 0, True, 0]


def test_a_handshake_in_the_programs_own_thread_has_a_deadline_too() -> None:
    assert inside(
        TLS
        + """
service = Service(1, handshake_timeout=0.1)
conn = service.accepted()
try: server_side.wrap_socket(conn, server_side=True); what = "done"
except TimeoutError as error: what = str(error)
eventually(lambda: service.taken == 0)
finished = service.limiter.snapshot().finished["handshake_timeout"]
found([what, finished, *service.books()])
"""
    ) == ["The handshake operation timed out", 1, 0, True, 0]


def test_a_thread_killed_during_its_handshake_gives_the_slot_back() -> None:
    assert inside(
        TLS
        + """
service = Service(1)
def serve():
    server_side.wrap_socket(service.accepted(), server_side=True)
thread = gevent.spawn(serve)
eventually(lambda: service.taken == 1)
thread.kill()
del thread  # and with it the frames that hold the socket
import gc; gc.collect()
eventually(lambda: service.taken == 0)
found(service.books())
"""
    ) == [0, True, 0]


def test_the_programs_own_backlog_does_not_make_clients_hang() -> None:
    """Fifty at once to a program that listens with a backlog of one, at its cap (G2)."""
    assert inside(
        """
service = Service(1)
service.listener.listen(1)
conn = service.accepted()
from time import monotonic
began = monotonic()
def come():
    with connect(service.port) as client:
        try: return client.recv(1) == b""
        except ConnectionResetError: return True
coming = [gevent.spawn(come) for _ in range(50)]
gevent.joinall(coming, timeout=20)
found([sum(bool(g.value) for g in coming), monotonic() - began < 0.9])
"""
    ) == [50, True]
