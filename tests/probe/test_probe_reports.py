"""Reports: no percentile that the samples do not carry, one page that needs nothing else."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import astuple
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scenario_run import run
from gserver.errors import SettingError
from gserver.probe.cap_report import report_cap
from gserver.probe.cli import probe
from gserver.probe.finding import CapFinding
from gserver.probe.flood import FloodResult
from gserver.probe.html_report import write_html
from gserver.probe.outcomes import CODE_OF, Outcome
from gserver.probe.plots import plots_of
from gserver.probe.records import Records
from gserver.probe.result import EXIT_INVALID, EXIT_PASS, EXIT_THRESHOLD, Result
from gserver.probe.stats import Summary, bootstrap_interval, most_at_once, quantile, summarise
from gserver.probe.storm import report_flood
from gserver.probe.svg import Axis, log_ticks, nice_ticks
from gserver.probe.text_report import render
from gserver.probe.threshold import parse_threshold
from gserver.probe.validity import REMEDIES, ClientHealth, judge


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (19, set()),
        (20, {"p50"}),
        (99, {"p50"}),
        (100, {"p50", "p90"}),
        (999, {"p50", "p90"}),
        (1000, {"p50", "p90", "p99"}),
        (10_000, {"p50", "p90", "p99", "p999"}),
    ],
)
def test_a_percentile_needs_ten_samples_beyond_it(count: int, shown: set[str]) -> None:
    summary = summarise(list(range(count)))
    assert set(summary.percentiles) == shown
    text = render(Result("storm", "t", latencies={"x": {"fin": summary}}), [])
    assert text.count(" -") == (4 - len(shown))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.floats(0.001, 0.999))
def test_a_quantile_is_a_sample_that_its_share_does_not_exceed(
    samples: list[int], share: float
) -> None:
    ordered = sorted(samples)
    value = quantile(ordered, share)
    assert value in ordered
    assert sum(s <= value for s in ordered) >= share * len(ordered)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=30))
def test_most_at_once_is_what_counting_at_every_instant_gives(spans: list[tuple[int, int]]) -> None:
    intervals = [(begin, begin + length) for begin, length in spans]
    counted = max(sum(b <= t < e for b, e in intervals) for t in range(80)) if spans else 0
    assert most_at_once(intervals) == counted


def test_the_bootstrap_is_repeatable_and_holds_the_mean() -> None:
    ratios = [0.9, 1.0, 1.1, 1.2, 0.95, 1.05]
    low, high = bootstrap_interval(ratios, seed=7)
    assert (low, high) == bootstrap_interval(ratios, seed=7)
    assert min(ratios) <= low < 1.03 < high <= max(ratios)


@pytest.mark.parametrize(
    ("text", "figures", "met"),
    [
        ("reject.p99<2ms", {"reject.p99": 0.0019}, True),
        ("reject.p99<2ms", {"reject.p99": 0.0021}, False),
        ("reject.p99 <= 500 us", {"reject.p99": 0.0005}, True),
        ("over_admissions==0", {"over_admissions": 0}, True),
        ("client_cpu<75%", {"client_cpu": 0.8}, False),
        ("hangs==0", {}, None),
    ],
)
def test_thresholds(text: str, figures: dict[str, float], met: bool | None) -> None:
    assert parse_threshold(text).check(figures) is met


@pytest.mark.parametrize("text", ["", "p99", "p99<", "<2ms", "p99<2min", "P99<2", "a=1"])
def test_a_threshold_that_cannot_be_read_is_the_users_fault(text: str) -> None:
    with pytest.raises(SettingError):
        parse_threshold(text)


def test_exit_statuses() -> None:
    threshold = parse_threshold("hangs==0")
    good, bad = Result("storm", "t", figures={"hangs": 0}), Result("x", "t", figures={"hangs": 1})
    assert good.exit_status(good.check([threshold])) == EXIT_PASS
    assert bad.exit_status(bad.check([threshold])) == EXIT_THRESHOLD
    for spoiled in (Result("x", "t", invalid=["why"]), Result("x", "t", partial="why")):
        assert spoiled.exit_status([]) == EXIT_INVALID
    unknown = Result("storm", "t")
    assert unknown.exit_status(unknown.check([threshold])) == EXIT_INVALID


def health(**changes: object) -> ClientHealth:
    values = {
        "cpu_shares": [0.5],
        "planned": 1000,
        "started": 1000,
        "dropped": 0,
        "slip_p99_s": 0.0001,
        "outcome_p99_s": 0.001,
        "local_errors": 0,
    }
    return ClientHealth(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "warned", "invalid"),
    [
        ({}, 0, 0),
        ({"cpu_shares": [0.2, 0.75]}, 1, 0),
        ({"cpu_shares": [0.2, 0.90]}, 0, 1),
        ({"started": 990}, 0, 0),
        ({"started": 989}, 0, 1),
        ({"local_errors": 1}, 0, 1),
        ({"slip_p99_s": 0.0006}, 1, 0),
        ({"slip_p99_s": 0.0006, "outcome_p99_s": 0.01}, 0, 0),
    ],
)
def test_when_a_run_does_not_count(changes: dict[str, object], warned: int, invalid: int) -> None:
    assert tuple(map(len, judge(health(**changes), "storm"))) == (warned, invalid)


@pytest.mark.parametrize("command", REMEDIES)
def test_what_is_advised_are_options_that_the_command_has(command: str) -> None:
    name = command.partition(",")[0]
    known = run if name == "run" else probe.commands[name]
    options = {option for parameter in known.params for option in parameter.opts}
    advised = set(re.findall(r"--[a-z-]+", " ".join(astuple(REMEDIES[command]))))
    assert advised
    assert advised <= options
    bad = health(cpu_shares=[0.95], started=1, local_errors=1)
    said = " ".join(judge(bad, command)[1])
    assert set(re.findall(r"--[a-z-]+", said)) == advised


def test_each_kind_of_rejection_has_its_own_latency_in_the_headline() -> None:
    """A refused client is told in microseconds: it must not make who is replied to look quick."""
    records = Records(6000)
    for i in range(6000):
        outcome, ns = [
            (Outcome.REFUSED, 20_000), (Outcome.MESSAGE, 900_000), (Outcome.QUEUED, 2_000_000_000)
        ][i % 3]  # fmt: skip
        records.intended[i] = records.started[i] = 1000 + i
        records.finished[i] = records.started[i] + ns
        records.outcome[i] = CODE_OF[outcome]
    result = Result("storm", "t")
    report_flood(result, FloodResult(records, 1000, 1.0, [0.1], 6000, 6000, 0, []))
    assert result.headline == (
        "3600 of 5401 told that they are rejected; 1800 message after p50 900 us, p99 900 us; "
        "1800 refused after p50 20 us, p99 20 us; without an answer: 1801 queued"
    )


@pytest.mark.parametrize(("fits", "warned"), [(0, 1), (1, 0), (2, 1)])
def test_a_place_that_not_exactly_one_more_fits_into_is_warned_of(fits: int, warned: int) -> None:
    result = Result("cap", "t")
    report_cap(result, CapFinding(limit=5, peak=5, fits_after_close=fits, tries_after_close=3))
    assert len([text for text in result.warnings if "one was closed" in text]) == warned


def storm_result(count: int = 3000) -> Result:
    records = Records(count)
    for i in range(count):
        outcome = Outcome.FIN if i % 3 else Outcome.HANG
        records.intended[i] = 1000 + i * 1_000_000
        records.started[i] = records.intended[i] + 40_000
        records.finished[i] = records.started[i] + 50_000 + (i * 7919) % 100_000
        records.outcome[i] = CODE_OF[outcome]
    result = Result("storm", "<host>:1", records=records, start_ns=1000, warm_up_s=0.3)
    result.lines.append(("policy", "a < b & c"))
    result.latencies["outcome latency"] = {"fin": summarise([50_000] * 3000)}
    return result


@pytest.mark.parametrize(
    ("silent", "known"),
    [
        (Outcome.HANG, True),
        (Outcome.QUEUED, True),  # who is never accepted waits as long as who is never served
        (Outcome.SYN_PENDING, True),
        (Outcome.UNKNOWN, False),
    ],
)
def test_who_hangs_is_counted_wherever_and_no_figure_where_nobody_can_say(
    silent: Outcome, known: bool
) -> None:
    records = Records(100)
    for i in range(100):
        records.intended[i] = records.started[i] = 1000 + i
        records.finished[i] = 2000 + i
        records.outcome[i] = CODE_OF[silent if i % 2 else Outcome.FIN]
    result = Result("storm", "t")
    report_flood(result, FloodResult(records, 1000, 1.0, [0.1], 100, 100, 0, []))
    assert ("hangs" in result.figures, "queued" in result.figures) == (known, known)
    assert result.figures.get("hangs") == (46 if known else None)  # a tenth is warm-up
    status = result.exit_status(result.check([parse_threshold("hangs==0")]))
    assert status == (EXIT_THRESHOLD if known else EXIT_INVALID)


def test_records_survive_the_way_between_processes() -> None:
    records = storm_result(50).records
    assert records is not None
    again = Records.from_bytes(records.to_bytes())
    assert list(again.rows()) == list(records.rows())


def test_the_page_is_one_file_and_well_formed() -> None:
    stream = io.StringIO()
    result = storm_result()
    write_html(stream, result, [(parse_threshold("hangs==0"), False)])
    page = stream.getvalue()
    assert not re.search(r"<script|https?:|src=|<link|@import|url\(", page)
    assert "&lt;host&gt;:1" in page
    assert "a &lt; b &amp; c" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "Latency by percentile" in page
    assert "tenths of the run" in page


def test_the_timeline_has_each_kind_of_rejection_apart() -> None:
    result = storm_result()
    assert result.records is not None
    for i in range(0, len(result.records), 2):
        result.records.outcome[i] = CODE_OF[Outcome.REFUSED]
        result.records.finished[i] = result.records.started[i] + 1_000
    for i in range(1, len(result.records), 2):
        result.records.outcome[i] = CODE_OF[Outcome.MESSAGE]
    drawings = {heading: drawing for heading, _, drawing in plots_of(result)}
    labels = set(re.findall(r">([a-z]+: (?:p50|p99|max))<", drawings["Timeline"]))
    assert labels >= {"refused: p50", "message: p50", "refused: max", "message: max"}


def test_a_threshold_and_what_became_of_it_are_in_the_json() -> None:
    result = Result("storm", "t", figures={"hangs": 1.0})
    checked = result.check([parse_threshold("hangs==0")])
    found = result.as_json("1", checked)
    assert found["thresholds"] == [{"text": "hangs==0", "met": False}]
    assert found["exit_status"] == EXIT_THRESHOLD


def test_the_page_begins_with_the_answer_and_ends_with_how_to_get_it_again() -> None:
    result = storm_result()
    result.headline = "told <at once>"
    result.environment = {"command_line": ["/some/where/gserver", "probe", "storm", "a b"]}
    stream = io.StringIO()
    write_html(stream, result, [])
    page = stream.getvalue()
    places = [
        page.index(part)
        for part in ("<h1>", "Told &lt;at once&gt;", "<dl>", "<svg", "<table", "Environment")
    ]
    assert places == sorted(places)
    assert "gserver probe storm &#x27;a b&#x27;" in page
    assert "/some/where" not in page
    assert render(result, []).splitlines()[1] == "  told <at once>"


def churn_result() -> Result:
    near = {"p50": 0.0, "p90": 1.0e-3, "p99": 1.05e-3}
    result = storm_result(500)
    result.command = "churn"
    result.latencies = {"freed-slot lag": {"joiners": Summary(2000, near, 1.1e-3)}}
    return result


def test_the_question_of_a_command_is_drawn_before_its_attempts() -> None:
    headings = [heading for heading, _, _ in plots_of(churn_result())]
    assert headings[0] == "freed-slot lag"
    assert len(headings) > 1


def test_labels_that_would_overlap_are_not_written_over_each_other() -> None:
    (_, _, drawing), *_ = plots_of(churn_result())
    places: dict[str, list[tuple[float, int]]] = {}
    for x, y, label in re.findall(
        r'<text x="([0-9.]+)" y="([0-9.]+)" text-anchor="middle">(p[0-9.]+|max)<', drawing
    ):
        places.setdefault(y, []).append((float(x), len(label)))
    assert sum(map(len, places.values())) >= 3
    for labels in places.values():
        labels.sort()
        for (x, size), (after, next_size) in itertools.pairwise(labels):
            assert after - x >= 3.5 * (size + next_size)


@pytest.mark.parametrize("count", [50, 3000])
def test_every_axis_says_its_unit(count: int) -> None:
    for _, _, drawing in plots_of(storm_result(count)):
        titles = re.findall(r'<text class="title"[^>]*>([^<]*)<', drawing)
        assert len(titles) == 2
        for title in titles:
            assert re.search(r"(, s|µs \(log\)|, 1/s|\(%\))$", title), title


@pytest.mark.parametrize("count", [1, 5, 30, 200, 401, 450])
def test_few_attempts_still_make_a_page(count: int) -> None:
    for _, note, _ in plots_of(storm_result(count)):
        assert note


@given(st.floats(1e-3, 1e6), st.floats(1.01, 1e6))
def test_ticks_lie_on_the_axis(low: float, factor: float) -> None:
    high = low * factor
    assert all(low * 0.99 <= t <= high * 1.01 for t in log_ticks(low, high))
    assert 2 <= len(nice_ticks(low, high)) <= 12
    axis = Axis.log(low, high, "x")
    assert 0 <= axis.place(low) < axis.place(high) <= 1
