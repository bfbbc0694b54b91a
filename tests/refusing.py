"""A full server in a process of its own, for its CPU clock.

    refusing.py refuse|close

Cap 1. Prints the address; ends with its input.
"""

from __future__ import annotations

import json
import os
import sys

from gevent import socket
from support import greet

import gserver


def main() -> None:
    rejection = gserver.Refuse() if sys.argv[1] == "refuse" else gserver.Close()
    server = gserver.StreamServer(("127.0.0.1", 0), greet, max_connections=1, rejection=rejection)
    server.start()
    print(json.dumps(server.address), flush=True)
    os.set_blocking(0, False)
    socket.wait_read(0)
    server.stop(0)


if __name__ == "__main__":
    main()
