"""HAProxy and curl as proxies in front of the server, and the command line's options."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest
from gevent import subprocess as gevent_subprocess
from missing import needs
from proxied import GARBAGE, behind_proxies, v1
from support import (
    DEADLINE,
    HERE,
    client_context,
    connect_to,
    eventually,
    free_port,
    outcome,
    running,
    server_context,
)

from gserver import Limits, Reason

HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Web:
    """Answers each request, and remembers by whom it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.checked: list[Any] = []

    def __call__(self, sock: Any, address: Any) -> None:
        words = b""
        while b"\r\n\r\n" not in words:
            more = sock.recv(65536)
            if not more:
                return
            words += more
        (self.checked if b"/check" in words else self.asked).append(address)
        sock.sendall(HTTP)


@contextmanager
def haproxy(folder: Path, server: Any, options: str, checks: str = "") -> Iterator[int]:
    """HAProxy before ``server``; yields its port."""
    needs("haproxy")
    port, config = free_port(), folder / "haproxy.cfg"
    config.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"listen relay\n bind 127.0.0.1:{port}\n {checks}\n"
        f" server one 127.0.0.1:{server.address[1]} {options}\n"
    )
    process = gevent_subprocess.Popen(
        ["haproxy", "-db", "-f", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "haproxy ended"
        try:
            connect_to(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return False
        return True

    try:
        eventually(answers)
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE)


def ask(port: int) -> tuple[Any, bytes]:
    """The client's own address, and what it was answered."""
    with connect_to(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return sock.getsockname(), sock.makefile("rb").read()


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
def test_haproxys_clients_are_served_under_their_own_addresses(
    version: str, tmp_path: Path
) -> None:
    web = Web()
    with running(behind_proxies(web, cap=3)) as server, haproxy(tmp_path, server, version) as port:
        name, answer = ask(port)
        assert answer == HTTP
        assert web.asked == [name]
        eventually(lambda: server.stats.active == server.stats.pending == 0)


def test_haproxys_clients_are_counted_by_source(tmp_path: Path) -> None:
    """Two clients from different addresses of this machine, by one proxy."""
    web = Web()
    limits = Limits(max_connections=3, deny=["127.0.0.2"])
    with running(behind_proxies(web, limits=limits)) as server:
        with haproxy(tmp_path, server, "send-proxy-v2") as port:
            for source, answer in (("127.0.0.2", b""), ("127.0.0.3", HTTP)):
                sock = gevent.socket.socket()
                with sock:
                    sock.settimeout(DEADLINE)
                    sock.bind((source, 0))
                    sock.connect(("127.0.0.1", port))
                    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    try:
                        assert sock.makefile("rb").read() == answer
                    except ConnectionResetError:
                        assert not answer
            assert [host for host, _ in web.asked] == ["127.0.0.3"]
            assert server.stats.rejected[Reason.DENIED] == 1
            eventually(lambda: server.stats.active == server.stats.pending == 0)


def test_haproxys_checks_are_served_under_its_own_address(tmp_path: Path) -> None:
    web = Web()
    with running(behind_proxies(web, cap=3)) as server:
        options = "send-proxy-v2 check inter 50ms"
        with haproxy(tmp_path, server, options, "option httpchk GET /check"):
            eventually(lambda: len(web.checked) >= 3)
        assert {host for host, _ in web.checked} == {"127.0.0.1"}
        eventually(lambda: server.stats.active == server.stats.pending == 0)
        assert sum(server.stats.rejected.values()) == 0


def test_checks_that_only_connect_and_leave_are_no_rejections_and_fill_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What load balancers do to see whether a port is open (HAProxy's own never get as far as
    ``accept()``: it resets before the handshake is done)."""
    with running(behind_proxies(Web(), cap=1)) as server:
        for _ in range(5):  # to a cap of 1: each slot comes back
            before = server.stats.abandoned
            connect_to(server.address).close()
            eventually(lambda: server.stats.abandoned > before)  # noqa: B023
        assert server.stats.accepted == 5
        assert server.stats.header_faults == {"closed": 5}
        assert sum(server.stats.rejected.values()) == 0
    assert not caplog.records


def test_tls_passes_through_haproxy_behind_its_header(tmp_path: Path) -> None:
    web = Web()
    context = server_context(gevent.ssl.SSLContext)
    with running(behind_proxies(web, cap=3, ssl_context=context)) as server:
        with haproxy(tmp_path, server, "send-proxy-v2") as port:
            with connect_to(("127.0.0.1", port)) as plain:
                name = plain.getsockname()
                with client_context().wrap_socket(plain) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert sock.recv(4096) == HTTP
            assert web.asked == [name]
            eventually(lambda: server.stats.active == server.stats.pending == 0)


def test_curl_as_its_own_proxy_is_served() -> None:
    needs("curl")
    web = Web()
    with running(behind_proxies(web, cap=1)) as server:
        for options, status in ((["--haproxy-protocol"], 0), ([], 52)):  # 52: an empty answer
            curl = gevent_subprocess.run(
                ["curl", "-sS", *options, f"http://127.0.0.1:{server.address[1]}/"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=DEADLINE,
                check=False,
            )
            assert curl.returncode in (status, 56 if status else 0), curl.stderr  # 56: a reset
        assert [host for host, _ in web.asked] == ["127.0.0.1"]
        assert server.stats.header_faults == {"no_header": 1}
        eventually(lambda: server.stats.active == server.stats.pending == 0)


# ---- gserver serve -------------------------------------------------------------------------


def gserver(*arguments: str) -> Any:
    return gevent_subprocess.Popen(
        [sys.executable, "-m", "gserver", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
    )


def test_serve_takes_the_clients_address_from_its_proxies() -> None:
    listen = ["console", "--listen", "127.0.0.1:0"]
    trust = ["--proxy-protocol-from", "192.0.2.0/24", "--proxy-protocol-from", "127.0.0.1"]
    process = gserver(*listen, *trust, "--proxy-timeout", "0.2")
    try:
        banner = process.stdout.readline().decode()
        found = re.search(r"127\.0\.0\.1:(\d+)", banner)
        assert found, banner
        address = ("127.0.0.1", int(found[1]))
        with connect_to(address) as silent, connect_to(address) as garbage:
            garbage.sendall(GARBAGE)
            assert outcome(garbage) in ("closed", "reset")
            assert outcome(silent) == "closed"
        with connect_to(address) as sock:
            sock.sendall(v1("203.0.113.9") + b"its own words\n")
            shown = b""
            while b"its own words" not in shown:
                shown += process.stdout.readline()
            assert b"203.0.113.9" in shown
            assert b"PROXY" not in shown
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--proxy-protocol-from", "lb"], "--proxy-protocol-from 'lb': is not a network"),
        (
            ["--proxy-protocol-from", "all", "--proxy-timeout", "0"],
            "--proxy-timeout 0.0: must be more than 0",
        ),
    ],
)
def test_serve_names_the_option_that_cannot_be_used(arguments: list[str], line: str) -> None:
    process = gserver("echo", "--listen", "127.0.0.1:0", *arguments)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2
    assert errors.decode().startswith(f"gserver: {line}")
    assert errors.count(b"\n") == 1
