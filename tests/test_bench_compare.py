"""The comparison: the order of its blocks, what its tables claim, and what it does when stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.compare import find_all, places, run_group
from bench.experiments import Experiment, Figures, Subject, Unfit
from bench.page import page
from bench.peers import PEERS, Peer
from bench.peers.base import ROOT, Missing, Policy, PythonPeer
from bench.progress import Progress
from bench.results import Figure, Group, PeerInfo, Result, Series, merged
from bench.table import group_rows, render
from gserver.probe.run import Run

CLOSERS = [PEERS["asyncio"], PEERS["threading-semaphore"]]
QUEUE = PEERS["sequential"]


class Asked(Experiment):
    """Notes whom it was put to, and answers with a figure at once."""

    name = "asked"
    title = "Asked"
    seconds = 0.1
    figures = (Figure("number", "number", "us", compared=True),)

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.pids: set[int] = set()

    def measure(self, subject: Subject, run: Run) -> Figures:
        self.peers.append(subject.peer.name)
        self.pids.add(subject.running.pid)
        return {"number": float(len(self.peers))}


def quiet_run() -> Progress:
    return Progress(60.0, stream=None)


def test_first_of_each_policy_runs_once_more_at_the_end_of_its_group() -> None:
    order = places(Asked(), [*CLOSERS, QUEUE])
    assert [(place.peer.name, place.twin) for place in order] == [
        ("asyncio", False),
        ("threading-semaphore", False),
        ("asyncio", True),
        ("sequential", False),
        ("sequential", True),
    ]
    assert {place.group for place in order[:3]} == {"fin"}


def test_server_without_a_limit_is_left_out_unless_the_experiment_wants_it() -> None:
    assert places(Asked(), [PEERS["threading"]]) == []


def test_every_block_is_a_fresh_server_and_every_second_runs_backwards() -> None:
    asked = Asked()
    group = run_group(asked, 3, CLOSERS, 2, quiet_run())
    there = ["asyncio", "threading-semaphore", "asyncio"]
    assert asked.peers == there + there[::-1]
    assert len(asked.pids) == 6
    assert [series.values("number") for series in group.series] == [[1, 6], [2, 5], [3, 4]]


class Dies(PythonPeer):
    name = "dies"
    title = "Dies"
    policy = Policy.QUEUE
    counts = "nothing"
    server = "no_such_server"


class Refuses(Asked):
    def measure(self, subject: Subject, run: Run) -> Figures:
        raise Unfit("the client was at fault")


def test_server_that_fails_is_noted_and_the_others_go_on() -> None:
    asked = Asked()
    group = run_group(asked, 3, [QUEUE, Dies()], 2, quiet_run())
    sequential, dies, _ = group.series
    assert dies.blocks == [{}, {}]
    assert "no_such_server" in dies.notes[0]
    assert None not in sequential.values("number")


def test_block_with_the_client_at_fault_has_no_figure_and_a_note() -> None:
    group = run_group(Refuses(), 3, [QUEUE], 2, quiet_run())
    assert group.series[0].blocks == [{}, {}]
    assert group.series[0].notes == [
        "block 1: the client was at fault",
        "block 2: the client was at fault",
    ]


def test_what_was_being_measured_when_it_was_stopped_does_not_count() -> None:
    run = quiet_run()

    class Stops(Asked):
        def measure(self, subject: Subject, run: Run) -> Figures:
            if self.peers:
                run.stop("enough")
            return super().measure(subject, run)

    group = run_group(Stops(), 3, [QUEUE], 2, run)
    assert [series.blocks for series in group.series] == [[{"number": 1.0}], []]


def test_missing_server_is_named_with_its_install_line() -> None:
    class Absent(Peer):
        name = "absent"

        def find(self) -> None:
            raise Missing("absentd", "apt-get install absentd")

    found, missing = find_all([QUEUE, Absent()])
    assert found == [QUEUE]
    assert missing == {"absent": "absentd is missing: apt-get install absentd"}


def series(peer: str, values: Sequence[float | None], *, twin: bool = False) -> Series:
    return Series(peer, "fin", twin, [{"number": value} for value in values])


def result(*rows: Series) -> Result:
    figures = [Figure("number", "number", "us", compared=True)]
    info = PeerInfo("", "", "fin", "", "", 128)
    return Result(
        environment={"kernel": "Linux", "command_line": ["python"]},
        seed=1,
        peers={row.peer: info for row in rows},
        missing={},
        groups=[Group("asked", "Asked", 10, figures, list(rows))],
    )


STEADY = [100.0, 101.0, 99.0, 100.0, 102.0, 98.0]
AGAIN = [101.0, 100.0, 100.0, 99.0, 100.0, 101.0]
TWICE = [2 * value for value in STEADY]


def ratios(found: Result) -> dict[str, str]:
    header, *rows = group_rows(found.groups[0], found)
    assert header[-1] == "ratio"
    return {row[0]: row[-1] for row in rows}


def test_resolved_difference_is_printed_with_its_interval() -> None:
    text = ratios(result(series("a", STEADY), series("b", TWICE), series("a", AGAIN, twin=True)))
    assert text["a"] == "1"
    assert text["b"].startswith("2.00 [")
    assert text["a (A/A)"].startswith("A/A [")


def test_difference_inside_the_band_is_printed_as_not_resolved() -> None:
    near = [101.0, 99.5, 100.0, 101.0, 99.0, 100.0]
    text = ratios(result(series("a", STEADY), series("b", near), series("a", AGAIN, twin=True)))
    assert text["b"].startswith("~")


@pytest.mark.parametrize("last", [None, 0.0])
def test_fewer_than_six_whole_blocks_give_no_ratio(last: float | None) -> None:
    five = [*TWICE[:5], last]
    text = ratios(result(series("a", STEADY), series("b", five), series("a", AGAIN, twin=True)))
    assert text["b"] == "~"


def test_server_that_ran_in_no_block_has_a_dash() -> None:
    found = result(series("a", STEADY), series("b", [None] * 6), series("a", AGAIN, twin=True))
    rows = list(group_rows(found.groups[0], found))
    assert rows[2] == ["b", "fin", "-", "~"]


def test_result_comes_back_from_json_as_it_was() -> None:
    found = result(series("a", STEADY), series("a", AGAIN, twin=True))
    found.groups[0].series[0].notes.append("block 1: slow")
    found.partial = "interrupted"
    again = Result.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert render(again) == render(found)


def test_result_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        Result.from_json({"format": 99})


def test_page_shows_every_row_and_fetches_nothing() -> None:
    found = result(series("a", STEADY), series("b<c>", TWICE), series("a", AGAIN, twin=True))
    found.groups[0].figures = [Figure("number", "number", "us", compared=True, plotted=True)]
    found.groups[0].series[0].notes.append("block 1: <slow>")
    found.partial = "interrupted"
    text = page(found)
    for word in ("a (A/A)", "b&lt;c&gt;", "block 1: &lt;slow&gt;", "Partial: interrupted"):
        assert word in text
    assert text.count("<svg") == 1
    for remote in ("http:", "https:", "<script", "<link", "src="):
        assert remote not in text


def test_figure_that_no_server_has_is_left_out_of_the_plots() -> None:
    found = result(series("a", [None] * 6), series("a", [None] * 6, twin=True))
    found.groups[0].figures = [Figure("number", "number", "us", compared=True, plotted=True)]
    assert "<svg" not in page(found)


def test_short_runs_add_up_to_a_long_one() -> None:
    halves = [
        result(
            series("a", STEADY[i:j]), series("b", TWICE[i:j]), series("a", AGAIN[i:j], twin=True)
        )
        for i, j in ((0, 2), (2, 6))
    ]
    whole = result(series("a", STEADY), series("b", TWICE), series("a", AGAIN, twin=True))
    assert merged(halves) == whole
    assert len(halves[0].groups[0].series[0].blocks) == 2


def test_server_installed_in_one_of_the_runs_is_not_missing() -> None:
    without = result(series("a", STEADY))
    without.missing["b"] = "b is missing"
    assert merged([without, result(series("b", TWICE))]).missing == {}


def test_runs_of_different_machines_are_not_taken_together() -> None:
    elsewhere = result(series("a", STEADY))
    elsewhere.environment = {"kernel": "another"}
    with pytest.raises(ValueError, match="kernel differs"):
        merged([result(series("a", STEADY)), elsewhere])


def test_runs_with_different_versions_of_a_peer_are_not_taken_together() -> None:
    newer = result(series("a", STEADY))
    newer.peers["a"] = PeerInfo("", "", "fin", "", "2.0", 128)
    with pytest.raises(ValueError, match="a differs"):
        merged([result(series("a", STEADY)), newer])


def bench(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_table_is_made_again_from_the_json_of_a_comparison(tmp_path: Path) -> None:
    file, html = str(tmp_path / "result.json"), tmp_path / "result.html"
    words = ["--peer", "asyncio", "--experiment", "memory", "--cap", "20", "--blocks", "2"]
    with bench("compare", *words, "--json", file) as comparing:
        table, progress = comparing.communicate()
    assert comparing.returncode == 0, progress
    assert "asyncio (A/A)" in table
    assert "memory, cap 20" in progress
    with bench("show", file, "--html", str(html)) as showing:
        assert showing.communicate()[0] == table
    assert html.read_text().count("<svg") == 1
    found = json.loads(Path(file).read_text())
    assert found["environment"]["command_line"][:4] == ["python", "-m", "bench", "compare"]
    assert str(tmp_path) not in json.dumps(found)
    assert found["peers"]["asyncio"]["backlog"] == 100


def test_interrupted_comparison_gives_what_it_has_marked_partial_and_exits_3() -> None:
    words = ["--peer", "asyncio", "--experiment", "memory", "--cap", "20", "--blocks", "1000"]
    with bench("compare", *words) as comparing:
        assert comparing.stderr is not None
        assert any("block" in line for line in comparing.stderr)
        comparing.send_signal(signal.SIGINT)
        table, _ = comparing.communicate()
    assert comparing.returncode == 3
    assert "PARTIAL: interrupted by SIGINT" in table
    assert "asyncio" in table


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "--blocks", "3"], "even"),
        (["compare", "--peer", "iis"], "asyncio"),
        (["compare", "--time-limit", "0"], "time-limit"),
        (["show", "README.md"], "no results"),
    ],
)
def test_usage_error_names_the_setting_and_exits_2(words: list[str], says: str) -> None:
    with bench(*words) as ended:
        errors = ended.communicate()[1]
    assert ended.returncode == 2
    assert says in errors
    assert "Traceback" not in errors
