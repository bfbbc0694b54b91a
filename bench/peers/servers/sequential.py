"""The article's first server: one client at a time, the others wait in the kernel's queue."""

from __future__ import annotations

import socket

from bench.peers.servers.options import HOST, parse


def main() -> None:
    options = parse()
    listener = socket.create_server((HOST, options.port), backlog=options.backlog)
    while True:
        client, _ = listener.accept()
        with client:
            try:
                while data := client.recv(4096):
                    client.sendall(data)
            except OSError:
                pass  # a client's reset is that client's business


if __name__ == "__main__":
    main()
