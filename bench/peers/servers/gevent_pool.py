"""Stock gevent: a StreamServer whose Pool is the limit."""

from __future__ import annotations

from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import socket

from bench.peers.servers.options import HOST, parse


def echo(client: socket, address: tuple[str, int]) -> None:
    try:
        while data := client.recv(4096):
            client.sendall(data)
    except OSError:
        pass  # a client's reset is that client's business


def main() -> None:
    options = parse()
    pool = Pool(options.max_connections)
    address = (HOST, options.port)
    StreamServer(address, echo, spawn=pool, backlog=options.backlog).serve_forever()


if __name__ == "__main__":
    main()
