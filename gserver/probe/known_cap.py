"""The cap that a command works at: given, or the limit that ``probe cap`` finds."""

from __future__ import annotations

import resource
from time import monotonic
from typing import Final

from gserver.errors import SettingError
from gserver.probe.calibrate import Calibration
from gserver.probe.cap import find_cap
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.holders import Holders
from gserver.probe.outcomes import Outcome
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["SPARE_FILES", "cap_or_found", "most_held", "must_fit"]

#: Descriptors beside the connections: the loop's, the children's pipes, reports.
SPARE_FILES: Final = 48

_SEARCH_MOST: Final = 5000
_COMES_BACK_S: Final = 0.2  # for the slots of what was just closed


def most_held() -> int:
    """How many connections this process may hold, once its soft limit is raised to the hard one."""
    return max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES)


def must_fit(cap: int | None) -> None:
    """Refuse a cap that this process has not the descriptors to go past.

    :raises SettingError: which it hasn't.
    """
    if cap is not None and cap >= most_held():
        raise SettingError(
            "--cap",
            cap,
            f"this machine's limit on open files lets us hold {most_held()} connections; raise it "
            "with `ulimit -n`",
        )


def cap_or_found(
    target: Target, calibration: Calibration, run: Run, cap: int | None, result: Result
) -> tuple[int, Calibration]:
    """The cap that was given, or the limit that ``probe cap`` finds; and how to judge from now on.

    Where only silence shows that a client was admitted, the calibration that is returned listens
    for as long as the server takes to turn somebody away. It shares *calibration*'s oracle.

    :raises TargetError: none given and none found.
    :raises LocalError: this machine could not make the connections.
    :raises Stopped: the run was, before; how far the search had come is in *result*.
    """
    if cap is None:
        cap, late_s = _find(target, calibration, run, result)
    else:
        late_s = _late_s(target, calibration, run, cap)
    run.go_on()
    return cap, calibration.hearing_out(late_s) if late_s else calibration


def _find(target: Target, calibration: Calibration, run: Run, result: Result) -> tuple[int, float]:
    finding = find_cap(target, calibration, run, maximum=min(_SEARCH_MOST, most_held()))
    result.details["search"] = finding.as_json()
    if finding.limit is not None:
        result.lines.append(("limit", f"{finding.limit}, found first (no --cap was given)"))
        run.pause(max(_COMES_BACK_S, 2 * finding.lag_s))
        return finding.limit, finding.late_s
    if run.stopped:
        result.lines.append(("limit", f"not found yet: {finding.peak} served at once so far"))
        run.go_on()
    if finding.local_errors:
        raise LocalError(
            f"no limit found up to {finding.peak}: {finding.local_errors} attempts failed on this "
            "machine (descriptors or ports)"
        )
    why = "give --cap"
    if finding.peak >= most_held():
        why = f"this machine may open no more files (`ulimit -n`: {most_held() + SPARE_FILES})"
    raise TargetError(f"{target.text}: no limit found up to {finding.peak}; {why}")


def _late_s(target: Target, calibration: Calibration, run: Run, cap: int) -> float:
    """How long the server takes to turn away one more than *cap*, as far as silence hid it."""
    if not calibration.profile.judges_by_silence:
        return 0.0
    holders = Holders(target, calibration, run)
    try:
        run.pause(_COMES_BACK_S)
        holders.fill(cap)
        # All of them are looked at: one of the holders may be who came while a slot was taken.
        opened = [*holders.held, more := holders.engine.start(keep=True)]
        run.tell("is anybody turned away late?")
        run.until(lambda: more.outcome, calibration.patience.deadline_s + 1)
        if more.outcome is not Outcome.ADMITTED:
            return 0.0
        run.pause(max(0.0, more.started / 1e9 + calibration.watch_s - monotonic()))
        return max((a.ended - a.started) / 1e9 if a.ended else 0.0 for a in opened)
    finally:
        holders.close()
        run.pause(_COMES_BACK_S)
