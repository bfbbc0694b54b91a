"""The README says what the results say, and nothing that they don't."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.compare_command import busy
from bench.experiments import EXPERIMENTS, storm
from bench.overview import overview
from bench.overview_plot import overview_plot
from bench.page import page
from bench.peers import PEERS
from bench.peers.base import ROOT
from bench.plan import seconds, steps
from bench.readme import PLACE, PLOT, README, RESULTS, SECTIONS, plot, rewritten
from bench.readme_sections import compared, refusing
from bench.results import Block, Figure, Group, PeerInfo, Result, Series, merged
from bench.table import render


def test_readme_and_plot_are_what_the_committed_results_give() -> None:
    text = README.read_text()
    assert rewritten(text, RESULTS) == text, "run: python -m bench readme"
    picture = plot(RESULTS)
    assert (PLOT.read_text() if PLOT.exists() else None) == picture, "run: python -m bench readme"


def test_readme_has_a_place_for_each_result() -> None:
    for name in SECTIONS:
        assert f"<!-- bench {name} -->\n" in README.read_text()


#: Figures with a unit that the README has outside of those places, and what they are: settings.
#: Whatever was measured belongs into a place.
SET = {
    "5 ms": "the settle of exec",
    "4 ms": "a tick of the kernel's clock at 250 Hz",
    "10 ms": "the quiet-time of the probe",
}

#: A table that another command writes, with a test of its own (tests/legacy), and examples.
BY_OTHERS = re.compile(r"<!-- by .*?<!-- end -->", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)

FIGURE = re.compile(r"[0-9][0-9.,]* ?(?:µs|us|ms|KiB|MiB|%|bytes)")


def test_every_measured_figure_of_the_readme_is_written_by_a_command() -> None:
    text = README.read_text()
    for place in (PLACE, BY_OTHERS, CODE):
        text = place.sub("", text)
    assert set(FIGURE.findall(text)) == set(SET)


def test_readme_says_how_long_a_comparison_takes() -> None:
    everybody = list(PEERS.values())

    def minutes(quick: bool) -> int:
        chosen = [each for each in EXPERIMENTS.values() if each.quick or not quick]
        plan = steps(chosen, (10,) if quick else (10, 1_000), everybody, 1 if quick else None)
        return round(seconds(plan, len(everybody)) / 60)

    text = " ".join(README.read_text().split())
    assert (
        f"in about {minutes(False)} minutes; `--quick` gives a first look in {minutes(True)}."
        in (text)
    )


def series(peer: str, values: Sequence[float], *, twin: bool = False) -> Series:
    blocks = [Block({"p50": value, "p99": 2 * value, "cpu": value / 10}) for value in values]
    return Series(peer, "fin", twin, blocks)


def result(ours: float, theirs: float) -> Result:
    near = [0.99, 1.0, 1.02]
    figures = [Figure(key, key, "us", compared=True, plotted=True) for key in ("p50", "p99", "cpu")]
    figures += [Figure(key, key) for key in ("time_wait", "unanswered")]

    def rows() -> list[Series]:
        return [
            series("gserver-close", [ours * value for value in near]),
            series("peer", [theirs * value for value in near]),
            series("gserver-close", [ours * value for value in near[::-1]], twin=True),
        ]

    return Result(
        environment={
            "kernel": "6.1.0-9-amd64",
            "python": "3.11.2",
            "cpus": 2,
            "command_line": ["python"],
            "started_at": "2026-01-02T03:04:05Z",
        },
        seed=1,
        peers={
            name: PeerInfo(name, "", "fin", "", "1.0", 128) for name in ("gserver-close", "peer")
        },
        missing={"absent": "absentd is missing: apt-get install absentd"},
        groups=[Group("storm", "Storm", cap, figures, rows()) for cap in (10, 1_000)],
    )


def test_peer_that_is_ahead_is_said_to_be_by_the_ratio_that_was_measured() -> None:
    text = compared(result(100.0, 60.0))
    assert "- told p50: peer (0.60 at cap 10, 0.60 at cap 1,000)" in text
    assert "| peer | fin | 60\\* |" in text  # at both caps


def test_comparison_says_of_how_many_each_of_its_figures_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storm.Storm, "rate", 3_000.0)
    monkeypatch.setattr(storm.Storm, "duration", 2.0)
    text = compared(result(100.0, 60.0))
    assert "**told p50**: µs from connect to verdict, 3,000 a second, 5,400 a round" in text
    assert "**p99**: the same, which 54 of a round's exceed" in text
    assert "Medians of the 3 rounds, where nothing else is said." in text
    whole = compared(Result.from_json(json.loads((RESULTS / "compare.json").read_text())))
    assert "**last told**: µs until the last of those was, one a round;" in whole
    assert "the admitted, 1,080 a round, while 4,000 a second are turned away here" in whole


def test_peer_that_is_behind_is_not_said_to_be_ahead() -> None:
    text = compared(result(100.0, 160.0))
    assert "In none of these figures is a peer ahead" in text
    assert "\\* |" not in text


def test_too_few_rounds_say_nothing_of_who_is_ahead() -> None:
    found = result(100.0, 60.0)
    for group in found.groups:
        group.series = [
            Series(row.peer, row.group, row.twin, row.blocks[:2]) for row in group.series
        ]
    assert "it is not said who is ahead" in compared(found)


def test_what_qualifies_the_figures_is_in_the_readme() -> None:
    found = result(100.0, 60.0)
    found.groups[0].series[1].blocks[0].warnings.append("slip 9 us")
    found.groups[1].series[1].blocks[1] = Block(failed="it ended\nat once")
    found.partial = "interrupted"
    text = compared(found)
    assert "| peer<sup>1,2</sup> |" in text
    assert "1. slip 9 us (storm; blocks: peer 1/6)" in text
    assert "2. no figures: it ended at once (storm; blocks: peer 1/6)" in text
    assert "- storm, cap 1000, round 2, peer: it ended at once" in text
    assert "**Partial**: interrupted." in text
    assert "Not measured, because not installed: absent." in text
    assert "Python 3.11.2, Linux 6.1, 2 cores" in text


def late(response: float | None) -> Result:
    """A storm in which arrivals came late; None: from before the response latency was kept."""
    found = result(100.0, 60.0)
    for group in found.groups:
        group.series[0].blocks[1].warnings.append("arrivals started late: slip p99 900 us")
        if response is None:
            continue
        group.figures += [Figure(key, key, "us") for key in ("response_p50", "response_p99")]
        for block in (block for row in group.series for block in row.blocks):
            block.figures |= {"response_p50": response / 4, "response_p99": response}
    return found


def test_late_arrivals_are_said_with_what_they_add_to_the_p99_of_ours() -> None:
    said = "medians in µs: gserver-close 1,100 beside 200 / 1,100 beside 200."
    for show in (compared, page, lambda found: " ".join(render(found).split())):
        assert said in show(late(1_100.0))
        assert "response latency" not in show(late(None))
    quiet = late(1_100.0)
    for group in quiet.groups:
        group.series[0].blocks[1].warnings.clear()
    assert "response latency" not in compared(quiet)


def test_response_latency_is_in_the_tables_of_the_storm() -> None:
    assert "response_p99 (us)" in render(late(1_100.0), details=True)
    assert "<th>response_p99 (us)</th>" in page(late(1_100.0))


def cells(text: str, server: str) -> list[str]:
    """The cells of the comparison's row that begins with ``server``."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return next([cell.strip() for cell in line] for line in lines if server in line[0])


