"""Scenario files: short, wrong input is one line, and an interrupted run is partial."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers import PEERS, start
from bench.peers.base import ROOT

SCENARIOS = sorted((ROOT / "bench" / "scenarios").glob("*.py"))

CAP = 5


@pytest.fixture
def target() -> Iterator[str]:
    with start(PEERS["asyncio"], CAP) as running:
        yield f"127.0.0.1:{running.port}"


def bench_run(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "run", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_scenarios_are_short_enough_to_read_at_a_glance() -> None:
    assert [file.stem for file in SCENARIOS if len(file.read_text().splitlines()) > 45] == []


def test_interrupted_scenario_gives_what_it_has_marked_partial(target: str, tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    words = ["--run-time", "60s", "--json", str(report)]
    with bench_run(str(SCENARIOS[0]), target, *words) as running:
        assert running.stderr is not None
        assert any("connections held" in line for line in running.stderr)
        running.send_signal(signal.SIGINT)
        text, errors = running.communicate()
    assert running.returncode == 3, errors
    assert "partial" in text.lower()
    assert json.loads(report.read_text())["partial"] == "interrupted by SIGINT"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["no-such.py", "127.0.0.1:9"], "no such Python file"),
        (["README.md", "127.0.0.1:9"], "no such Python file"),
        (["bench/options.py", "127.0.0.1:9"], "defines no SocketUser with a @task"),
        (["bench/scenarios/spikes.py", "nowhere"], "HOST:PORT"),
        (["bench/scenarios/spikes.py", "127.0.0.1:9", "--users", "0"], "--users"),
        (["bench/scenarios/spikes.py", "127.0.0.1:9", "--spawn-rate", "0"], "--spawn-rate"),
        (["bench/scenarios/spikes.py", "127.0.0.1:9", "--run-time", "soon"], "10ms, 2s or 1m"),
        (["bench/scenarios/spikes.py"], "TARGET"),
        ([], "SCENARIO"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(words: list[str], says: str) -> None:
    with bench_run(*words) as running:
        _, errors = running.communicate()
    assert running.returncode == 2
    assert says in errors
    assert len(errors.splitlines()) == 1, errors
