r"""A server that says what it is told to: ``worded_server.py CAP HOW ADMITTED OTHERS [S [S]]``.

*HOW*: ``greets`` (the text is sent at once), ``answers`` (to all that is received) or ``silent``
(the admitted are told nothing, the others their text all the same). ``{n}`` in a text is the
connection's number, ``\r\n`` is read. Then, for the others: seconds until they are told (default 0)
and until they are ended after that (``inf``, the default: they are left open).
"""

from __future__ import annotations

import sys
from math import inf, isinf

import gevent
from gevent import socket as gsocket

CAP, HOW = int(sys.argv[1]), sys.argv[2]
ADMITTED, OTHERS = (text.encode().decode("unicode_escape") for text in sys.argv[3:5])
TOLD_S = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
ENDED_S = float(sys.argv[6]) if len(sys.argv) > 6 else inf
held = 0


def worded(text: str, number: int) -> bytes:
    return text.replace("{n}", str(number)).encode("latin-1")


def serve(sock: gsocket.socket, text: bytes) -> None:
    global held
    try:
        if HOW == "greets":
            sock.sendall(text)
        while sock.recv(4096):
            if HOW == "answers":
                sock.sendall(text)
    except OSError:
        pass
    sock.close()
    held -= 1


def turn_away(sock: gsocket.socket, text: bytes) -> None:
    try:
        if HOW == "answers":
            sock.recv(4096)
        gevent.sleep(TOLD_S)
        sock.sendall(text)
        sock.settimeout(None if isinf(ENDED_S) else ENDED_S)
        while sock.recv(4096):
            if HOW == "answers":
                sock.sendall(text)
    except OSError:
        pass
    sock.close()


listener = gsocket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(1024)
sys.stdout.write(f"{listener.getsockname()[1]}\n")
sys.stdout.flush()
number = 0
while True:
    sock, _ = listener.accept()
    number += 1
    if held < CAP:
        held += 1
        gevent.spawn(serve, sock, worded(ADMITTED, number))
    else:
        gevent.spawn(turn_away, sock, worded(OTHERS, number))
