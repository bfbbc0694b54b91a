"""Accepts when it is told to, without a doubt: as in the example of Python's ``selectors``."""

import select
import selectors
import socket
import sys

listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(sys.argv[2] == "blocking")
print(listener.getsockname()[1], flush=True)
socks = {listener.fileno(): listener}
poll = select.poll()
selector = selectors.DefaultSelector()


def register(sock):
    socks[sock.fileno()] = sock
    poll.register(sock, select.POLLIN)
    selector.register(sock, selectors.EVENT_READ)


def unregister(sock):
    del socks[sock.fileno()]
    poll.unregister(sock)
    selector.unregister(sock)


def with_select():
    return [sock.fileno() for sock in select.select(list(socks.values()), [], [])[0]]


def with_poll():
    return [fd for fd, _ in poll.poll()]


def with_selector():
    return [key.fd for key, _ in selector.select()]


wait = {"select": with_select, "poll": with_poll, "selectors": with_selector}[sys.argv[1]]
register(listener)
try:
    while True:
        for fd in wait():
            sock = socks[fd]
            if sock is listener:
                conn, addr = sock.accept()  # Should be ready
                register(conn)
            elif data := sock.recv(1000):
                sock.sendall(data)
            else:
                unregister(sock)
                sock.close()
except KeyboardInterrupt:
    pass
