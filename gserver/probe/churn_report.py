"""What ``probe churn`` found, in sentences and figures. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from gserver.probe.figures import latency_names
from gserver.probe.ledger import Falsehood
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.result import Result
from gserver.probe.stats import summarise
from gserver.probe.validity import ClientHealth, judge

__all__ = ["ChurnFinding", "report_churn"]

_SHOWN_S: Final = 0.1


@dataclass(slots=True)
class ChurnFinding:
    """What ``probe churn`` found. Lags are in nanoseconds, from a close of ours.

    The first part, one after the other, is ``serial``; the second, all at once, the rest.

    :param rate: leavers a second that were asked for.
    :param listens_s: how long who is admitted has listened before; 0: the server speaks first.
    :param false: of both parts; *serial_false*: of the first.
    :param serial_first: of each round's first attempt.
    :param serial_late: why not all the tries were made.
    :param connect_lag: until who was admitted next had connected; *lag*: until it was admitted.
    :param kept: ns in which the server had not given back a slot, or had ended a holder.
    :param silent: ns in which a place was free and who asked for it got no answer at all.
    :param lost: held connections that the server ended.
    :param peak: most served at the same time.
    :param stopped: the run ended before its time.
    """

    cap: int
    rate: float
    deadline_s: float
    listens_s: float = 0.0
    lost: int = 0
    local_errors: int = 0
    false: Counter[Falsehood] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    serial_first: Counter[Outcome] = field(default_factory=Counter)
    serial_lost: int = 0
    serial_late: str = ""
    serial_lag: list[int] = field(default_factory=list)
    serial_connect_lag: list[int] = field(default_factory=list)
    serial_false: Counter[Falsehood] = field(default_factory=Counter)
    lag: list[int] = field(default_factory=list)
    connect_lag: list[int] = field(default_factory=list)
    planned: int = 0
    leavers: int = 0
    kept: int = 0
    silent: int = 0
    ran_at_once: bool = False
    at_once_s: float = 0.0
    at_once_cpu_s: float = 0.0
    peak: int = 0
    stopped: bool = False


def report_churn(result: Result, finding: ChurnFinding) -> None:
    """Write what ``run_churn`` found into *result*."""
    certain, possible = finding.false[Falsehood.CERTAIN], finding.false[Falsehood.POSSIBLE]
    tries = finding.serial_first.total()
    if tries or finding.ran_at_once:
        result.lines.append(("cap", f"{finding.cap} connections held"))
    if tries:
        _report_serial(result, finding, tries)
        result.headline = (
            f"{result.figures['reconnect.rejected']} of {tries} rejected when they came back "
            "at once; "
        )
    if tries or finding.ran_at_once:
        of_joiners = possible - finding.serial_false[Falsehood.POSSIBLE]
        over = max(0, finding.peak - finding.cap)
        result.headline += f"{certain} certain false rejections"
        result.figures |= {
            "over_admissions": over,
            "false_rejections.certain": certain,
            "false_rejections.possible": possible,
            "dropped_while_held": finding.lost,
        }
        result.figures |= {outcome.value: finding.outcomes[outcome] for outcome in Outcome}
        who = [f"{finding.serial_false[Falsehood.POSSIBLE]} of those who reconnected"] * bool(
            tries
        ) + [f"{of_joiners} of the joiners"] * finding.ran_at_once
        result.lines += [
            (
                "false rejections",
                f"{certain} certain; possible: {', '.join(who)} (another's answer may have "
                "been under way)",
            ),
            ("over-admissions", f"{over} certain (most served at once: {finding.peak})"),
            ("outcomes", ", ".join(f"{n} {o.value}" for o, n in finding.outcomes.most_common())),
        ]
        _report_lag(result, finding)
    if finding.ran_at_once:
        _report_client(result, finding)
    if finding.serial_late:
        result.warnings.append(finding.serial_late)
    if finding.serial_lost:
        result.warnings.append(
            f"a slot did not come back within {finding.deadline_s:g} s of its client's leaving"
        )
    if finding.lost:
        result.warnings.append(f"the server ended {finding.lost} held connections by itself")
    if finding.local_errors:
        result.invalid.append(
            f"{finding.local_errors} attempts failed on this machine (descriptors or ports)"
        )


def _report_serial(result: Result, finding: ChurnFinding, tries: int) -> None:
    """Of the first part, of which *tries* were made."""
    rejected = sum(finding.serial_first[outcome] for outcome in REJECTIONS)
    admitted = finding.serial_first[Outcome.ADMITTED]
    result.figures |= {
        "reconnect.tries": tries,
        "reconnect.first_try": admitted,
        "reconnect.rejected": rejected,
        "reconnect.slots_lost": finding.serial_lost,
    }
    if not finding.serial_lag:  # nobody came back in
        result.absent |= latency_names("reconnect.lag")
        result.absent |= latency_names("reconnect.connect_lag")
    result.figures |= summarise(finding.serial_lag).flat("reconnect.lag")
    result.figures |= summarise(finding.serial_connect_lag).flat("reconnect.connect_lag")
    result.lines.append(
        (
            "close, then reconnect",
            f"{rejected} of {tries} rejected at the first try, {admitted} admitted",
        )
    )


def _report_lag(result: Result, finding: ChurnFinding) -> None:
    lag = summarise(finding.lag)
    if finding.ran_at_once:
        result.figures |= lag.flat("freed_slot_lag")
        if not lag.count:
            result.absent |= latency_names("freed_slot_lag")
    title = "freed-slot lag (our close to)"
    if finding.listens_s:
        title += (
            f"; the admitted: with {finding.listens_s * 1e3:.3g} ms in which the client listens"
        )
    result.latencies[title] = {
        "reconnect: its connect": summarise(finding.serial_connect_lag),
        "reconnect: admitted": summarise(finding.serial_lag),
        "joiners: its connect": summarise(finding.connect_lag),
        "joiners: next admitted": lag,
    }
    result.details["quiet_time_in_lag_s"] = finding.listens_s


def _report_client(result: Result, finding: ChurnFinding) -> None:
    """Of the second part: of the first one client's pace is the server's."""
    reached = finding.leavers / max(finding.at_once_s, 1e-9)
    share = finding.at_once_cpu_s / max(finding.at_once_s, 1e-9)
    skipped = finding.planned - finding.leavers
    result.figures |= {
        "leavers": finding.leavers,
        "leavers_skipped": skipped,
        "leavers_rate": reached,
        "client_cpu": share,
    }
    text = f"{reached:.1f} a second, of {finding.rate:g} asked for"
    if skipped:
        text += f"; {skipped} skipped: the cap was not full"
    kept_s = finding.kept / 1e9
    silent_s = finding.silent / 1e9
    if silent_s >= _SHOWN_S:
        text += f"; for {silent_s:.1f} s a place was free and the server gave no answer"
    if kept_s >= _SHOWN_S:
        text += f"; for {kept_s:.1f} s the server had not given back a slot"
    result.lines.append(("leavers", f"{text}; client at {share:.0%} of a core"))
    if not finding.stopped:
        # Who was due in the time that the server kept a slot is excused.
        planned = max(finding.leavers, finding.planned - round(kept_s * finding.rate))
        dropped = planned - finding.leavers
        health = ClientHealth([share], planned, finding.leavers, dropped, None, None, 0)
        if not health.rate_was_kept and silent_s * finding.rate >= dropped / 2:
            # Most of it is the server's doing; but without leavers nothing is shown.
            result.invalid.append(
                f"the rate was not kept: {finding.leavers} of {planned} left; for the others the "
                f"cap was not full again: for {silent_s:.1f} s a place was free and the server "
                "gave no answer"
            )
            health = replace(health, planned=finding.leavers, dropped=0)
        warnings, invalid = judge(health, "churn")
        result.warnings += warnings
        result.invalid += invalid
