"""``probe cap`` finds the right limit and the right policy, and claims no admission too many."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from time import monotonic_ns

import pytest
from probe_finding import PATIENCE, find

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.calibrate import _detect, calibrate
from gserver.probe.cap import _Search, find_cap
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.holders import Holders
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import PROFILES
from gserver.probe.run import Run
from gserver.probe.target import parse_target

pytestmark = pytest.mark.long


@pytest.mark.parametrize("cap", [1, 10])
@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        ("fin", Outcome.FIN),
        ("rst", Outcome.RST),
        ("message", Outcome.MESSAGE),
        ("refuse", Outcome.REFUSED),
        ("queue", Outcome.QUEUED),
        ("hang", Outcome.HANG),
    ],
)
def test_limit_and_policy_are_found(
    start_server: Callable[..., int], cap: int, policy: str, outcome: Outcome
) -> None:
    finding = find(start_server("limited_server", cap, policy))
    assert (finding.limit, finding.peak, finding.over_admissions) == (cap, cap, 0)
    assert finding.policy is outcome
    # RST: who is in the queue when a listener is shut; and who, on a busy machine, is closed
    # later than quiet-time, when our probe lies unread.
    assert set(finding.turned_away) - {Outcome.RST} == {outcome} - {Outcome.RST}
    assert finding.overtaken == 0
    if policy != "hang":  # who hangs is never served, whatever becomes free
        assert finding.fits_after_close == 1
    assert finding.dropped_while_held == 0


def test_a_larger_limit_is_found_as_exactly(start_server: Callable[..., int]) -> None:
    finding = find(start_server("limited_server", 333, "fin"))
    assert (finding.limit, finding.peak, finding.over_admissions) == (333, 333, 0)
    assert finding.fits_after_close == 1


def test_a_short_backlog_is_no_limit_and_no_policy(start_server: Callable[..., int]) -> None:
    """Those whom the kernel drops because they come at once are no sign of the cap."""
    finding = find(start_server("limited_server", 200, "narrow"))
    assert (finding.limit, finding.peak, finding.over_admissions) == (200, 200, 0)
    assert finding.policy is Outcome.FIN
    assert finding.fits_after_close == 1


def test_who_comes_in_late_was_not_turned_away(start_server: Callable[..., int]) -> None:
    """Dropped by a short backlog, and in with the next SYN, a second later: past the deadline."""
    port = start_server("limited_server", 10_000, "narrow")
    patience = Patience(quiet_s=0.02, deadline_s=0.95)
    finding = find(port, PROFILES["echo"], maximum=30, patience=patience)
    assert (finding.limit, finding.peak, finding.policy) == (None, 30, None)
    assert finding.overtaken > 0


@pytest.mark.parametrize("server_makes_room", [False, True])
def test_who_comes_in_for_one_that_the_server_ended_was_turned_away_at_the_limit(
    zoo: Callable[..., int], server_makes_room: bool
) -> None:
    """The handshake dropped, then in: by a short backlog only if no place was made meanwhile."""
    target = parse_target(f"127.0.0.1:{zoo('echo')}")
    with Run(60, stream=None) as run:
        calibration = calibrate(target, PROFILES["echo"], PATIENCE, run)
        search = _Search(target, calibration, run, 10)
        with closing(calibration), closing(search.engine):
            holder = search.engine.start(keep=True)
            run.until(lambda: holder.outcome, 20)
            assert search.held == {holder}
            late = Attempt(1, monotonic_ns(), keep=True)
            late.started, late.outcome = late.intended, Outcome.SYN_PENDING
            search._on_outcome(late)
            if server_makes_room:
                search.engine._closed(holder, 0)
                assert search.finding.dropped_while_held == 1
            late.sock, late.served = object(), monotonic_ns()
            search._on_change(late)
        assert not run.partial
    assert late in search.held
    assert search.finding.overtaken == (0 if server_makes_room else 1)
    assert search.finding.turned_away[Outcome.SYN_PENDING] == (1 if server_makes_room else 0)


def test_holders_fill_a_server_with_a_short_backlog_in_their_time(
    start_server: Callable[..., int],
) -> None:
    target = parse_target(f"127.0.0.1:{start_server('limited_server', 1000, 'narrow')}")
    with Run(60, stream=None) as run:
        calibration = calibrate(target, PROFILES["echo"], Patience(), run)
        holders = Holders(target, calibration, run)
        with closing(calibration), closing(holders):
            holders.fill(1000)  # 100 s, when 128 came at once
            assert len(holders.held) == 1000
        assert not run.partial


def test_holders_do_not_blame_the_server_when_this_machine_has_no_descriptors(
    start_server: Callable[..., int],
) -> None:
    target = parse_target(f"127.0.0.1:{start_server('limited_server', 80, 'fin')}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Run(60, stream=None) as run:
        calibration = calibrate(target, PROFILES["echo"], Patience(), run)
        holders = Holders(target, calibration, run)
        with closing(calibration), closing(holders):
            lowest = os.open(os.devnull, os.O_RDONLY)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, hard))
            try:
                with pytest.raises(LocalError, match="this machine could make no more"):
                    holders.fill(80)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("cap", [1, 10])
def test_stock_gevent_pool_queues(start_server: Callable[..., int], cap: int) -> None:
    finding = find(start_server("pool_server", cap))
    assert (finding.limit, finding.peak, finding.fits_after_close) == (cap, cap, 1)
    assert set(finding.turned_away) == {Outcome.QUEUED}
    assert finding.listen_queue is not None
    waiting, most = finding.listen_queue
    assert 0 < waiting <= most


def test_a_silent_server_is_judged_by_the_kernels_rows(start_server: Callable[..., int]) -> None:
    patience = Patience(quiet_s=0.25, deadline_s=2.0)
    port = start_server("limited_server", 7, "quiet")
    finding = find(port, PROFILES["silent"], patience=patience)
    assert (finding.limit, finding.peak, finding.fits_after_close) == (7, 7, 1)
    assert set(finding.turned_away) == {Outcome.FIN}


@pytest.mark.parametrize("late_s", [0.15, 0.7, 2.1])
def test_a_silent_server_that_turns_away_late_is_found_out(
    start_server: Callable[..., int], late_s: float
) -> None:
    """Who is silent for longer than quiet-time, and then ended, was never admitted."""
    patience = Patience(quiet_s=0.01, deadline_s=1.5)
    port = start_server("limited_server", 10, "late", late_s)
    finding = find(port, PROFILES["silent"], patience=patience, expected=10)
    assert (finding.limit, finding.peak, finding.over_admissions) == (10, 10, 0)
    assert finding.policy is Outcome.FIN
    assert finding.late_s == pytest.approx(late_s, abs=0.4)
    assert (finding.fits_after_close, finding.dropped_while_held) == (1, 0)


def test_holders_at_a_server_that_turns_away_late_come_together(
    start_server: Callable[..., int],
) -> None:
    """Each is silent for long: waiting for one after the other would take 16 s."""
    target = parse_target(f"127.0.0.1:{start_server('limited_server', 12, 'late', 0.6)}")
    with Run(60, stream=None) as run:
        calibration = calibrate(target, PROFILES["silent"], Patience(0.01, 0.5), run)
        late = calibration.hearing_out(0.65)
        holders = Holders(target, late, run)
        with closing(calibration), closing(holders):
            began = time.monotonic()
            holders.fill(12)
            assert time.monotonic() - began < 8
            assert len(holders.held) == 12


def test_a_silent_servers_own_time_limit_is_no_late_rejection(zoo: Callable[..., int]) -> None:
    finding = find(zoo("silent_until", 0.6), PROFILES["silent"], maximum=20)
    assert finding.limit is None
    assert finding.peak == 20
    assert finding.late_s == 0
    assert not finding.turned_away


def test_over_admissions_in_a_burst_are_counted(start_server: Callable[..., int]) -> None:
    finding = find(start_server("limited_server", 10, "sloppy"), expected=10)
    assert finding.limit == 10
    assert finding.peak > 10
    assert finding.over_admissions == finding.peak - 10


def test_a_slot_that_comes_back_late_is_no_lower_limit(start_server: Callable[..., int]) -> None:
    finding = find(start_server("limited_server", 4, "slow_to_free"))
    assert (finding.limit, finding.over_admissions, finding.fits_after_close) == (4, 0, 1)
    assert finding.tries_after_close is not None
    assert finding.tries_after_close > 1


@pytest.mark.parametrize(("cap", "back_s"), [(6, 0.4), (6, 1.5), (20, 1.0)])
def test_slots_that_come_back_slowly_hide_nothing_of_the_limit_and_are_no_leak(
    start_server: Callable[..., int], cap: int, back_s: float
) -> None:
    """Nor may one of the calibration's be missing when a level is called the limit."""
    port = start_server("limited_server", cap, "slow_to_free", back_s)
    finding = find(port, PROFILES["echo"], patience=Patience(0.02, 1.0))
    assert (finding.limit, finding.peak, finding.over_admissions) == (cap, cap, 0)
    assert (finding.fits_after_close, finding.slots_lost) == (1, 0)
    assert finding.lag_s == pytest.approx(back_s, abs=0.5)


