"""A run that is stopped gives what it has, whatever it was doing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from gserver.probe.attempt import Patience
from gserver.probe.calibrate import calibrate
from gserver.probe.churn import ChurnSettings, run_churn
from gserver.probe.profiles import PROFILES, Profile
from gserver.probe.result import Result
from gserver.probe.run import Run, Stopped
from gserver.probe.target import parse_target

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from gserver.probe.cli import probe; probe()"]
AT_A_CAP = ("storm", "churn", "slow", "isolation")


def interrupted(
    arguments: list[str], at: str, folder: Path, *, command: list[str] = COMMAND
) -> tuple[int, str, dict[str, Any]]:
    """Run until the progress matches *at*, then SIGINT: status, output, the JSON report."""
    files = {kind: folder / f"report.{kind}" for kind in ("json", "csv", "html")}
    wanted = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    with subprocess.Popen(
        [*command, *arguments, *wanted],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        try:
            assert child.stderr is not None
            while re.search(at, line := child.stderr.readline()) is None:
                assert line, child.communicate()
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert "Traceback" not in err
    for path in files.values():
        assert path.stat().st_size > 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(p.name for p in files.values())
    return child.returncode, out, json.loads(files["json"].read_text())


@pytest.mark.parametrize("command", ["cap", *AT_A_CAP])
def test_interrupted_while_calibrating(
    command: str, zoo: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{zoo('silent')}"
    status, out, report = interrupted([command, target], "calibrating", tmp_path)
    assert status == 3
    assert "PARTIAL: interrupted by SIGINT; nothing was measured by then" in out
    assert report["partial"] == "interrupted by SIGINT"
    assert report["figures"] == {}


@pytest.mark.parametrize(
    "command", ["cap", "storm", *(pytest.param(c, marks=pytest.mark.long) for c in AT_A_CAP[1:])]
)
def test_interrupted_while_searching_for_the_cap(
    command: str, start_server: Callable[..., int], tmp_path: Path
) -> None:
    # One that queues makes the search wait for deadlines.
    target = f"127.0.0.1:{start_server('limited_server', 3, 'queue')}"
    status, out, report = interrupted([command, target], "holding", tmp_path)
    assert status == 3
    assert "limit" in out
    assert "served at once so far" in out
    assert report["partial"] == "interrupted by SIGINT"


@pytest.mark.long
@pytest.mark.parametrize("command", AT_A_CAP)
def test_interrupted_while_filling(
    command: str, start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 2, 'queue')}"
    at = "filling" if command == "churn" else "holding"
    began = time.monotonic()
    status, _, report = interrupted(
        [command, target, "--cap", "50", "--deadline", "20s"], at, tmp_path
    )
    assert status == 3
    assert report["partial"] == "interrupted by SIGINT"
    assert time.monotonic() - began < 18  # no deadline is waited for


@pytest.mark.long
@pytest.mark.parametrize("at", ["overhead", "ceiling", "A/A block 1"])
def test_interrupted_selftest(at: str, tmp_path: Path) -> None:
    status, out, report = interrupted(["selftest", "--blocks", "2"], at, tmp_path)
    assert status == 3
    assert "PARTIAL: interrupted by SIGINT; figures are of what had happened by then" in out
    assert report["partial"] == "interrupted by SIGINT"
    assert "noise.p50.low" not in report["figures"]
    assert ("ceiling" in report["figures"]) == (at == "A/A block 1")


@pytest.mark.parametrize(
    ("at", "measured"), [("calibrating", False), ("[1-9] users, [1-9] connections held", True)]
)
def test_interrupted_scenario(
    at: str, measured: bool, start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"
    words = ["bench/scenarios/full_house.py", target, "--users", "9", "--run-time", "60s"]
    run = [sys.executable, "-m", "bench", "run"]
    status, out, report = interrupted(words, at, tmp_path, command=run)
    assert status == 3
    assert "PARTIAL: interrupted by SIGINT" in out
    assert report["partial"] == "interrupted by SIGINT"
    assert (report["figures"].get("admitted.count", 0) > 0) == measured


@pytest.mark.long
def test_when_its_time_is_over_the_result_is_partial(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"
    report = tmp_path / "report.json"
    done = subprocess.run(
        [*COMMAND, "cap", target, "--duration", "500ms", "--json", str(report)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "PARTIAL: its time was over" in done.stdout
    assert json.loads(report.read_text())["partial"] == "its time was over"


@pytest.mark.long
def test_a_rate_is_of_the_time_that_passed(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 2, 'fin')}"
    arguments = ["storm", target, "--cap", "2", "--rate", "200", "--duration", "60s"]
    status, out, report = interrupted(arguments, "200/s, [2-9]", tmp_path)
    assert status == 3
    assert 120 <= report["figures"]["rate"] <= 220
    assert "for 60 s" not in out
    # A tenth of what there was is warm-up, not a tenth of what was planned.
    attempts = len(report["records"]["outcome"])
    assert 0.8 * attempts <= report["figures"]["fin.count"] <= 0.95 * attempts


def test_no_wait_outlasts_the_run() -> None:
    with Run(60, stream=None) as run:
        gevent.spawn_later(0.05, run.stop, "enough")
        assert not run.wait(Event(), 60)
        assert run.stopped
        with pytest.raises(Stopped, match="enough"):
            run.go_on()
    began = time.monotonic()
    with Run(0.05, stream=None) as run:
        assert not run.wait(Event(), 60)
    assert time.monotonic() - began < 10


def test_what_a_stopped_run_waited_for_is_ended() -> None:
    ended = Event()

    def forever() -> None:
        try:
            gevent.sleep(1000)
        finally:
            ended.set()

    with Run(60, stream=None) as run:
        gevent.spawn_later(0.05, run.stop, "enough")
        with pytest.raises(Stopped):
            run.result_of(forever)
    assert ended.is_set()


def test_what_is_waited_for_raises_to_who_waits() -> None:
    def fail() -> None:
        raise ValueError("mine")

    with Run(60, stream=None) as run:
        assert run.result_of(lambda: 5) == 5
        with pytest.raises(ValueError, match="mine"):
            run.result_of(fail)


@pytest.mark.parametrize("profile", [None, PROFILES["echo"]], ids=["unknown", "echo"])
def test_a_stopped_calibration_says_nothing_of_the_target(
    profile: Profile | None, zoo: Callable[..., int]
) -> None:
    target = parse_target(f"127.0.0.1:{zoo('stall')}")
    with Run(60, stream=None) as run:
        gevent.spawn_later(0.1, run.stop, "enough")
        with pytest.raises(Stopped):
            calibrate(target, profile, Patience(deadline_s=30), run)


def test_a_stopped_churn_waits_for_no_deadline(start_server: Callable[..., int]) -> None:
    target = parse_target(f"127.0.0.1:{start_server('limited_server', 1, 'queue')}")
    settings = ChurnSettings(cap=5, tries=1, rate=1.0, duration_s=1.0, joiners=1, seed=1)
    with Run(60, stream=None) as run:
        calibration = calibrate(target, PROFILES["echo"], Patience(deadline_s=30), run)
        began = time.monotonic()
        gevent.spawn_later(0.5, run.stop, "enough")
        run_churn(target, calibration, run, settings, Result("churn", "t"))
        calibration.close()
    assert time.monotonic() - began < 15


def test_progress_stays_in_one_line_of_a_narrow_terminal() -> None:
    """A line that wraps would be left behind when the next takes its place."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 30))
    with open(slave, "w") as terminal, open(master, "rb", buffering=0) as screen:
        with Run(60, stream=terminal) as run:
            run.tell("holding 4095 of 5000, and so on for longer than there is room")
        shown = screen.read(4096)
    lines = [line for line in shown.split(b"\r\x1b[K") if line]
    assert lines
    assert all(len(line) < 30 for line in lines)
    assert lines[0].startswith(b"[  0.0 s] holding 4095")


def test_a_reader_of_the_progress_that_has_gone_does_not_end_the_run() -> None:
    class Gone:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            raise BrokenPipeError

    with Run(60, stream=Gone()) as run:  # type: ignore[arg-type]
        run.announce("one")
        run.tell("two")
        assert not run.stopped
