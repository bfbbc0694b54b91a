"""The comparison: the order of its blocks, what its tables claim, and what it does when stopped."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.advice import fitting
from bench.compare import compare_all, find_all
from bench.experiments import EXPERIMENTS, Experiment, Figures, Subject, Unfit
from bench.overview import overview
from bench.page import page
from bench.peers import PEERS, Peer, process
from bench.peers.base import ROOT, Missing, Policy, PythonPeer
from bench.peers.process import free_port
from bench.plan import passes, places, seconds, steps
from bench.progress import Progress
from bench.results import Block, Figure, Group, PeerInfo, Result, Series
from bench.table import NO_TWIN, UNRESOLVED, group_rows, render
from gserver.net.listeners import system_backlog
from gserver.probe.procstat import process_tree
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


def run_all(
    experiments: Sequence[Experiment],
    caps: Sequence[int],
    peers: Sequence[Peer],
    rounds: int,
    run: Progress | None = None,
) -> Result:
    found = Result({"command_line": []}, 1, {}, {}, groups=[])
    compare_all(steps(experiments, caps, peers, rounds), peers, found, run or quiet_run())
    return found


def test_first_of_a_policy_that_has_several_runs_once_more_at_the_end_of_its_group() -> None:
    order = places(Asked(), [*CLOSERS, QUEUE])
    assert [(place.peer.name, place.twin) for place in order] == [
        ("asyncio", False),
        ("threading-semaphore", False),
        ("asyncio", True),
        ("sequential", False),
    ]
    assert {place.group for place in order[:3]} == {"fin"}


def test_server_that_has_its_policy_to_itself_runs_once_more_too() -> None:
    (only, twin) = places(Asked(), [PEERS["asyncio"]])
    assert (only.twin, twin.twin, twin.peer) == (False, True, only.peer)
    found = run_all([Asked()], [3], [PEERS["asyncio"]], 3)
    assert [row[0] for row in group_rows(found.groups[0], found)] == [
        "server",
        "asyncio",
        "asyncio (A/A)",
    ]


def test_those_that_let_clients_wait_run_twice_where_the_admitted_are_asked() -> None:
    waiting = [PEERS["haproxy-maxconn"], QUEUE]
    order = places(EXPERIMENTS["isolation"], waiting)
    assert [(place.peer.name, place.twin) for place in order] == [
        ("haproxy-maxconn", False),
        ("sequential", False),
        ("haproxy-maxconn", True),
    ]
    assert not any(place.twin for place in places(EXPERIMENTS["storm"], waiting))


def test_experiment_that_makes_no_ratios_has_no_second_run() -> None:
    class Counts(Asked):
        figures = (Figure("number", "number"),)

    assert not any(place.twin for place in places(Counts(), CLOSERS))


def test_server_without_a_limit_is_left_out_unless_the_experiment_wants_it() -> None:
    assert places(Asked(), [PEERS["threading"]]) == []


class AtThree(Asked):
    name = "at-three"
    own_cap = 3
    rounds = 2


def test_what_does_not_depend_on_the_cap_is_done_at_one_cap_only() -> None:
    plan = steps([Asked(), AtThree()], (10, 1000), CLOSERS)
    assert [(step.experiment.name, step.cap, step.rounds) for step in plan] == [
        ("asked", 10, 6),
        ("asked", 1000, 6),
        ("at-three", 3, 2),
    ]


def test_a_round_of_everything_comes_before_the_next_round_of_anything() -> None:
    plan = steps([Asked(), AtThree()], (10,), CLOSERS)
    done = [(each.step.experiment.name, each.round) for each in passes(plan)]
    assert done[:4] == [("asked", 1), ("at-three", 1), ("asked", 2), ("at-three", 2)]
    assert done[4:] == [("asked", number) for number in range(3, 7)]


def test_plan_takes_as_long_as_its_parts() -> None:
    plan = steps([Asked(), AtThree()], (10, 1000), CLOSERS)
    blocks = 3 * 6 + 3 * 6 + 3 * 2
    assert seconds(plan, 0) == pytest.approx(0.1 * blocks)


def test_whole_comparison_of_all_servers_is_planned_for_less_than_an_hour() -> None:
    # Of the machine it was tried on: what a round takes is stated by each experiment.
    everybody = list(PEERS.values())
    plan = steps(list(EXPERIMENTS.values()), (10, 1000), everybody)
    assert seconds(plan, len(everybody)) < 60 * 60
    quick = [each for each in EXPERIMENTS.values() if each.quick]
    assert seconds(steps(quick, (10,), everybody, 1), len(everybody)) < 5 * 60


def test_every_block_is_a_fresh_server_and_every_second_round_runs_backwards() -> None:
    asked = Asked()
    (group,) = run_all([asked], [3], CLOSERS, 2).groups
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
        self.peers.append(subject.peer.name)
        raise Unfit("the client was at fault")


def test_server_that_does_not_start_is_named_and_the_others_go_on() -> None:
    found = run_all([Asked()], [3], [QUEUE, Dies()], 2)
    assert [series.peer for series in found.groups[0].series] == ["sequential"]
    assert None not in found.groups[0].series[0].values("number")
    (gap,) = found.gaps()
    assert gap.startswith("dies did not start")
    assert "no_such_server" in gap
    assert gap.splitlines()[0] in render(found)


def test_block_with_the_client_at_fault_is_tried_twice_and_leaves_a_gap_that_is_named() -> None:
    refuses = Refuses()
    found = run_all([refuses], [3], [QUEUE], 1)
    assert len(refuses.peers) == 2
    (block,) = found.groups[0].series[0].blocks
    assert (block.figures, block.failed) == ({}, "the client was at fault")
    assert found.gaps() == ["asked, cap 3, round 1, sequential: the client was at fault"]
    assert "MISSING BLOCKS:\n  asked, cap 3, round 1, sequential" in render(found)


def test_block_that_succeeds_the_second_time_says_why_it_was_repeated() -> None:
    class Once(Asked):
        def measure(self, subject: Subject, run: Run) -> Figures:
            if not self.peers:
                self.peers.append("")
                raise Unfit("too slow")
            return super().measure(subject, run)

    found = run_all([Once()], [3], [QUEUE], 1)
    (block,) = found.groups[0].series[0].blocks
    assert block.figures == {"number": 2.0}
    assert block.warnings == ["measured a second time; the first: too slow"]
    assert found.gaps() == []


def test_warnings_of_a_run_are_marked_at_its_row_and_printed() -> None:
    class Warns(Asked):
        def measure(self, subject: Subject, run: Run) -> Figures:
            subject.warnings.append(f"slip {len(self.peers)} us")
            return super().measure(subject, run)

    found = run_all([Warns()], [3], [QUEUE], 2)
    text = render(found, details=True)
    assert "sequential [1]" in text
    assert "[1] sequential: rounds 1, 2: slip 0 us" in text
    assert "rounds 1, 2: slip 0 us" in page(found)


def test_what_was_being_measured_when_it_was_stopped_does_not_count() -> None:
    run = quiet_run()

    class Stops(Asked):
        def measure(self, subject: Subject, run: Run) -> Figures:
            if self.peers:
                run.stop("enough")
                raise RuntimeError("half-done")
            return super().measure(subject, run)

    found = run_all([Stops()], [3], CLOSERS, 2, run)
    blocks = [[block.figures for block in series.blocks] for series in found.groups[0].series]
    assert blocks == [[{"number": 1.0}], [], []]
    assert found.partial == "enough"


def test_figures_better_than_ours_are_marked_and_only_where_clients_see_the_same() -> None:
    half = [value / 2 for value in STEADY]
    found = result(
        series("gserver-close", TWICE),
        series("b", STEADY),
        Series("c", "queue", False, [Block({"p50": value}) for value in half]),
        series("gserver-close", [2 * value for value in AGAIN], twin=True),
    )
    group = found.groups[0]
    group.experiment, group.figures = "storm", [Figure("p50", "p50", "us", compared=True)]
    for key in ("p99", "cpu", "time_wait", "unanswered"):
        group.figures.append(Figure(key, key))
    for row in group.series:
        for block in row.blocks:
            block.figures["p50"] = block.figures.pop("number", None) or block.figures["p50"]
    table = overview(found)
    assert [(mark.peer, mark.column.key, mark.cap) for mark in table.ahead] == [("b", "p50", 10)]
    assert table.ahead[0].ratio == pytest.approx(0.5, abs=0.01)
    texts = {row.peer: row.cells[0].text for row in table.rows}
    assert texts == {"gserver-close": "200", "b": "100*", "c": "50"}


def test_count_is_better_only_when_it_is_in_every_round() -> None:
    def burst(peer: str, counts: Sequence[float]) -> Series:
        return Series(peer, "fin", False, [Block({"unanswered": count}) for count in counts])

    found = result(burst("gserver-close", [3, 5]), burst("b", [0, 3]), burst("c", [0, 2]))
    found.groups[0].experiment = "burst"
    found.groups[0].figures = [Figure("unanswered", "unanswered", over="max")]
    assert [mark.peer for mark in overview(found).ahead] == ["c"]


def test_fewer_time_waits_are_better_but_not_by_a_few_that_were_not_found() -> None:
    def storm(peer: str, counts: Sequence[float]) -> Series:
        figures = dict.fromkeys(("p50", "p99", "cpu", "unanswered"))
        return Series(
            peer, "fin", False, [Block({**figures, "time_wait": each}) for each in counts]
        )

    found = result(
        storm("gserver-close", [1.0, 1.0]), storm("b", [0.0, 0.5]), storm("c", [0.998, 0.999])
    )
    found.groups[0].experiment = "storm"
    found.groups[0].figures = [
        Figure(key, key) for key in ("p50", "p99", "cpu", "time_wait", "unanswered")
    ]
    marks = [(mark.peer, mark.column.key) for mark in overview(found).ahead]
    assert marks == [("b", "time_wait")]


def test_missing_server_is_named_with_its_install_line() -> None:
    class Absent(Peer):
        name = "absent"

        def find(self) -> None:
            raise Missing("absentd", "apt-get install absentd")

    found, missing = find_all([QUEUE, Absent()])
    assert found == [QUEUE]
    assert missing == {"absent": "absentd is missing: apt-get install absentd"}


def series(peer: str, values: Sequence[float | None], *, twin: bool = False) -> Series:
    return Series(peer, "fin", twin, [Block({"number": value}) for value in values])


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
def test_fewer_than_three_whole_rounds_give_no_ratio(last: float | None) -> None:
    rows = series("a", STEADY[:3]), series("b", [*TWICE[:2], last])
    text = ratios(result(*rows, series("a", AGAIN[:3], twin=True)))
    assert text["b"] == "~"


def test_three_rounds_give_a_ratio_with_the_smallest_and_the_largest() -> None:
    rows = series("a", STEADY[:3]), series("b", [200.0, 202.0, 297.0])
    text = ratios(result(*rows, series("a", AGAIN[:3], twin=True)))
    assert text["b"] == "2.29 [2.00, 3.00]"


def test_mark_of_what_is_not_resolved_is_explained_below_a_table_that_has_it() -> None:
    few = result(series("a", STEADY[:2]), series("b", TWICE[:2]), series("a", AGAIN[:2], twin=True))
    many = result(series("a", STEADY), series("b", TWICE), series("a", AGAIN, twin=True))
    for show in (lambda found: render(found, details=True), page):
        assert UNRESOLVED in show(few)
        assert UNRESOLVED not in show(many)


def test_server_of_a_group_where_nobody_ran_twice_is_said_not_to_be_compared() -> None:
    found = result(series("a", STEADY), series("b", TWICE))
    assert ratios(found) == {"a": "1", "b": "not compared"}
    for show in (lambda found: render(found, details=True), page):
        assert NO_TWIN in show(found)
        assert UNRESOLVED not in show(found)


def test_remark_on_several_servers_is_one_note_in_the_words_of_the_worst() -> None:
    found = result(series("a", STEADY[:3]), series("b", TWICE[:3]), series("c", TWICE[:3]))
    found.groups[0].experiment = "memory"
    found.groups[0].figures = [Figure("pss", "PSS")]
    rows = found.groups[0].series
    for block in (block for row in rows for block in row.blocks):
        block.figures = {"pss": 1.0}
    rows[0].blocks[0].warnings += ["control: slip p99 900 us", "flood, victims: slip p99 1000 us"]
    rows[0].blocks[2].warnings.append("slip p99 50 us")
    rows[1].blocks[1].warnings += ["slip p99 10 us", "7 rst instead of fin"]
    table = overview(found)
    assert table.notes == [
        "slip p99 1000 us, at worst (memory; blocks: a 2/3, b 1/3)",
        "7 rst instead of fin (memory; blocks: b 1/3)",
    ]
    assert [row.peer + row.mark for row in table.rows] == ["a [1]", "b [1, 2]", "c"]


def test_advice_to_use_an_option_that_a_command_lacks_is_left_out() -> None:
    text = "the client was saturated: 95% of a core; lower --rate or raise --processes"
    assert fitting(text) == "the client was saturated: 95% of a core"
    assert fitting(text, {"--rate", "--processes"}) == text
    assert fitting("no ports; raise the limit; give --cap", {"--cap-x"}) == (
        "no ports; raise the limit"
    )


def test_server_that_ran_in_no_block_has_a_dash() -> None:
    found = result(series("a", STEADY), series("b", [None] * 6), series("a", AGAIN, twin=True))
    rows = list(group_rows(found.groups[0], found))
    assert rows[2] == ["b", "fin", "-", "-"]


def test_result_comes_back_from_json_as_it_was() -> None:
    found = result(series("a", STEADY), series("a", AGAIN, twin=True))
    found.groups[0].series[0].blocks[0].warnings.append("slow")
    found.failed["c"] = "ended"
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
    found.groups[0].series[0].blocks[0].warnings.append("<slow>")
    found.partial = "interrupted"
    text = page(found)
    for word in ("a (A/A)", "b&lt;c&gt;", "round 1: &lt;slow&gt;", "Partial: interrupted"):
        assert word in text
    assert text.count("<svg") == 2  # of all figures together, and of this one
    for remote in ("http:", "https:", "<script", "<link", "src="):
        assert remote not in text


def test_figure_that_no_server_has_is_left_out_of_the_plots() -> None:
    found = result(series("a", [None] * 6), series("a", [None] * 6, twin=True))
    found.groups[0].figures = [Figure("number", "number", "us", compared=True, plotted=True)]
    assert page(found).count("<svg") == 1  # of all figures together


def bench(*words: str, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", *words]
    if before:
        command = ["sh", "-c", f'{before}; exec "$@"', "sh", *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_table_is_made_again_from_the_json_of_a_comparison(tmp_path: Path) -> None:
    file, html = str(tmp_path / "result.json"), tmp_path / "result.html"
    words = ["--peer", "asyncio", "--experiment", "storm", "--caps", "20", "--rounds", "2"]
    with bench("compare", *words, "--json", file) as comparing:
        table, progress = comparing.communicate()
    assert comparing.returncode == 0, progress
    assert table.startswith("server ")
    assert "storm, cap 20, round 2 of 2, asyncio" in progress
    assert progress.startswith("planned: ")
    with bench("show", file, "--html", str(html)) as showing:
        assert showing.communicate()[0] == table
    assert "<svg" in html.read_text()
    found = json.loads(Path(file).read_text())
    assert found["environment"]["command_line"][:4] == ["python", "-m", "bench", "compare"]
    assert str(tmp_path) not in json.dumps(found)
    assert found["peers"]["asyncio"]["backlog"] == system_backlog()


def test_limit_on_open_files_is_raised_before_a_thousand_are_held() -> None:
    words = ["--peer", "asyncio", "--experiment", "memory", "--rounds", "1"]
    with bench("compare", *words, before="ulimit -Sn 100") as comparing:
        table, progress = comparing.communicate()
    assert comparing.returncode == 0, table + progress


def test_missing_blocks_make_the_exit_status_3_and_are_named() -> None:
    program = (
        "from bench.peers import PEERS; type(PEERS['asyncio']).server = 'no_such_server';"
        "from bench.__main__ import main; main()"
    )
    words = ["compare", "--peer", "asyncio", "--experiment", "memory", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "MISSING BLOCKS:\n  asyncio did not start" in done.stdout


def children(pid: int) -> set[int]:
    return set(process_tree(pid)) - {pid}


def test_interrupted_comparison_gives_what_it_has_marked_partial_and_ends_its_servers(
    tmp_path: Path,
) -> None:
    files = [tmp_path / "result.json", tmp_path / "result.html"]
    words = ["--experiment", "storm", "--rounds", "1000", "--caps", "5", "--peer", "asyncio"]
    started: set[int] = set()
    with bench("compare", *words, "--json", str(files[0]), "--html", str(files[1])) as comparing:
        assert comparing.stderr is not None
        for line in comparing.stderr:
            started |= children(comparing.pid)
            if re.search("round ([2-9]|[1-9][0-9]+) of", line):
                break
        started |= children(comparing.pid)
        comparing.send_signal(signal.SIGINT)
        table, _ = comparing.communicate()
    assert comparing.returncode == 3
    assert "PARTIAL: interrupted by SIGINT" in table
    assert "asyncio" in table
    found = Result.from_json(json.loads(files[0].read_text()))
    assert found.partial == "interrupted by SIGINT"
    assert found.groups[0].series[0].blocks
    assert "Partial: interrupted by SIGINT" in files[1].read_text()
    assert started, "no server was seen"
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_comparison_interrupted_before_its_first_figure_is_partial_all_the_same(
    tmp_path: Path,
) -> None:
    file, html = tmp_path / "result.json", tmp_path / "result.html"
    words = ["--peer", "asyncio", "--peer", "sequential", "--json", str(file), "--html", str(html)]
    with bench("compare", *words) as comparing:
        assert comparing.stderr is not None
        assert any("looking at" in line for line in comparing.stderr)
        comparing.send_signal(signal.SIGINT)
        table, errors = comparing.communicate()
    assert comparing.returncode == 3, errors
    assert "PARTIAL: interrupted by SIGINT" in table
    assert "Traceback" not in errors
    found = Result.from_json(json.loads(file.read_text()))
    assert (found.groups, found.partial) == ([], "interrupted by SIGINT")
    assert "Partial" in html.read_text()


def test_port_that_is_taken_is_not_given_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            other = free.getsockname()[1]
        tried = iter([port, port, other])
        monkeypatch.setattr("random.SystemRandom.choice", lambda self, ports: next(tried))
        assert free_port() == other


def test_server_whose_port_another_was_given_is_started_again_on_a_free_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr(process, "free_port", lambda: ports.pop() if ports else free_port())
        found = run_all([Asked()], [3], [PEERS["asyncio"]], 1)
    assert ports == []
    assert found.gaps() == []
    assert found.peers["asyncio"].backlog == system_backlog()


def test_report_without_room_on_its_disk_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    file = str(tmp_path / "result.json")
    with bench("compare", "--json", file, before="ulimit -f 16") as comparing:
        _, errors = comparing.communicate()
    assert comparing.returncode == 2
    assert "result.json: cannot be written: File too large" in errors
    assert "planned" not in errors
    assert list(tmp_path.iterdir()) == []


def test_report_that_cannot_be_written_in_the_end_is_one_line_and_the_others_are_delivered(
    tmp_path: Path,
) -> None:
    file, html = tmp_path / "result.json", tmp_path / "result.html"
    file.write_text(json.dumps(result(series("a", STEADY)).to_json()))
    words = ["--json", "/dev/full", "--html", str(html)]
    with bench("show", str(file), *words) as showing:
        _, errors = showing.communicate()
    assert showing.returncode == 2
    assert errors == "/dev/full: not written: No space left on device\n"
    assert "<svg" in html.read_text()


def test_nothing_to_measure_is_a_usage_error() -> None:
    with bench("compare", "--peer", "threading", "--experiment", "storm") as comparing:
        _, errors = comparing.communicate()
    assert comparing.returncode == 2
    assert "nothing to measure: none of these experiments fits" in errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "--caps", "10,few"], "10,1000"),
        (["compare", "--caps", "10000000"], "ulimit"),
        (["compare", "--rounds", "0"], "rounds"),
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
    assert len(errors.splitlines()) == 1
