"""Stock gevent, ``pool_server.py CAP [SECONDS]``: an echo server that stops accepting at its cap.

A slot comes back SECONDS after its client has left.
"""

from __future__ import annotations

import sys

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer


def echo(sock, address) -> None:
    while data := sock.recv(4096):
        sock.sendall(data)
    gevent.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)


server = StreamServer(("127.0.0.1", 0), echo, spawn=Pool(int(sys.argv[1])), backlog=256)
server.start()
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
gevent.get_hub().threadpool.apply(sys.stdin.read)
