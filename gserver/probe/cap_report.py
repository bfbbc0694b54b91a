"""What ``probe cap`` found, in sentences and figures. Pure."""

from __future__ import annotations

from dataclasses import replace

from gserver.probe.finding import POLICY, CapFinding
from gserver.probe.outcomes import Outcome
from gserver.probe.result import Result
from gserver.probe.threshold import parse_threshold

__all__ = ["report_cap"]


def report_cap(result: Result, finding: CapFinding) -> None:
    """Write what ``find_cap`` found into *result*."""
    result.details["cap"] = finding.as_json()
    result.figures |= {
        "peak": finding.peak,
        "over_admissions": finding.over_admissions,
        "dropped_while_held": finding.dropped_while_held,
        "slots_lost": finding.slots_lost,
    } | {
        outcome.value: finding.turned_away[outcome]
        for outcome in Outcome
        if outcome not in (Outcome.ADMITTED, Outcome.LOCAL)
    }
    say = result.lines.append
    if finding.limit is None and (result.partial or finding.outrun):
        limit = f"not found yet: {finding.peak} served at once so far"
    elif finding.limit is None:
        limit = f"none found: {finding.peak} served at once"
        result.absent |= {"limit", "fits_after_close", "tries_after_close"}
    else:
        result.figures["limit"] = finding.limit
        limit = f"{finding.limit} connections served at once"
    say(("limit", limit))
    result.headline = f"limit: {limit}"
    if finding.policy is not None:
        text = POLICY[finding.policy]
        result.headline += f"; {text}"
        if finding.message:
            text += f" ({finding.message[:60].decode('latin-1')!r})"
        say(("policy", text))
        counts = ", ".join(f"{n} {o.value}" for o, n in finding.turned_away.most_common())
        say(("turned away", f"{sum(finding.turned_away.values())}: {counts}"))
    if finding.listen_queue is not None:
        waiting, most = finding.listen_queue
        say(("listen queue", f"{waiting} wait in it to be accepted, of {most} who may"))
    if finding.fits_after_close is not None:
        result.figures["fits_after_close"] = finding.fits_after_close
        result.figures["tries_after_close"] = finding.tries_after_close or 0
        right = "as it should" if finding.fits_after_close == 1 else "NOT exactly one"
        say(
            (
                "one closed",
                f"{finding.fits_after_close} more fitted, {right}; "
                f"admitted at try {finding.tries_after_close}; a slot was back within "
                f"{finding.lag_s:.2g} s",
            )
        )
        if finding.fits_after_close != 1:
            result.warnings.append(
                f"one was closed at the limit, and {finding.fits_after_close} more fitted in the "
                "time that was waited: the limit is not certain"
            )
    if finding.limit is not None:
        say(("over-admissions", f"{finding.over_admissions} (most served at once: {finding.peak})"))
    if finding.late_s:
        say(
            (
                "turned away late",
                f"up to {finding.late_s:.2f} s after connecting: silent until then, never admitted",
            )
        )
    if finding.overtaken:
        say(
            (
                "overtaken",
                f"{finding.overtaken} who came at once with others got no answer by their "
                "deadline, who came later did: a short backlog; fewer came at once from then on",
            )
        )
    if finding.dropped_while_held:
        ages = [age_s for _, age_s in finding.drops]
        text = f"{len(ages)} by the server, {min(ages):.2g} to {max(ages):.2g} s after being served"
        what = "connections by itself"
        if finding.ends_after_s is not None:
            what = f"silent clients after about {finding.ends_after_s:.2g} s"
        say(("dropped while held", text))
        result.warnings.append(f"the server ends {what}: the limit may be higher")
    if finding.slots_lost:
        say(("slots lost", f"{finding.slots_lost} did not come back when their clients had left"))
        result.warnings.append("slots leak: the limit shrinks as clients come and go")
    if finding.outrun:
        result.invalid.append(
            "the limit was not found: the server ends clients faster than others can be tried one "
            f"by one; it is {finding.peak} at least"
        )
    elif finding.expected is not None and not result.partial:
        wanted = replace(
            parse_threshold(f"limit=={finding.expected}"),
            text=f"limit=={finding.expected} (--cap)",
        )
        result.asserted.append((wanted, finding.limit == finding.expected))
    if finding.local_errors:
        result.invalid.append(
            f"{finding.local_errors} attempts failed on this machine (descriptors or ports)"
        )
