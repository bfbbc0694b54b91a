"""socketserver.ThreadingTCPServer: without a limit as it comes, or with a semaphore.

``--max-connections 0`` is the stock class. Above 0 a slot is taken before the thread is started,
and given back after the thread has closed its connection.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any

from bench.peers.servers.options import HOST, parse


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(4096):
                self.request.sendall(data)
        except OSError:
            pass  # a client's reset is that client's business


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, backlog: int) -> None:
        self.request_queue_size = backlog
        super().__init__((HOST, port), Echo)


class LimitedServer(Server):
    def __init__(self, port: int, backlog: int, cap: int) -> None:
        self.slots = threading.BoundedSemaphore(cap)
        super().__init__(port, backlog)

    def process_request(self, request: socket.socket | Any, client_address: Any) -> None:
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.slots.release()  # no thread could be started
            raise

    def process_request_thread(self, request: socket.socket | Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()


def main() -> None:
    options = parse()
    port, backlog, cap = options.port, options.backlog, options.max_connections
    server = LimitedServer(port, backlog, cap) if cap else Server(port, backlog)
    server.serve_forever()


if __name__ == "__main__":
    main()
