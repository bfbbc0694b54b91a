"""What a stranger does wrong, and servers that go away: a line and the right status each."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "gserver", "probe"]
HERE = Path(__file__).parent


def probe(
    *arguments: object, files: tuple[int, int] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    if files is not None:
        soft, hard = files
        command = [
            "sh",
            "-c",
            f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"',
            "-",
            *command,
        ]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@contextmanager
def running(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, which is ended in any case."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize(
    "arguments",
    [
        ["cap"],
        ["nonsense"],
        ["cap", "127.0.0.1:1", "--nonsense"],
        ["cap", "127.0.0.1:1", "--cap", "few"],
        ["cap", "127.0.0.1"],
        ["cap", "127.0.0.1:0"],
        ["cap", "127.0.0.1:99999"],
        ["cap", "nobody.invalid:80"],
        ["cap", "127.0.0.1:1", "--send", "\\x"],
        ["cap", "127.0.0.1:1", "--send", "hello", "--expect", "("],
        ["cap", "127.0.0.1:1", "--deadline", "soon"],
        ["cap", "127.0.0.1:1", "--json", "/"],
        ["storm", "127.0.0.1:1", "--rate", "nan"],
        ["storm", "127.0.0.1:1", "--cap", "100000000"],
        ["storm", "[::1]:1", "--sources", "5"],
        ["isolation", "127.0.0.1:1", "--victim-rate", "0"],
        ["slow", "127.0.0.1:1", "--pid", "99999999"],
        ["selftest", "--rate", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_one_line_and_status_2(
    arguments: list[str], refusal: Callable[..., str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert refusal("probe", *arguments).startswith("gserver probe")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_wrong_command_ends_the_process_with_one_line() -> None:
    done = probe("cap", "127.0.0.1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gserver probe")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["cap", "storm", "churn", "slow", "isolation"])
def test_nobody_there_is_status_1(command: str) -> None:
    done = probe(command, "127.0.0.1:1")
    assert done.returncode == 1
    assert "connection refused: is the server running there?" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_no_answer_at_all_is_status_1(zoo: Callable[..., int]) -> None:
    done = probe("cap", f"127.0.0.1:{zoo('syn_dropped')}", "--deadline", "500ms")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "no answer to the handshake: is the address right?"
    )


@pytest.mark.parametrize("command", ["cap", "storm", "churn", "slow", "isolation", "selftest"])
def test_too_few_open_files_is_status_2(command: str) -> None:
    target = [] if command == "selftest" else ["127.0.0.1:1"]
    done = probe(command, *target, files=(40, 40))
    assert done.returncode == 2
    assert re.fullmatch(
        rf"gserver probe: ulimit -n 40: {command} needs at least \d+ open files\n", done.stderr
    )


def test_the_soft_limit_is_raised(start_server: Callable[..., int]) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 60, 'fin')}"
    done = probe("cap", target, files=(40, 1000))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 connections served at once" in done.stdout


@pytest.mark.long
def test_a_limit_beyond_our_open_files_is_not_called_none(
    start_server: Callable[..., int],
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 60, 'fin')}"
    done = probe("cap", target, files=(80, 80))
    assert done.returncode == 3
    assert "INVALID: held 32 and no more: this machine's limit on open files" in done.stdout
    done = probe("churn", target, files=(80, 80))
    assert done.returncode == 1
    assert "no limit found up to 32" in done.stderr.splitlines()[-1]
    assert "ulimit -n" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["cap", "storm", "churn", "slow", "isolation", "selftest"])
def test_every_command_says_how_it_is_used(command: str) -> None:
    done = probe(command, "--help")
    assert done.returncode == 0
    for flag in ("--seed", "--json", "--csv", "--html", "--threshold"):
        assert flag in done.stdout
    if command not in ("cap", "selftest"):
        assert "--pid" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "at", "said"),
    [
        (["storm", "--duration", "5s"], r"storm: 1000/s, [1-9]", "the server has gone"),
        (["churn", "--tries", "0", "--duration", "5s"], "joining: [1-9]", "the server has gone"),
        (["slow", "--duration", "3s"], "trickle: 3 still", ""),
        (["isolation", "--duration", "3s", "--rate", "500"], "flood: 500/s", "the server has gone"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_server_that_dies_makes_the_run_invalid(
    command: list[str], at: str, said: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    name, *flags = command
    server = [sys.executable, str(HERE / "limited_server.py"), "6", "fin"]
    with running(server) as victim:
        assert victim.stdout is not None
        target = f"127.0.0.1:{int(victim.stdout.readline())}"
        words = [*COMMAND, name, target, "--cap", "6", "--json", str(report), *flags]
        with running(words) as child:
            assert child.stderr is not None
            while re.search(at, line := child.stderr.readline()) is None:
                assert line
            victim.kill()
            out, err = child.communicate(timeout=60)
    assert child.returncode == 3, out + err
    assert "Traceback" not in err
    assert "INVALID" in out
    assert said in out
    figures = json.loads(report.read_text())["figures"]
    assert figures
    assert figures.get("cpu_per_rejection", 1) > 0


ISOLATION = ["--cap", "6", "--duration", "1s", "--rate", "300", "--victim-rate", "100"]


@pytest.mark.long
def test_victims_that_fall_silent_are_no_base_line(start_server: Callable[..., int]) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 6, 'mute')}"
    done = probe("isolation", target, *ISOLATION, "--deadline", "500ms")
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.search(r"INVALID: quiet: \d+ of \d+ requests .* got no answer", done.stdout)


@pytest.mark.long
def test_victims_that_the_flood_ends_are_counted_not_forgotten(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 6, 'panic', 100)}"
    report = tmp_path / "report.json"
    done = probe(
        "isolation", target, *ISOLATION, "--json", report, "--threshold", "victims_lost==0"
    )
    assert done.returncode == 99, done.stdout + done.stderr
    assert "warning: flood: the server ended 6 of the admitted clients" in done.stdout
    figures = json.loads(report.read_text())["figures"]
    assert figures["victims_lost"] == 6
    assert figures["flood.missed"] > 0
    assert figures["isolation.goodput"] < 0.9
