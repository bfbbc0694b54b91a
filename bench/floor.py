"""The floor that rejecting is compared with: a bare gevent accept-and-close loop.

It serves the first N clients by echo, one greenlet each, and closes every further one as soon as
it has accepted it: no verdict, no log, no accept error handled. Not a server to use:
whoever limits connections in gevent pays at least this.

    python -m bench.floor PORT N
"""

from __future__ import annotations

import _socket
import sys

import gevent
from gevent.socket import socket as GeventSocket

from gserver.handlers.echo import echo
from gserver.net.listeners import system_backlog, tcp_listener


def main() -> None:
    port, held = int(sys.argv[1]), int(sys.argv[2])
    listener = tcp_listener(("127.0.0.1", port), system_backlog())
    accept, close = listener._accept, _socket.close  # type: ignore[attr-defined]
    admitted = 0

    def serve(sock: GeventSocket) -> None:
        nonlocal admitted
        try:
            echo(sock, None)
        except OSError:
            pass  # a client's reset is that client's business
        finally:
            sock.close()
            admitted -= 1

    def readable() -> None:
        nonlocal admitted
        for _ in range(16):  # as many as gserver turns away in one turn of the loop
            try:
                fd, _ = accept()
            except BlockingIOError:
                return
            if admitted < held:
                admitted += 1
                sock = GeventSocket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fileno=fd)
                gevent.spawn(serve, sock)
            else:
                close(fd)

    watcher = gevent.get_hub().loop.io(listener.fileno(), 1)
    watcher.start(readable)
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    gevent.get_hub().join()


if __name__ == "__main__":
    main()
