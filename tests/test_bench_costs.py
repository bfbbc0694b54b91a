"""Every cost script: small, with its figures as JSON, and partial when it is interrupted."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench import held_memory, sweep_cost
from bench.costs import words
from bench.flood import AT_ONCE, flood, spread
from bench.pairs import abba
from bench.peers.base import ROOT
from bench.reject_cost import percentile, percentiles
from gserver.probe.pacing import ConstantRate

#: Command, and words that make it small.
SMALL = {
    "refuse-cost": ["--clients", "50"],
    "reply-cost": ["--clients", "20", "--rounds", "1"],
    "rules-cost": ["--sources", "4000"],
    "held-memory": ["--held", "20"],
    "sweep-cost": ["--held", "20", "--seconds", "0.2"],
    "tcp-info-cost": ["--calls", "100"],
    "legacy-cost": ["--sets", "1", "--rounds", "1", "--connections", "50", "--held", "20"],
}


def bench(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", list(SMALL))
def test_script_states_its_time_and_writes_what_it_printed(name: str, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    with bench("-m", "bench", name, *SMALL[name], "--json", str(file)) as running:
        text, progress = running.communicate()
    assert running.returncode == 0, progress
    assert progress.startswith("planned: ")
    found = json.loads(file.read_text())
    assert found["name"] == name
    assert found["partial"] == ""
    assert found["rows"]
    assert found["environment"]["command_line"][:4] == ["python", "-m", "bench", name]
    assert len(text.splitlines()) >= len(found["rows"])


@pytest.mark.long
def test_reject_cost_has_a_row_for_each_kind_of_client_and_a_verdict(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    with bench(
        "-m",
        "bench.reject_cost",
        "--held",
        "3",
        "--pairs",
        "1",
        "--rate",
        "1000",
        "--json",
        str(file),
    ) as running:
        text, errors = running.communicate()
    found = json.loads(file.read_text())
    # On a machine with much else to do it may be that not even this rate was kept.
    assert running.returncode == (3 if found["invalid"] else 0), errors
    assert [(row["held"], row["clients"]) for row in found["rows"]] == [(3, "close"), (3, "reset")]
    for row in found["rows"]:
        assert row["pair"]["us_a"] > 0
        assert len(row["pair"]["ratios"]) == 1
        assert row["pair"]["echo_us_a"]["n"] > 0
    assert [line for line in found["verdicts"] if "of 1.1: " in line]
    assert all(line in text for line in found["verdicts"])


def test_a_sweep_that_holds_the_loop_for_longer_than_it_may_misses_its_target() -> None:
    rows = [{"what": what, "late_ms": late} for what, late in (("quiet", 9), ("a", 5), ("b", 5.1))]
    assert list(sweep_cost.verdicts(rows)) == [
        "a: the loop 5.0 ms late of 5 (9.0 without timeouts): met",
        "b: the loop 5.1 ms late of 5 (9.0 without timeouts): missed",
    ]


def test_a_deferred_start_that_costs_more_than_it_may_misses_its_target() -> None:
    for pss, dirty, word in (1.5, 1.1, "met"), (1.1, 1.51, "missed"), (1.51, 1.1, "missed"):
        row = {"how": "deferred", "Pss": pss, "Private_Dirty": dirty}
        text = held_memory.verdict(row)
        assert text == f"deferred: {max(pss, dirty):.2f} KiB of 1.5: {word}"


@pytest.mark.long
def test_rules_are_put_to_a_few_sources_and_to_tens_of_thousands(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    words = ["--rules", "--held", "3", "--pairs", "1", "--rate", "1000", "--json", str(file)]
    with bench("-m", "bench", "reject-cost", *words) as running:
        text, errors = running.communicate()
    assert "Traceback" not in errors
    found = json.loads(file.read_text())
    assert [row["sources"] for row in found["rows"]] == [8, 8, 60_000, 60_000]
    assert len([line for line in found["verdicts"] if "60,000 sources: at most" in line]) == 2
    assert all(line in text for line in found["verdicts"])


@pytest.mark.long
def test_reject_cost_whose_client_does_not_keep_up_is_invalid(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    words = ["--held", "3", "--pairs", "1", "--rate", "100000", "--json", str(file)]
    with bench("-m", "bench", "reject-cost", *words) as running:
        text, errors = running.communicate()
    assert running.returncode == 3, errors
    found = json.loads(file.read_text())
    assert [line for line in found["invalid"] if "the rate was not kept" in line]
    assert all(f"INVALID: {line}" in text for line in found["invalid"])
    assert "--processes" not in text  # it has none


def test_flood_counts_what_each_client_saw() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        found = flood(port, ConstantRate(100, 0.1), reset=False, sources=spread(port))
    assert (found.planned, found.started, found.outcomes) == (10, 10, {"refused": 10})


def test_flood_that_has_no_room_for_an_arrival_has_started_fewer_than_planned() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        port = silent.getsockname()[1]
        found = flood(port, ConstantRate(1000, 0.1), reset=True, sources=spread(port))
    assert (found.planned, found.started, found.outcomes) == (100, AT_ONCE, {})


def test_percentile_of_too_few_samples_is_not_said() -> None:
    few, enough = ([1_000 * n for n in range(count)] for count in (900, 1_000))
    assert set(percentiles(few)) == {"p50", "p90", "n"}
    assert percentiles(enough)["p99"] == 989.0
    assert percentile(percentiles(few), "p99") == "-"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_script_gives_what_it_has_marked_partial(
    number: signal.Signals, tmp_path: Path
) -> None:
    file = tmp_path / "cost.json"
    words = ["--held", "3,4,5,6", "--pairs", "4", "--json", str(file)]
    with bench("-m", "bench", "reject-cost", *words) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.split()[:3] == ["3", "8", "close"]:
                break
        running.send_signal(number)
        rest, errors = running.communicate()
    assert running.returncode == 3, errors
    assert "PARTIAL: interrupted" in rest
    assert "Traceback" not in errors
    found = json.loads(file.read_text())
    assert found["partial"] == "interrupted"
    assert found["rows"][0]["clients"] == "close"
    assert len(found["rows"]) < 8


def test_file_that_could_not_be_written_is_refused_before_anything_is_measured() -> None:
    with bench("-m", "bench", "refuse-cost", "--json", "no-such-folder/cost.json") as running:
        _, errors = running.communicate()
    assert running.returncode == 2
    assert "no such folder" in errors
    assert "planned" not in errors


def test_every_command_is_listed_with_a_line_of_help() -> None:
    with bench("-m", "bench", "--help") as running:
        text, _ = running.communicate()
    for name in (*SMALL, "reject-cost", "legacy-settle", "compare", "readme"):
        assert f"  {name} " in text


def test_command_line_in_the_results_is_one_that_can_be_given_again() -> None:
    given = {"held": (10, 1000), "pairs": 8, "rules": True}
    assert words(given) == ["--held", "10,1000", "--pairs", "8", "--rules"]
    assert words({"program": ("a", "b"), "rules": False}) == ["--program", "a", "--program", "b"]
    assert words({"program": ()}) == []


def test_pairs_are_measured_there_and_back() -> None:
    done: list[str] = []

    def measured(name: str) -> int:
        done.append(name)
        return len(done)

    pairs = list(abba(lambda: measured("a"), lambda: measured("b"), 2))
    assert "".join(done) == "abbaabba"
    assert pairs == [((1, 4), (2, 3)), ((5, 8), (6, 7))]
