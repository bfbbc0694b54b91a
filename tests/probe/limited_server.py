"""A limited echo server: ``limited_server.py CAP POLICY [SECONDS]``, one policy at its cap.

``fin``, ``rst``, ``message``, ``refuse`` (the listener is shut while full), ``queue`` (accepts no
more), ``hang`` (accepts, never serves), ``sloppy`` (FIN, but all who come within 5 ms are judged
by the same, stale count), ``leaky`` (FIN; no slot ever comes back), ``quiet``
(FIN; the admitted are never answered), ``late`` (as quiet, but the FIN comes SECONDS after the
accept), ``narrow`` (FIN; a backlog of 1: of those who come at once, most are dropped by the
kernel), ``slow_to_free`` (FIN; a slot comes back 100 ms, or SECONDS, after its client has left),
``mute`` (FIN; the admitted are answered once, never again), ``panic`` (FIN; the admitted are ended
once SECONDS people, a hundred say, have been turned away), ``brief`` (FIN; an admitted one is ended
when it has said nothing for SECONDS) and ``brief_slow`` (as brief; its slot comes back 200 ms
later).
"""

from __future__ import annotations

import socket
import struct
import sys
import time

import gevent
from gevent import socket as gsocket
from gevent.event import Event

CAP, POLICY = int(sys.argv[1]), sys.argv[2]
DELAY = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
held = 0
counted = 0
last = 0.0
turned_away = 0
parked: list[gsocket.socket] = []
freed = Event()
served: set[gsocket.socket] = set()


def serve(sock: gsocket.socket) -> None:
    global held
    served.add(sock)
    if POLICY in ("brief", "brief_slow"):
        sock.settimeout(DELAY)
    answers = {"quiet": 0.0, "late": 0.0, "mute": 1.0}.get(POLICY, float("inf"))
    try:
        while data := sock.recv(4096):
            if answers > 0:
                sock.sendall(data)
            answers -= 1
    except OSError:
        pass
    served.discard(sock)
    sock.close()
    if POLICY == "slow_to_free":
        gevent.sleep(DELAY if len(sys.argv) > 3 else 0.1)
    elif POLICY == "brief_slow":
        gevent.sleep(0.2)
    if POLICY != "leaky":
        held -= 1
        freed.set()


def turn_away(sock: gsocket.socket) -> None:
    global turned_away
    turned_away += 1
    if POLICY == "panic" and turned_away == DELAY:
        for client in served:
            client.shutdown(socket.SHUT_RDWR)
    if POLICY == "hang":
        parked.append(sock)
        return
    if POLICY == "late":
        parked.append(sock)
        gevent.spawn_later(DELAY, sock.close)
        return
    if POLICY == "message":
        sock.sendall(b"busy, try later\r\n")
    if POLICY == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


with socket.socket() as finder:  # bound by number: the kernel forgets a port 0 at shutdown
    finder.bind(("127.0.0.1", 0))
    port = finder.getsockname()[1]
listener = gsocket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen(1 if POLICY == "narrow" else 1024)
sys.stdout.write(f"{port}\n")
sys.stdout.flush()
while True:
    while POLICY == "queue" and held >= CAP:
        gevent.sleep(0.002)
    if POLICY == "refuse" and held >= CAP:
        listener.shutdown(socket.SHUT_RD)
        while held >= CAP:  # idly: whoever is refused costs nothing
            freed.clear()
            freed.wait()
        listener.listen(1024)
    sock, _ = listener.accept()
    now = time.monotonic()
    if POLICY != "sloppy" or now - last > 0.005:
        counted, last = held, now
    if counted < CAP:
        held += 1
        gevent.spawn(serve, sock)
    else:
        turn_away(sock)