def test_rounds_far_apart_are_shown_by_their_range_and_no_figure_has_more_digits_than_two() -> None:
    found = result(123.4, 160.0)
    for group in found.groups:
        noisy = group.series[1].blocks
        for block, value in zip(noisy, (22.34, 231.9, 4.812), strict=True):
            block.figures["p50"] = value
    text = compared(found)
    assert cells(text, "gserver-close")[2:5] == ["120", "250", "12"]
    assert cells(text, "peer")[2] == "~4.8-230"


def test_row_below_ours_says_how_far_it_is_from_itself() -> None:
    found = result(100.0, 103.0)
    # Forth and back: the first round's 99 beside 102, the last one's 102 beside 99.
    assert cells(compared(found), "again (A/A)")[2] == "x1.03"
    assert cells(compared(found), "peer")[2] == "~100"
    for group in found.groups:
        group.series = [row for row in group.series if not row.twin]
    assert "| *again (A/A)* |" not in compared(found)


def test_ours_without_a_peer_of_its_kind_stands_beside_those_of_others() -> None:
    found = result(100.0, 60.0)
    churn = [Figure("tries", "tries", over="sum"), Figure("false", "false", over="sum")]

    def row(peer: str, group: str, false: float) -> Series:
        return Series(peer, group, False, [Block({"tries": 250.0, "false": false})] * 2)

    rows = [
        row("gserver-close", "fin", 0.0),
        row("peer", "fin", 0.0),
        row("gserver-refuse", "refused", 234.0),
        row("waits", "queue", 0.0),
    ]
    found.groups = [Group("churn", "Churn", cap, churn, rows) for cap in (10, 1_000)]
    for name, policy in (("gserver-refuse", "refused"), ("waits", "queue")):
        found.peers[name] = PeerInfo(name, "", policy, "", "1.0", 128)
    assert "- gserver-refuse, false: 468; peer 0\n" in compared(found)
    text = refusing(found)
    assert "`refuse` turned away 468 of 500 at cap 10, 468 of 500 at cap 1,000" in text
    assert "Of as many: `close` none." in text


