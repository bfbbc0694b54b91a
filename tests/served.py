"""A server short of descriptors, in a process of its own.

    served.py gserver|gevent CAP FREE [VARIANT]

VARIANT: one of ``variants.py``. FREE: descriptors the process may still open once the server
listens. Prints the address, then for each line it reads a line of JSON with the books (gserver
only); ends with its input.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import gevent
import gevent.server
from gevent import socket
from gevent.pool import Pool
from variants import VARIANTS

import gserver


def echo(sock: Any, _address: Any) -> None:
    sock.sendall(b"+")
    while data := sock.recv(4096):
        sock.sendall(data)


def main() -> None:
    kind, cap, free = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    server: Any
    if sys.argv[4:]:
        server = VARIANTS[sys.argv[4]].server(echo, cap)
    elif kind == "gserver":
        server = gserver.StreamServer(("127.0.0.1", 0), echo, max_connections=cap)
    else:
        server = gevent.server.StreamServer(("127.0.0.1", 0), echo, spawn=Pool(cap))
    gevent.get_hub().threadpool.apply(lambda: None)  # its descriptors
    server.start()
    used = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    # The listing's own descriptor was the highest, and is free again.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, hard))
    print(json.dumps(server.address), flush=True)
    os.set_blocking(0, False)
    while True:
        socket.wait_read(0)
        if not os.read(0, 100):
            break
        books = server.stats
        print(
            json.dumps(
                {
                    "active": books.active,
                    "descriptors": books.rejected[gserver.Reason.DESCRIPTORS],
                    "errors": dict(books.accept_errors),
                    "balanced": books.balanced,
                }
            ),
            flush=True,
        )
    server.stop(0.0)


if __name__ == "__main__":
    main()
