"""``probe churn``: what is left out of its figures, and when its client makes them worthless."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import gevent
import pytest

from gserver.probe import churn
from gserver.probe.attempt import Attempt, Patience
from gserver.probe.calibrate import Calibration, calibrate
from gserver.probe.churn import ChurnSettings, run_churn
from gserver.probe.churn_report import report_churn
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Outcome
from gserver.probe.procstat import listening_process
from gserver.probe.profiles import PROFILES
from gserver.probe.result import EXIT_THRESHOLD, Result
from gserver.probe.run import Run
from gserver.probe.target import parse_target
from gserver.probe.threshold import parse_threshold

pytestmark = pytest.mark.long

PATIENCE = Patience()
SETTINGS = ChurnSettings(cap=3, tries=2, rate=50.0, duration_s=1.0, joiners=2, seed=1)


def measure(
    port: int,
    settings: ChurnSettings = SETTINGS,
    *,
    stopped: bool = False,
    patience: Patience = PATIENCE,
) -> Result:
    target, result = parse_target(f"127.0.0.1:{port}"), Result("churn", "t")
    with Run(60, stream=None) as run:
        calibration = calibrate(target, PROFILES["echo"], patience, run)
        try:
            run_churn(target, calibration, run, settings, result)
        finally:
            calibration.close()
        assert bool(run.partial) == stopped
    return result


@pytest.fixture
def leaves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """When each leaver closed (monotonic ns), and whether garbage was collected then."""
    found: list[tuple[int, bool]] = []
    leave = churn._Churn._leave

    def noted(self: churn._Churn, attempt: Attempt) -> int:
        closed = leave(self, attempt)
        found.append((closed, gc.isenabled()))
        return closed

    monkeypatch.setattr(churn._Churn, "_leave", noted)
    return found


def test_who_leaves_in_the_first_tenth_gives_no_lag(
    start_server: Callable[..., int], leaves: list[tuple[int, bool]]
) -> None:
    found = measure(
        start_server("limited_server", 3, "fin"), replace(SETTINGS, tries=0, rate=300.0)
    )
    early = sum(closed < leaves[0][0] + 50_000_000 for closed, _ in leaves)
    assert early > 1
    assert found.figures["leavers"] == len(leaves)
    assert 0 < found.figures["freed_slot_lag.count"] <= len(leaves) - early


def test_leavers_that_are_skipped_are_said(start_server: Callable[..., int]) -> None:
    """A slot that comes back after 100 ms: of 50 leavers a second most find the cap not full.

    That is the server's doing, and no reason not to count its figures.
    """
    found = measure(start_server("limited_server", 3, "slow_to_free"))
    assert found.figures["leavers_skipped"] > 0
    assert f"{found.figures['leavers_skipped']} skipped" in dict(found.lines)["leavers"]
    assert not found.invalid


def test_a_rate_that_the_client_cannot_keep_makes_the_run_invalid(
    start_server: Callable[..., int],
) -> None:
    """A joiner listens for 10 ms before it is admitted: 400 a second cannot take turns so."""
    found = measure(start_server("limited_server", 3, "fin"), replace(SETTINGS, rate=400.0))
    (why,) = (text for text in found.invalid if "the rate was not kept" in text)
    assert "lower --rate" in why
    assert found.figures["leavers_rate"] < 200


@pytest.mark.parametrize("stopped_s", [0.6, 60.0])
def test_a_server_that_stalls_is_not_the_clients_fault(
    start_server: Callable[..., int], monkeypatch: pytest.MonkeyPatch, stopped_s: float
) -> None:
    """For a while, or for good: the run does not count, and no option would help."""
    port = start_server("limited_server", 3, "fin")
    with closing(Oracle()) as oracle:
        server = listening_process([row.inode for row in oracle.listeners(port)])
    assert server is not None
    at_once = churn._Churn.at_once

    def stalled(self: churn._Churn) -> None:
        os.kill(server, signal.SIGSTOP)
        goes_on = gevent.spawn_later(stopped_s, os.kill, server, signal.SIGCONT)
        try:
            at_once(self)
        finally:
            goes_on.kill()

    monkeypatch.setattr(churn._Churn, "at_once", stalled)
    found = measure(port, replace(SETTINGS, duration_s=0.5))
    (why,) = found.invalid
    assert "the rate was not kept" in why
    assert "the server gave no answer" in why
    assert "--" not in why
    assert "the server gave no answer" in dict(found.lines)["leavers"]


def test_leavers_who_only_wait_for_a_joiner_leave_all_the_same(
    start_server: Callable[..., int],
) -> None:
    found = measure(start_server("limited_server", 3, "fin"), replace(SETTINGS, rate=20.0))
    assert not found.invalid
    assert found.figures["leavers_skipped"] == 0


def test_a_saturated_client_makes_the_run_invalid(
    start_server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(churn, "process_time", time.monotonic)
    found = measure(start_server("limited_server", 3, "fin"))
    assert [text for text in found.invalid if "the client was saturated" in text]


def test_no_garbage_is_collected_while_measuring(
    start_server: Callable[..., int], leaves: list[tuple[int, bool]]
) -> None:
    measure(start_server("limited_server", 3, "fin"))
    assert len(leaves) > 2
    assert not any(enabled for _, enabled in leaves)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("settings", "last"),
    [(replace(SETTINGS, tries=500), 3), (replace(SETTINGS, tries=0, duration_s=20.0), 10)],
    ids=["serially", "at once"],
)
def test_a_part_that_was_not_begun_or_not_ended_has_no_false_figures(
    start_server: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    settings: ChurnSettings,
    last: int,
) -> None:
    leave, left = churn._Churn._leave, []

    def stopping(self: churn._Churn, attempt: Attempt) -> int:
        left.append(attempt)
        if len(left) == last:
            self.run.stop("enough")
        return leave(self, attempt)

    monkeypatch.setattr(churn._Churn, "_leave", stopping)
    found = measure(start_server("limited_server", 3, "fin"), settings, stopped=True)
    told = " ".join(f"{label}: {text}" for label, text in found.lines) + found.headline
    if settings.tries:
        assert found.figures["reconnect.tries"] == 2
        assert not {name for name in found.figures if "leavers" in name or "freed" in name}
        assert "client_cpu" not in found.figures
        assert "joiners" not in told
        assert "leavers" not in told
    else:
        assert found.figures["leavers"] == last
        assert found.figures["leavers_skipped"] == 0
        assert not {name for name in found.figures if name.startswith("reconnect")}
        assert "reconnect" not in told
        assert "came back" not in told


def test_stopped_while_filling_nothing_was_measured(
    start_server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = churn._Churn.fill

    def stopping(self: churn._Churn) -> None:
        self.run.stop("enough")
        fill(self)

    monkeypatch.setattr(churn._Churn, "fill", stopping)
    found = measure(start_server("limited_server", 3, "fin"), stopped=True)
    assert not found.figures
    assert not found.headline


def test_those_who_come_back_one_after_the_other_do_so_within_their_time(
    start_server: Callable[..., int],
) -> None:
    """A try lasts the 10 ms that its client listens: there is no time for so many."""
    found = measure(
        start_server("limited_server", 3, "fin"), replace(SETTINGS, tries=100_000, tries_s=0.5)
    )
    assert 0 < found.figures["reconnect.tries"] <= 50
    assert [text for text in found.warnings if "of 100000 came back" in text]
    assert found.figures["leavers"] > 0


def test_no_threshold_is_met_by_a_lag_that_nobody_had(start_server: Callable[..., int]) -> None:
    """Not one slot comes back: that is the server's answer, and no reason not to count the run."""
    # Of 40 slots the calibration's four connections have cost four.
    port = start_server("limited_server", 40, "leaky")
    settings = replace(SETTINGS, cap=36, tries=1, duration_s=0.3)
    found = measure(port, settings, patience=Patience(deadline_s=0.3))
    assert (found.figures["reconnect.lag.count"], found.figures["freed_slot_lag.count"]) == (0, 0)
    names = ("reconnect.lag.max", "reconnect.connect_lag.p50", "freed_slot_lag.p99")
    checked = found.check([parse_threshold(f"{name}<1s") for name in names])
    assert [met for _, met in checked] == [False] * 3
    assert found.exit_status(checked) == EXIT_THRESHOLD, found.invalid


def test_a_percentile_of_too_few_samples_is_not_absent(start_server: Callable[..., int]) -> None:
    """It has a value that was not measured well enough: nobody can say whether it is met."""
    found = measure(start_server("limited_server", 3, "fin"))
    found.check([parse_threshold("reconnect.lag.p999<1s")])
    assert [text for text in found.invalid if "no figure reconnect.lag.p999" in text]


@pytest.mark.parametrize(
    ("name", "said"), [("echo", "with 10 ms"), ("silent", "with 10 ms"), ("smtp", "")]
)
def test_a_lag_in_which_the_client_listens_says_so(name: str, said: str) -> None:
    calibration = Calibration(PROFILES[name], Patience(), 0.0, None, None)
    result = Result("churn", "t")
    with Run(60, stream=None) as run:
        state = churn._Churn(parse_target("127.0.0.1:1"), calibration, run, SETTINGS)
        state.engine.close()
    state.found.serial_first[Outcome.ADMITTED] += 1
    state.found.serial_lag.append(11_000_000)
    report_churn(result, state.found)
    (title,) = result.latencies
    assert said in title
    assert ("listens" in title) == bool(said)
    assert result.details["quiet_time_in_lag_s"] == (0.01 if said else 0.0)