@pytest.mark.parametrize(("cap", "back_s"), [(1, 0.5), (2, 1.0), (3, 0.5), (5, 1.0)])
def test_a_small_limit_whose_slots_come_back_slowly_is_found(
    start_server: Callable[..., int], cap: int, back_s: float
) -> None:
    """The calibration alone has used them all."""
    finding = find(start_server("limited_server", cap, "slow_to_free", back_s))
    assert (finding.limit, finding.peak, finding.over_admissions) == (cap, cap, 0)
    assert finding.policy is Outcome.FIN
    assert (finding.fits_after_close, finding.slots_lost) == (1, 0)


@pytest.mark.parametrize("cap", [1, 5])
def test_a_small_limit_is_found_where_those_in_line_wait_for_slow_slots(
    start_server: Callable[..., int], cap: int
) -> None:
    """Longer than a deadline: who gave up and came anew would wait behind itself."""
    finding = find(start_server("pool_server", cap, 0.8))
    assert (finding.limit, finding.peak, finding.over_admissions) == (cap, cap, 0)
    assert finding.policy is Outcome.QUEUED


@pytest.mark.parametrize("cap", [1, 5])
def test_slots_of_the_calibration_that_never_come_back_are_said_in_one_line(
    start_server: Callable[..., int], cap: int
) -> None:
    target = parse_target(f"127.0.0.1:{start_server('limited_server', cap, 'leaky')}")
    with Run(8, stream=None) as run, pytest.raises(TargetError) as caught:
        with closing(calibrate(target, None, PATIENCE, run)) as calibration:
            find_cap(target, calibration, run, maximum=50)
    assert 3.5 < time.monotonic() - run.began < 6  # half of its time
    (line,) = str(caught.value).splitlines()
    assert "still is turned away with" in line
    assert "their slots have not come back" in line
    assert "--duration" in line


