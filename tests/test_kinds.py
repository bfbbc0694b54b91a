"""What a handler was written for: as ``gserver serve`` sees it, and as ``--kind`` says it."""

from __future__ import annotations

import socket
from pathlib import Path

from program import gserver, module, served, serving

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


def answered(sock: socket.socket) -> bytes:
    """What an HTTP request reads."""
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
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
            assert answered(sock).endswith(b"\r\n\r\nhello")


def test_a_class_whose_arguments_cannot_be_seen_is_one_line_that_names_the_option(
    tmp_path: Path,
) -> None:
    result = gserver("serve", module(tmp_path, "handle = dict\n"), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "say so by --kind" in result.stderr
