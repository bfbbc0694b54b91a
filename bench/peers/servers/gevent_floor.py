"""The floor: what a gevent loop costs that accepts and closes, and does nothing else.

Not a server to use: one integer for a cap, no accept error handled, no bound on the connections
taken in one turn but the queue's end. Whoever limits connections in gevent pays at least this.
"""

from __future__ import annotations

import _socket
import socket as standard

import gevent
from gevent import socket

from bench.peers.servers.options import HOST, parse


class Floor:
    def __init__(self, listener: standard.socket, cap: int) -> None:
        self.listener = listener
        self.free = cap

    def on_readable(self) -> None:
        while True:
            try:
                descriptor, _ = self.listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            if self.free:
                self.free -= 1
                gevent.spawn(self.echo, descriptor)
            else:
                _socket.close(descriptor)

    def echo(self, descriptor: int) -> None:
        try:
            with socket.socket(fileno=descriptor) as client:
                while data := client.recv(4096):
                    client.sendall(data)
        except OSError:
            pass  # a client's reset is that client's business
        finally:
            self.free += 1


def main() -> None:
    options = parse()
    listener = standard.create_server((HOST, options.port), backlog=standard.SOMAXCONN)
    listener.setblocking(False)
    hub = gevent.get_hub()
    watcher = hub.loop.io(listener.fileno(), 1)
    watcher.start(Floor(listener, options.max_connections).on_readable)
    hub.join()


if __name__ == "__main__":
    main()