def test_slots_that_never_come_back_are_a_leak_not_a_lower_limit(
    start_server: Callable[..., int],
) -> None:
    # The calibration's five connections are lost to the leak before the search begins.
    finding = find(start_server("limited_server", 40, "leaky"))
    assert finding.limit is not None
    assert 30 <= finding.limit < 40
    assert finding.slots_lost >= 16
    assert finding.over_admissions == 0


def test_no_limit_is_none_not_the_maximum(zoo: Callable[..., int]) -> None:
    finding = find(zoo("echo"), maximum=300)
    assert finding.limit is None
    assert finding.peak == 300
    assert finding.policy is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("refuse", "refused"),
        ("fin", "turned away"),
        ("reset", "reset"),
        ("message_fin", "full already"),
        ("never_accepts", "did not accept"),
    ],
)
def test_a_target_that_admits_nobody_is_its_fault_in_one_line(
    zoo: Callable[..., int], kind: str, words: str
) -> None:
    profile = PROFILES["silent"] if kind == "never_accepts" else None
    with pytest.raises(TargetError) as caught:
        find(zoo(kind), profile)
    assert "\n" not in str(caught.value)
    if kind != "message_fin":
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"), [("echo", "echo"), ("silent", "silent"), ("banner_late", "smtp")]
)
def test_what_the_server_speaks_is_found_out(zoo: Callable[..., int], kind: str, name: str) -> None:
    target = parse_target(f"127.0.0.1:{zoo(kind)}")
    with Run(20, stream=None) as run:
        calibration = calibrate(target, None, PATIENCE, run)
    calibration.close()
    assert calibration.profile.name == name
    assert calibration.closes_after_s is None
    assert calibration.oracle is not None


@pytest.mark.parametrize(
    ("again_s", "name"),
    [
        (0.0, "line"),
        (0.12, "line"),  # the second connection is turned away: one that comes later is not
        (20.0, "silent"),
    ],
)
def test_a_server_that_ends_who_sends_text_is_asked_in_binary(
    zoo: Callable[..., int], again_s: float, name: str
) -> None:
    """By another connection, which may itself be turned away."""
    profile = _detect(parse_target(f"127.0.0.1:{zoo('wants_binary', again_s)}"), PATIENCE)
    assert profile.name == name
    if name == "line":  # a line of text would end whoever is admitted
        assert profile.send == profile.ping == PROFILES["tls"].send
        assert profile.expect is not None
        assert profile.expect.search(b"\x07no\n")


def test_the_address_that_was_tried_is_named(zoo: Callable[..., int]) -> None:
    for kind, words in (("fin", "turned away"), ("mysql_full", "full already")):
        target = replace(parse_target(f"127.0.0.1:{zoo(kind)}"), others=("192.0.2.1",))
        with pytest.raises(TargetError, match=words) as caught:
            _detect(target, PATIENCE)
        assert str(caught.value).startswith(f"{target.tried}: ")


def test_calibration_sees_that_the_server_closes_by_itself(zoo: Callable[..., int]) -> None:
    target = parse_target(f"127.0.0.1:{zoo('closes_by_itself', 0.2)}")
    with Run(20, stream=None) as run:
        calibration = calibrate(target, PROFILES["echo"], PATIENCE, run)
    calibration.close()
    assert calibration.closes_after_s == pytest.approx(0.2, abs=0.15)
