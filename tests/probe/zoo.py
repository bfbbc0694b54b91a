"""The zoo: servers that misbehave in one known way each, one process a server.

``python zoo.py KIND [SECONDS]`` prints its port on a line, then serves until its standard input
ends. *SECONDS* is the delay of the kinds that have one.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

DELAY = float(sys.argv[2]) if len(sys.argv) > 2 else 0.03
KEPT: list[socket.socket] = []  # neither closed nor collected
AGAIN_AT = [0.0]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def fin(sock: socket.socket) -> None:
    sock.close()


def fin_late(sock: socket.socket) -> None:
    time.sleep(DELAY)
    sock.close()


def message_fin(sock: socket.socket) -> None:
    sock.sendall(b"-ERR max number of clients reached\r\n")
    sock.close()


def message_rst(sock: socket.socket) -> None:
    sock.sendall(b"-ERR max number of clients reached\r\n")
    reset(sock)


def mysql_full(sock: socket.socket) -> None:
    sock.sendall(b"\x17\0\0\0\xff\x10\x04Too many connections")
    sock.close()


def text_fin(sock: socket.socket) -> None:
    sock.sendall(b"we are busy\r\n")
    sock.close()


def silent(sock: socket.socket) -> None:
    KEPT.append(sock)


def silent_until(sock: socket.socket) -> None:
    time.sleep(DELAY)
    sock.close()


def stall(sock: socket.socket) -> None:
    sock.recv(100)
    KEPT.append(sock)


def banner_late(sock: socket.socket) -> None:
    time.sleep(DELAY)
    sock.sendall(b"220 hello\r\n")
    KEPT.append(sock)


def echo(sock: socket.socket) -> None:
    with sock:
        while data := sock.recv(4096):
            sock.sendall(data)


def wants_binary(sock: socket.socket) -> None:
    """Ends who sends text, and answers a TLS record in a protocol of its own.

    Who comes sooner than DELAY after another has left is turned away.
    """
    with sock:
        if time.monotonic() < AGAIN_AT[0]:
            return
        while sock.recv(4096).startswith(b"\x16\x03"):
            sock.sendall(b"\x07no\n")
        AGAIN_AT[0] = time.monotonic() + DELAY


def closes_by_itself(sock: socket.socket) -> None:
    with sock:
        sock.sendall(sock.recv(4096))
        time.sleep(DELAY)


def trickle_reply(sock: socket.socket) -> None:
    with sock:
        for byte in sock.recv(4096):
            sock.send(bytes([byte]))
            time.sleep(0.002)
        KEPT.append(sock.dup())


HANDLERS = {
    f.__name__: f
    for f in (
        fin,
        fin_late,
        reset,
        message_fin,
        message_rst,
        mysql_full,
        text_fin,
        silent,
        silent_until,
        stall,
        banner_late,
        echo,
        wants_binary,
        closes_by_itself,
        trickle_reply,
    )
}


def tried(handler: object, sock: socket.socket) -> None:
    try:
        handler(sock)  # type: ignore[operator]
    except OSError:
        sock.close()


def main() -> None:
    kind = sys.argv[1]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    address = listener.getsockname()
    if kind == "refuse":
        pass  # bound, so that nobody else takes the port, and not listening
    elif kind == "backlog_one":
        listener.listen(1)
    elif kind == "syn_dropped":
        # The queue is full when it holds more than the backlog: then SYNs are dropped.
        listener.listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            KEPT.append(filler)
    else:
        listener.listen(4096)
    if kind in HANDLERS:

        def accept() -> None:
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=tried, args=(HANDLERS[kind], sock), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
