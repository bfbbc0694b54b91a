"""What a handler was written for: as ``gserver serve`` sees it, and as ``--kind`` says it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from program import GSERVER, gserver, held, module, served, serving, turned_away
from support import vanish

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
CLASS = """
class handle:
    def __init__(self, sock, address):
        while data := sock.recv(100):
            sock.sendall(data)
"""
WSGI_CLASS = """
class handle:
    def __init__(self, environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
    def __iter__(self):
        yield b"hello"
"""

HANDLERS = """
import socketserver, threading

def call(sock, start_response):  # looks like an application
    sock.sendall(b"%d " % (threading.get_ident() == threading.main_thread().ident))
    while data := sock.recv(100):
        sock.sendall(data)

def application(*all):  # looks like a handler
    environ, start_response = all
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
"""


def exchanged(sock: socket.socket, said: bytes) -> bytes:
    """All that a client reads that says so much, and no more."""
    sock.sendall(said)
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while data := sock.recv(4096):
        answer += data
    return answer


def test_a_class_that_takes_a_socket_and_an_address_is_a_handler(tmp_path: Path) -> None:
    with serving(module(tmp_path, CLASS), cwd=tmp_path) as program, program.client() as sock:
        assert served(sock)


def test_a_class_with_the_names_of_wsgi_is_an_application(tmp_path: Path) -> None:
    with serving(module(tmp_path, WSGI_CLASS), cwd=tmp_path) as program:
        assert "turned away by reply:http" in program.line
        with program.client() as sock:
            assert exchanged(sock, REQUEST).endswith(b"\r\n\r\nhello")


def test_a_class_whose_arguments_cannot_be_seen_is_one_line_that_names_the_option(
    tmp_path: Path,
) -> None:
    result = gserver("serve", module(tmp_path, "handle = dict\n"), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "say so by --kind" in result.stderr


# ---- as the user says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "said", "answer"),
    [
        ("callable", "call", b"line\n", b"1 line\n"),
        ("blocking", "call", b"line\n", b"0 line\n"),  # not in the main thread
        ("request-handler", "Echo", b"line\n", b"line\n"),
        ("wsgi", "application", REQUEST, b"\r\n\r\nhello"),
    ],
)
def test_a_handler_is_served_as_the_kind_it_is_said_to_be(
    kind: str, name: str, said: bytes, answer: bytes, tmp_path: Path
) -> None:
    module(tmp_path, HANDLERS)
    options = ("--kind", kind, "--max-connections", "1")
    with serving(f"app:{name}", *options, cwd=tmp_path) as program:
        assert program.line.endswith("reply:http\n" if kind == "wsgi" else "close\n")
        for _ in range(3):  # the one slot comes back
            with program.client() as sock:
                assert exchanged(sock, said).endswith(answer)
        assert program.stop() == 0
        assert "Traceback" not in program.log


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("request-handler", "call", "is no socketserver.BaseRequestHandler"),
        ("threaded", "call", "'threaded' is not one of"),
    ],
)
def test_a_kind_that_it_cannot_be_is_one_line_and_status_2(
    kind: str, name: str, problem: str, tmp_path: Path
) -> None:
    module(tmp_path, HANDLERS)
    result = gserver("serve", f"app:{name}", "--kind", kind, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert problem in result.stderr


# ---- how blocking functions end ------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "logged"), [("raise LookupError('own')", 1), ("raise SystemExit('bye')", 0)]
)
def test_a_blocking_function_that_fails_is_logged_once_and_its_slot_comes_back(
    ending: str, logged: int, tmp_path: Path
) -> None:
    name = module(tmp_path, f"def handle(sock, address):\n    {ending}\n")
    options = ("--kind", "blocking", "--max-connections", "1")
    with serving(name, *options, cwd=tmp_path) as program:
        for _ in range(3):
            with program.client() as sock:
                assert turned_away(sock) == "close"
        assert program.stop() == 0
        assert program.log.count("ERROR handler of 127.0.0.1:") == 3 * logged
        assert program.log.count("Traceback (most recent call last):") == 3 * logged
        assert program.log.count("LookupError: own") == 3 * logged
        assert "rejecting" not in program.log


BLOCKING = """
def handle(sock, address):
    sock.sendall(b"+")
    while sock.recv(100):
        pass
"""


def test_a_blocking_functions_peer_that_resets_is_no_error(tmp_path: Path) -> None:
    with serving(module(tmp_path, BLOCKING), "--kind", "blocking", cwd=tmp_path) as program:
        for _ in range(3):
            with program.client() as sock:
                assert sock.recv(1) == b"+"
                vanish(sock)
        assert program.stop() == 0
        assert "ERROR" not in program.log
        assert "Traceback" not in program.log


ECHO = """
def handle(sock, address):
    while data := sock.recv(100):
        sock.sendall(data)
"""


def test_a_blocking_functions_clients_are_all_served_up_to_the_cap_under_a_low_soft_limit(
    tmp_path: Path,
) -> None:
    """Each takes two descriptors: the thread has its own."""
    options = ("--kind", "blocking", "--max-connections", "300")
    limited = ("sh", "-c", 'ulimit -Sn 520 && exec "$@"', "sh", *GSERVER)
    with serving(module(tmp_path, ECHO), *options, cwd=tmp_path, command=limited) as program:
        with held(program, 300):
            pass
        assert program.stop() == 0
        assert "Traceback" not in program.log