def held(values: dict[str, float]) -> Result:
    found = result(100.0, 60.0)
    rows = [
        Series(name, "all", False, [Block({"pss": value * near}) for near in (0.99, 1.0, 1.01)])
        for name, value in values.items()
    ]
    twin = Series("gserver-close", "all", True, rows[0].blocks)
    figures = [Figure("pss", "server PSS", "KiB", compared=True)]
    found.groups = [Group("memory", "Memory", 1_000, figures, [*rows, twin])]
    for name in values:
        found.peers[name] = PeerInfo(name, "", "fin", "", "1.0", 128)
    return found


def test_memory_of_a_proxy_is_said_to_be_its_own_alone_and_not_to_be_better() -> None:
    text = compared(held({"gserver-close": 9.0, "tokio": 4.0, "nginx": 3.0}))
    assert (cells(text, "tokio")[2], cells(text, "nginx")[2]) == ("4\\*", "3")
    assert "(nginx: the proxy's alone" in text
    assert "- KiB: tokio (0.44 at cap 1,000)\n" in text


def flooded(goodput: Sequence[float]) -> Result:
    """Echoes of ours and of a peer, whose goodput is the same in all rounds."""
    found = result(100.0, 60.0)
    figures = [Figure("p50", "p50", "x", compared=True), Figure("p99", "p99", "x", compared=True)]
    figures.append(Figure("goodput", "goodput", "x"))

    def row(peer: str, p50: float, goodput: float, twin: bool = False) -> Series:
        echo = {"p50": p50, "p99": 3.0, "goodput": goodput}
        return Series(peer, "fin", twin, [Block(dict(echo)) for _ in range(3)])

    rows = [
        row("gserver-close", 1.084, goodput[0]),
        row("peer", 1.5, goodput[1]),
        row("gserver-close", 1.084, goodput[0], twin=True),
    ]
    found.groups = [
        Group("isolation", "Isolation", cap, figures, list(rows)) for cap in (10, 1_000)
    ]
    return found


def test_echo_of_the_admitted_is_shown_by_its_median_and_its_goodput_beside_the_p99() -> None:
    found = flooded([1.0, 0.998])
    text = compared(found)
    assert "| echo p50 x | echo p99 x | goodput x |" in text
    assert cells(text, "gserver-close")[2:] == ["1.08", "3", "1"]
    assert "In none of these figures is a peer ahead" in text
    picture = overview_plot(overview(found), found)
    assert "echo p50, flooded" in picture
    assert "gserver-close, cap 10: 1.08" in picture


