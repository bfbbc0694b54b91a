"""Clients that misbehave at random, at the cap of an unmodified ThreadingHTTPServer."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent import socket
from legacy_matrix import CAP, Client, Program, Row, settled, until

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
KEEP_ALIVE = Row(
    "keep-alive HTTP", "keep_alive_http.py", Client(REQUEST[:9], REQUEST[9:], b"hello")
)
CLIENTS = 4 * CAP


class Outside:
    """What the clients see together: who is served at this moment."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.served_now = self.served_most = self.served = self.turned_away = 0
        self.done = False

    def connect(self) -> Any:
        return socket.create_connection(("127.0.0.1", self.port), 20.0)

    def ask(self, sock: Any) -> bool:
        """Whether a request is answered."""
        try:
            sock.sendall(REQUEST)
            answer = b""
            while not answer.endswith(b"hello"):
                data = sock.recv(4096)
                if not data:
                    return False
                answer += data
        except ConnectionError:
            return False
        return True

    # ---- ways to behave ----------------------------------------------------------------------

    def behave(self, sock: Any) -> None:
        """Ask once or more, hold a while, leave: served all that time."""
        if not self.ask(sock):
            self.turned_away += 1
            return
        self.served += 1
        self.served_now += 1
        self.served_most = max(self.served_most, self.served_now)
        try:
            for _ in range(self.random.randrange(3)):
                gevent.sleep(self.random.random() * 0.01)
                assert self.ask(sock), "a connection in use was cut"
        finally:
            self.served_now -= 1  # before it closes: from then on somebody else may be served

    def leave_at_once(self, sock: Any) -> None:
        pass

    def reset(self, sock: Any) -> None:
        sock.sendall(REQUEST[: self.random.randrange(1, len(REQUEST))])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def half_a_request(self, sock: Any) -> None:
        sock.sendall(REQUEST[: self.random.randrange(1, len(REQUEST))])
        gevent.sleep(self.random.random() * 0.02)

    def garbage(self, sock: Any) -> None:
        sock.sendall(self.random.randbytes(self.random.randrange(1, 2000)) + b"\n")

    def half_close(self, sock: Any) -> None:
        sock.sendall(REQUEST)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass

    def never_read(self, sock: Any) -> None:
        for _ in range(20):
            sock.sendall(REQUEST)

    def say_nothing(self, sock: Any) -> None:
        gevent.sleep(self.random.random() * 0.02)

    def run(self) -> None:
        ways: list[Callable[[Any], None]] = [
            *(self.behave,) * 4,
            *(self.leave_at_once, self.reset, self.half_a_request, self.garbage),
            *(self.half_close, self.never_read, self.say_nothing),
        ]
        while not self.done:
            try:
                with self.connect() as sock:
                    self.random.choice(ways)(sock)
            except OSError:
                pass  # reset, or turned away before it could misbehave


def churn(seconds: float) -> None:
    program = Program(KEEP_ALIVE)
    try:
        outside = Outside(program.port, seed=5)
        with outside.connect() as sock:
            assert outside.ask(sock)
        baseline = settled(program)
        clients = [gevent.spawn(outside.run) for _ in range(CLIENTS)]
        deadline = monotonic() + seconds
        while monotonic() < deadline and not any(client.ready() for client in clients):
            gevent.sleep(0.05)
        outside.done = True
        gevent.joinall(clients, timeout=20.0, raise_error=True)
        assert outside.served_most == CAP, "over-admission, or never full"
        assert outside.served > 20 * seconds
        assert outside.turned_away > seconds

        # 0 leaked slots: every one of them is reachable again, at once
        def all_reachable() -> bool:
            socks = [outside.connect() for _ in range(CAP)]
            answers = [outside.ask(sock) for sock in socks]
            for sock in socks:
                sock.close()
            return all(answers)

        assert until(all_reachable)
        assert settled(program, baseline) <= baseline, "descriptors left over"
    finally:
        errors = program.stop()
    assert "Traceback" not in errors


def test_random_misbehaviour_leaks_no_slot_and_admits_nobody_over_the_cap() -> None:
    churn(3.0)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_two_minutes_of_random_misbehaviour_leak_nothing() -> None:
    churn(120.0)
