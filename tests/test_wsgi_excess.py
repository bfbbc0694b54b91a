"""A WSGI application's excess reads 503, unless the user says otherwise or TLS forbids it."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from missing import needs
from program import Program, serving

APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""
CERTIFICATE = Path(gevent.__file__).parent / "tests" / "server.crt"
TLS = ("--tls-cert", CERTIFICATE, "--tls-key", CERTIFICATE.with_suffix(".key"))


@contextlib.contextmanager
def full(
    tmp_path: Path, *options: str | Path, handler: str = "app:application"
) -> Iterator[Program]:
    """The server, with its one slot taken by a client that is kept alive."""
    (tmp_path / "app.py").write_text(APPLICATION)
    with serving(handler, "--app-dir", tmp_path, "--max-connections", "1", *options) as program:
        holder = connect(program, bool(set(TLS) & set(options)))
        with contextlib.closing(holder):
            holder.request("GET", "/")
            assert holder.getresponse().read() == b"hello"
            yield program


def connect(program: Program, tls: bool = False) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", program.port, timeout=20)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", program.port, timeout=20, context=context)


def test_by_default_the_excess_reads_that_the_server_is_busy(tmp_path: Path) -> None:
    with full(tmp_path) as program:
        assert "turned away by reply:http" in program.line
        for _ in range(3):
            with contextlib.closing(connect(program)) as over:
                over.request("POST", "/", body=b"x" * 10_000)
                answer = over.getresponse()
                answer.read()
                assert (answer.status, answer.reason) == (503, "Service Unavailable")


def test_curl_reads_it_too(tmp_path: Path) -> None:
    needs("curl")
    with full(tmp_path) as program:
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{program.port}/"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert done.stdout == "503"


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--reject", "close"), "close"), (("--reject", "reset"), "reset"), (TLS, "close")],
    ids=("close", "reset", "TLS"),
)
def test_the_default_is_neither_the_users_word_nor_for_tls(
    options: tuple[str | Path, ...], said: str, tmp_path: Path
) -> None:
    with full(tmp_path, *options) as program:
        assert f"turned away by {said}\n" in program.line
        with contextlib.closing(connect(program, options is TLS)) as over:
            with pytest.raises((ConnectionError, ssl.SSLError, http.client.RemoteDisconnected)):
                over.request("GET", "/")
                over.getresponse()


def test_another_reasons_rejection_leaves_the_default_for_the_slots(tmp_path: Path) -> None:
    options = ("--deny", "127.0.0.9", "--reject-on", "denied=close")
    with full(tmp_path, *options) as program:
        with contextlib.closing(connect(program)) as over:
            over.request("GET", "/")
            assert over.getresponse().status == 503
