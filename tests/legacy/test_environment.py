"""The cap by environment variables: every option of ``gserver exec`` under one rule."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from capped import with_entry_point


def run(program: str, here: Path, **variables: str) -> tuple[int, str, str]:
    """``python -m gevent.monkey`` of a program, with so many variables: its exit status and what
    it wrote."""
    (here / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "gevent.monkey", "program.py"],
        capture_output=True,
        text=True,
        cwd=here,
        env={**with_entry_point(here), **variables},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


THREE_CLIENTS = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
held = [listener.accept() for _ in range(2)]
clients[2].settimeout({patience})
try:
    print(repr(clients[2].recv(100)))
except TimeoutError:
    print("hangs")
"""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MAX_CONNECTIONS": "2"}, "b''"),
        ({"MAX_CONNECTIONS": ""}, "hangs"),
        ({}, "hangs"),
        ({"REJECT": "reply-text:full"}, "hangs"),
        ({"MAX_CONNECTIONS": "2", "REJECT": "reply-text:full"}, "b'full'"),
    ],
)
def test_the_variables_cap_a_program_that_patches_itself(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    given = {f"GSERVER_{name}": value for name, value in variables.items()}
    program = THREE_CLIENTS.format(patience=0.3 if said == "hangs" else 20)
    status, out, _ = run(program, tmp_path, **given)
    assert (status, out) == (0, said + "\n")


ALL_BY_NAME = """
import sys
it = sys.modules["gserver.legacy.install"]
limiter = it._installed.limiter
print(limiter.limits.per_source, limiter.limits.deny, limiter.limits.rate, limiter.settle)
print(it._installed._timeouts.idle, it._installed._timeouts.keepalive, it._installed._rejections)
"""


def test_each_option_is_a_variable_of_its_name(tmp_path: Path) -> None:
    status, out, errors = run(
        ALL_BY_NAME,
        tmp_path,
        GSERVER_MAX_CONNECTIONS="7",
        GSERVER_PER_SOURCE="3",
        GSERVER_DENY="10.0.0.0/8 192.0.2.1",
        GSERVER_RATE="12.5",
        GSERVER_SETTLE="0.25",
        GSERVER_IDLE_TIMEOUT="60",
        GSERVER_KEEPALIVE="0",
        GSERVER_REJECT="reset",
        GSERVER_REJECT_ON="source=close",
    )
    assert (status, errors) == (0, "")
    first, second = out.splitlines()
    assert first == "3 ('10.0.0.0/8', '192.0.2.1') 12.5 0.25"
    assert second.startswith("60.0 None ")
    assert "'source'>: Close()" in second
    assert "'capacity'>: Reset()" in second


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MAX_CONNECTIONS": "many"}, "GSERVER_MAX_CONNECTIONS 'many': must be a whole number"),
        ({"RATE_BURST": "3"}, "GSERVER_RATE_BURST 3: needs GSERVER_RATE"),
        ({"REJECT": "refuse"}, "GSERVER_REJECT 'refuse': "),
        ({"DEFERRED_START": "1"}, "GSERVER_DEFERRED_START "),
        ({"TLS_CERT": "x.pem"}, "GSERVER_TLS_CERT 'x.pem': "),
        ({"KEEPALIVE": "perhaps"}, "GSERVER_KEEPALIVE"),
        ({"ONLY": "8999"}, "GSERVER_ONLY '8999'"),
    ],
)
def test_a_variable_that_cannot_be_used_ends_the_process(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    given = {f"GSERVER_{name}": value for name, value in variables.items()}
    status, out, errors = run(
        "print('runs')", tmp_path, **{"GSERVER_MAX_CONNECTIONS": "5", **given}
    )
    assert (status, out) == (2, "")
    assert errors.startswith("gserver: ")
    assert said in errors
    assert "--" not in errors
    assert errors.count("\n") == 1


def test_a_variable_that_is_no_setting_is_told_of(tmp_path: Path) -> None:
    _, out, errors = run(
        "print('runs')", tmp_path, GSERVER_MAX_CONNECTIONS="5", GSERVER_PER_SUORCE="2"
    )
    assert (out, errors) == (
        "runs\n",
        "gserver: GSERVER_PER_SUORCE is no setting, and has no effect\n",
    )


@pytest.mark.parametrize(("variables", "loaded"), [({}, "[]"), ({"GSERVER_REJECT": "reset"}, "[]")])
def test_without_the_cap_nothing_of_ours_is_loaded(
    variables: dict[str, str], loaded: str, tmp_path: Path
) -> None:
    """Not even where the entry point is installed: it costs every program that gevent patches."""
    status, out, errors = run(
        "import sys\n"
        "ours = {'gserver', 'gserver.daemon', 'gserver.daemon.environment'}\n"
        "print('gserver.daemon.environment' in sys.modules)\n"
        "print(sorted(m for m in set(sys.modules) - ours if m.partition('.')[0] in"
        " ('gserver', 'click')))",
        tmp_path,
        **variables,
    )
    assert (status, out, errors) == (0, f"True\n{loaded}\n", "")


def test_under_exec_the_variables_have_no_effect(tmp_path: Path) -> None:
    """Not even when the program patches again, of which gevent tells again."""
    (tmp_path / "program.py").write_text(
        "import gevent.monkey; gevent.monkey.patch_all()\n" + THREE_CLIENTS.format(patience=20)
    )
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "gserver", "exec"),
            *("--max-connections", "2", "program.py"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**with_entry_point(tmp_path), "GSERVER_MAX_CONNECTIONS": "1"},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "b''\n")
    assert "full 2/2" in done.stderr
