"""``gserver demo`` shows what is true, ends by itself, and fails when what it shows does not
happen."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest
from program import GSERVER, environment, gserver, shell, wait_for
from support import DEADLINE

from gserver import cli, demo


def test_it_shows_both_experiments_and_ends_by_itself() -> None:
    began = monotonic()
    result = gserver("demo")
    assert monotonic() - began < 15  # seconds; 2 on a machine that is not busy
    assert (result.returncode, result.stderr) == (0, "")
    first, second = result.stdout.split("\n\n")
    time = r"[\d.]+ (?:µs|s)"
    for text, *steps in (
        (
            first,
            r"1\. A sequential server without a limit\n",
            rf"A connects to port \d+, says hello, and is answered after {time}\n",
            rf"B connects: accepted by the kernel after {time}\n",
            r"B has said hello and heard nothing; the kernel's queue holds 1 client\n",
            r"A leaves\n",
            rf"B is answered, {time} after A left, having waited [\d.]+ s$",
        ),
        (
            second,
            r"2\. A server that knows when it is full: gserver serve echo --max-connections 1\n",
            rf"A connects to port \d+, says hello, and is answered after {time}\n",
            rf"B connects, and is turned away after {time}: end of file \(FIN\)\n",
            rf"A goes on: it says hello again, and is answered after {time}\n",
            r"A leaves\n",
            rf"C connects, is admitted, says hello, and is answered after {time}\n$",
        ),
    ):
        assert re.fullmatch(r"(?: +[\d.]+ s  )?".join(steps), text), text
    waited = re.search(r"having waited ([\d.]+) s", first)
    assert waited
    assert float(waited[1]) >= 1.5


def test_files_in_the_current_directory_are_not_taken_for_modules(tmp_path: Path) -> None:
    for name in ("gserver.py", "select.py"):
        (tmp_path / name).write_text("raise SystemExit('mine')\n")
    command = (sys.executable, "-P", "-m", "gserver")
    result = gserver("demo", cwd=tmp_path, command=command)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PYTHON", (sys.executable, "-c", "raise SystemExit('the reason')"))
    said: list[str] = []
    assert not demo.run(said.append)
    assert said[-1] == "\nThis was not to happen: the server did not start: the reason"


# ---- when a server misbehaves ----------------------------------------------------------------

Servers = Callable[[str, list[str]], None]


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Servers:
    """Has the demo run another command where its own has a word."""
    commands: dict[str, list[str]] = {}
    original = demo._server

    @contextlib.contextmanager
    def server(command: list[str]) -> Iterator[str]:
        for word, other in commands.items():
            if word in command:
                command = other
        with original(command) as line:
            # Only from here: a server may need longer to start than a client has patience.
            monkeypatch.setattr(demo, "_DEADLINE_S", 1.0)
            yield line

    monkeypatch.setattr(demo, "_server", server)
    monkeypatch.setattr(demo, "_STAY_S", 0.1)

    def use(word: str, command: list[str]) -> None:
        commands[word] = command

    return use


def _serving(*arguments: str) -> list[str]:
    return [*GSERVER, "serve", "echo", "--listen", "127.0.0.1:0", *arguments]


def _script(text: str) -> list[str]:
    """A server that prints as gserver does, and does this with each client."""
    return [
        *[sys.executable, "-c"],
        "import socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print('127.0.0.1:%d' % listener.getsockname()[1], flush=True)\n"
        "clients = []\n"
        "while True:\n"
        "    client, _ = listener.accept()\n"
        "    clients.append(client)\n"
        f"    {text}\n",
    ]


def outcome() -> tuple[bool, str]:
    """Its result and what it said last."""
    said: list[str] = []
    result = demo.run(said.append)
    return result, said[-1]


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (_serving("--max-connections", "2"), "the client over the cap heard nothing"),
        (_script("client.sendall(client.recv(5))"), "the client over the cap heard nothing"),
        (_script("client.sendall(b'hello')"), "the client over the cap was sent b'hello'"),
        (_script("client.sendall(b'other')"), "that was to be served got b'other'"),
        (_script("client.close()"), "a client that was to be served got "),
        ([sys.executable, "-c", "pass"], "the server did not start"),
        ([sys.executable, "-c", "print('hello')"], "the server said 'hello"),
        (["/no/such/program"], "No such file or directory"),
    ],
)
def test_it_fails_when_the_capped_server_does_not_do_what_it_shows(
    server: list[str], problem: str, instead: Servers
) -> None:
    instead("serve", server)
    result, last = outcome()
    assert not result
    assert last.startswith("\nThis was not to happen: ")
    assert problem in last


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "__import__('threading').Thread(target=lambda c: c.sendall(c.recv(5)),"
            " args=(client,)).start()",
            "answered two clients at once",
        ),
        ("len(clients) < 2 and client.sendall(client.recv(5))", "B was not answered"),
    ],
)
def test_it_fails_when_the_sequential_server_is_none(
    text: str, problem: str, instead: Servers
) -> None:
    server = _script(text)
    server[-1] = server[-1].replace("'127.0.0.1:%d'", "'%d'")
    instead("gserver.demo.sequential", server)
    result, last = outcome()
    assert not result
    assert problem in last


def test_it_does_not_wait_for_ever_for_a_server_that_says_nothing(
    instead: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_DEADLINE_S", 0.2)
    instead("gserver.demo.sequential", [sys.executable, "-c", "import time; time.sleep(1000)"])
    result, last = outcome()
    assert not result
    assert "the server did not start" in last


@pytest.mark.parametrize(("happened", "status"), [(True, 0), (False, 1)])
def test_its_status_says_whether_it_happened(
    happened: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "run", lambda _say: happened)
    monkeypatch.setattr(sys, "argv", ["gserver", "demo"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == status


# ---- interrupted -----------------------------------------------------------------------------


def test_ctrl_c_ends_it_and_its_server_quietly() -> None:
    with subprocess.Popen(
        [*GSERVER, "demo"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while "B connects" not in (line := process.stdout.readline()):
                assert line
            servers = psutil.Process(process.pid).children()
            assert servers
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
            assert process.stderr.read().strip() == ""
            wait_for(lambda: not any(s.is_running() for s in servers), lambda: "a server is left")
        finally:
            process.kill()


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    result = shell("{ $gserver demo; echo $? >&2; } | head -1")
    assert result.stdout == "1. A sequential server without a limit\n"
    assert result.stderr == "1\n"
