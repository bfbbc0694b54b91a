"""``probe cap`` against servers that others wrote: each started by hand on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from missing import missing, needs

from gserver.probe.attempt import Patience
from gserver.probe.calibrate import calibrate
from gserver.probe.cap import find_cap
from gserver.probe.finding import CapFinding
from gserver.probe.outcomes import Outcome
from gserver.probe.run import Run
from gserver.probe.target import parse_target

pytestmark = pytest.mark.long

CAP = 10
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens there; a client that tries would take a slot."""
    return any(
        row.laddr.port == port and row.status == psutil.CONN_LISTEN
        for row in psutil.net_connections("tcp4")
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str], int], None]]:
    """Start a server in the foreground and wait until it listens on the port."""
    children: list[subprocess.Popen[bytes]] = []

    def run(command: list[str], port: int) -> None:
        log = (tmp_path / "log").open("wb")
        with log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        children.append(child)
        deadline = time.monotonic() + 20
        while not listens(port):
            assert child.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    yield run
    for child in children:
        child.terminate()
        child.wait(20)


def find(port: int) -> CapFinding:
    target = parse_target(f"127.0.0.1:{port}")
    with Run(60, stream=None) as run:
        calibration = calibrate(target, None, Patience(0.05, 1.0), run)
        try:
            return find_cap(target, calibration, run, maximum=200, expected=CAP)
        finally:
            calibration.close()


def check(finding: CapFinding, outcome: Outcome) -> None:
    assert (finding.limit, finding.peak, finding.over_admissions) == (CAP, CAP, 0)
    assert finding.policy is outcome
    # RST: closed later than quiet-time, on a busy machine, when our probe lies unread.
    assert set(finding.turned_away) - {Outcome.RST} == {outcome} - {Outcome.RST}
    assert finding.fits_after_close == 1


def test_redis_says_so(start: Callable[[list[str], int], None]) -> None:
    needs("redis-server", "redis-server")
    port = free_port()
    start(
        ["redis-server", "--port", f"{port}", "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp",
         "--maxclients", f"{CAP}"],
        port,
    )  # fmt: skip
    finding = find(port)
    check(finding, Outcome.MESSAGE)
    assert finding.message == b"-ERR max number of clients reached\r\n"


def test_nginx_limit_conn_closes(
    start: Callable[[list[str], int], None], zoo: Callable[..., int], tmp_path: Path
) -> None:
    needs("nginx", "nginx libnginx-mod-stream")
    if not NGINX_STREAM.exists():
        missing("nginx has no stream module: apt-get install libnginx-mod-stream")
    port, upstream = free_port(), zoo("echo")
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""
        daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1; user root;
        load_module {NGINX_STREAM};
        events {{ worker_connections 1024; }}
        stream {{
            limit_conn_zone $server_port zone=all:1m;
            server {{ listen 127.0.0.1:{port}; limit_conn all {CAP};
                     proxy_pass 127.0.0.1:{upstream}; }}
        }}
        """
    )
    start(["nginx", "-c", str(config)], port)
    check(find(port), Outcome.FIN)


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (f"maxconn {CAP}", Outcome.QUEUED),
        (f"tcp-request connection reject if {{ fe_conn gt {CAP} }}", Outcome.RST),
    ],
    ids=["maxconn", "reject"],
)
def test_haproxy_queues_or_resets(
    start: Callable[[list[str], int], None],
    zoo: Callable[..., int],
    tmp_path: Path,
    rule: str,
    outcome: Outcome,
) -> None:
    needs("haproxy", "haproxy")
    port, upstream = free_port(), zoo("echo")
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend limited
    bind 127.0.0.1:{port}
    {rule}
    default_backend echo
backend echo
    server echo 127.0.0.1:{upstream}
"""
    )
    start(["haproxy", "-db", "-f", str(config)], port)
    check(find(port), outcome)