def test_echo_of_those_that_queue_is_beside_how_far_it_is_from_itself_or_said_not_to_be() -> None:
    found = flooded([1.0, 1.0])
    for group in found.groups:
        for twin, p50 in ((False, 1.1), (True, 1.32)):
            blocks = [Block({"p50": p50, "p99": 3.0, "goodput": 1.0})] * 3
            group.series.append(Series("waits", "queue", twin, blocks))
    found.peers["waits"] = PeerInfo("waits", "", "queue", "", "1.0", 128)
    text = compared(found)
    lines = text.splitlines()
    below = lines[next(i for i, line in enumerate(lines) if line.startswith("| waits")) + 1]
    assert below == "| *again (A/A)* |  | x1.2 | x1 | - |"
    alone = "no row whose clients see the same{}: waits (echo p50 x, echo p99 x)."
    assert alone.format("") in text
    for group in found.groups:
        group.series.pop()
    assert alone.format(", and without an A/A") in compared(found)
    assert "Not compared" not in compared(flooded([1.0, 1.0]))


@pytest.mark.parametrize(("ours", "theirs", "mark"), [(0.9, 1.0, "\\*"), (1.0, 0.9, "")])
def test_more_goodput_is_better_and_less_is_not(ours: float, theirs: float, mark: str) -> None:
    text = compared(flooded([ours, theirs]))
    assert cells(text, "peer")[4] == f"{theirs:g}{mark}"
    assert ("- goodput x: peer" in text) == bool(mark)


@pytest.mark.parametrize(("machine", "has_column"), [(5.0, False), (50.0, True)])
def test_machine_counted_in_ticks_is_no_figure(machine: float, has_column: bool) -> None:
    found = result(100.0, 60.0)  # of which the server's CPU is a tenth
    for group in found.groups:
        group.figures.append(Figure("machine", "machine CPU", "us"))
        for block in (block for row in group.series for block in row.blocks):
            block.figures["machine"] = machine
    assert ("| machine |" in compared(found)) == has_column


def test_each_run_of_several_is_in_the_readme_with_its_date_load_and_rounds() -> None:
    first, second = result(100.0, 60.0), result(100.0, 60.0)
    first.environment["load_average"] = [0.25]
    second.environment |= {"started_at": "2026-01-05T03:04:05Z", "load_average": [1.4]}
    text = compared(merged([first, second]))
    assert (
        "2 servers, 6 rounds, Python 3.11.2, Linux 6.1, 2 cores, in 2 runs: 3 on 2026-01-02, load "
        "average 0.2 when it began; 3 on 2026-01-05, load average 1.4 when it began. Caps" in text
    )
    for group in second.groups:
        group.experiment = "flood"
        group.series = [
            Series(row.peer, row.group, row.twin, row.blocks[:2]) for row in group.series
        ]
    assert (
        "2 servers, 2 to 3 rounds, Python 3.11.2, Linux 6.1, 2 cores, in 2 runs: 3 of storm on "
        "2026-01-02, load average 0.2 when it began; 2 of flood on 2026-01-05, load average 1.4 "
        "when it began. Caps" in compared(merged([first, second]))
    )


@pytest.mark.parametrize(("load", "says"), [(0.2, ""), (1.24, "load average 1.24, above 0.5")])
def test_busy_machine_is_said_before_a_comparison_and_in_the_readme(load: float, says: str) -> None:
    assert says in busy(load)
    assert bool(busy(load)) == bool(says)
    found = result(100.0, 60.0)
    found.environment["load_average"] = [load, 1.0, 1.0]
    assert f"2 cores, load average {load:.1f} when it began. Caps" in compared(found)


def test_place_that_nobody_writes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        rewritten("<!-- bench nonsense -->\n<!-- /bench -->", tmp_path)


def test_plot_is_one_well_formed_picture_with_a_row_for_each_server() -> None:
    found = result(100.0, 60.0)
    text = overview_plot(overview(found), found)
    root = ElementTree.fromstring(text)
    names = [
        node.text for node in root.iter("{http://www.w3.org/2000/svg}text") if node.get("class")
    ]
    assert [name for name in names if name in found.peers] == ["gserver-close", "peer"]
    # Two caps, two panels, two servers.
    titles = list(root.iter("{http://www.w3.org/2000/svg}title"))
    assert len(titles) == 8
    assert titles[0].text == "gserver-close, cap 10: 100 to 200"
    assert "prefers-color-scheme: dark" in text


def test_check_changes_nothing_and_agrees() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "readme", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
