"""``probe isolation``: do the admitted notice a flood of people being turned away?

Four phases of equal length: quiet; a flood of the same rate to a *sink* (the bundled rejecter),
which costs this machine the same but never touches the server; the flood to the server; recovery.
Only the third against the second says something about the server.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final

from gserver.probe.calibrate import Calibration
from gserver.probe.children import Child
from gserver.probe.errors import TargetError
from gserver.probe.flood import Flood, FloodPlan, FloodResult
from gserver.probe.holders import Holders
from gserver.probe.open_loop import OpenLoop
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.pacing import ConstantRate
from gserver.probe.procstat import Usage, measure
from gserver.probe.result import Result
from gserver.probe.run import Run, collector_off
from gserver.probe.stats import Summary, summarise
from gserver.probe.target import Target, parse_target
from gserver.probe.validity import ClientHealth, judge
from gserver.probe.victims import Pings, Victims

__all__ = ["PHASES", "IsolationSettings", "run_isolation"]

PHASES: Final = ("quiet", "control", "flood", "recovery")

_LEAD_NS: Final = 50_000_000  # between starting the processes and the first arrival
_STEADY: Final = 0.99  # answered of what was asked without a flood, or there is no base line


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """:param victims: admitted clients that are measured, at most the cap.
    :param victim_rate: requests a second of all victims together.
    :param rate: attempts a second of the flood, of *processes* client processes together.
    :param duration_s: of each phase; the first tenth is warm-up.
    :param pid: the server's first process, for its CPU time; None: not known.
    :param phases: those of :data:`PHASES` that are wanted, in their order.
    """

    cap: int
    victims: int
    victim_rate: float
    rate: float
    duration_s: float
    processes: int = 1
    pid: int | None = None
    phases: Sequence[str] = PHASES


@dataclass(slots=True)
class _Phase:
    """What one phase came to, after its warm-up.

    :param response: due to answer; a ping that got none counts with how long it had waited when
        the phase was given up: a lower bound.
    :param service: sent to answer, of those that got one.
    :param goodput: answers a second while the phase lasted.
    """

    response: Summary
    service: Summary
    asked: int
    late: int
    missed: int
    lost: int
    goodput: float


def run_isolation(
    target: Target, calibration: Calibration, run: Run, settings: IsolationSettings, result: Result
) -> None:
    """All four phases, figures into *result*.

    :raises TargetError: the profile has no request to repeat, or the cap cannot be held.
    """
    if not calibration.profile.ping or calibration.profile.expect is None:
        raise TargetError(
            f"profile {calibration.profile.name} has no request that can be repeated; give --send "
            "and --expect"
        )
    holders = Holders(target, calibration, run)
    sink = Child("gserver.probe.rejecter")
    victims = None
    try:
        sink_target = parse_target(f"127.0.0.1:{sink.line()}")
        holders.fill(settings.cap)
        holders.check_full()
        if run.stopped:
            return
        socks = []
        for attempt in list(holders.held)[: min(settings.victims, settings.cap)]:
            holders.held.discard(attempt)
            sock = holders.engine.detach(attempt)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            socks.append(sock)
        victims = Victims(socks, calibration.profile)
        origin_ns = monotonic_ns()
        found: dict[str, _Phase] = {}
        for phase in settings.phases:
            if run.stopped:
                break
            where = {"control": sink_target, "flood": target}.get(phase)
            found[phase], pings = _phase(run, result, settings, calibration, victims, phase, where)
            result.details.setdefault("victims", {})[phase] = pings.as_json(origin_ns)
            if not run.stopped:
                _judge(result, phase, found[phase])
            if not victims.alive:
                break
        result.invalid += holders.were_lost()
        result.figures["dropped_while_held"] = len(holders.dropped)
        _report(result, settings, found, len(socks))
    finally:
        if victims is not None:
            victims.close()
        sink.close()
        holders.close()


def _phase(
    run: Run,
    result: Result,
    settings: IsolationSettings,
    calibration: Calibration,
    victims: Victims,
    phase: str,
    flooded: Target | None,
) -> tuple[_Phase, Pings]:
    pace = ConstantRate(settings.victim_rate, settings.duration_s)
    flood = None
    if flooded is not None:
        flood = Flood(
            FloodPlan(
                flooded,
                calibration.profile,
                calibration.patience,
                settings.rate,
                settings.duration_s,
                settings.processes,
                has_oracle=calibration.oracle is not None,
            )
        )
    victims.begin()
    start_ns = monotonic_ns() + _LEAD_NS
    end_ns = start_ns + int(settings.duration_s * 1e9)
    before, cpu = measure(settings.pid), time.process_time()
    loop = OpenLoop(pace, start_ns, victims.send)
    got = None
    try:
        with collector_off():
            if flood is not None:
                got = flood.run(run, phase)
            while monotonic_ns() < end_ns and not run.stopped:
                run.tell(f"{phase}: {len(victims.pings.answered)} answers")
                run.pause(min(0.1, max(0.001, (end_ns - monotonic_ns()) / 1e9)))
            end_ns = min(end_ns, monotonic_ns())
            share = (time.process_time() - cpu) * 1e9 / max(1, monotonic_ns() - start_ns)
            if not run.stopped:
                loop.all_started.wait(0.5)
            # Of a stopped run nobody waits for the rest.
            pings = victims.finish(0.0 if run.stopped else calibration.patience.deadline_s)
        if loop.failure is not None:
            raise loop.failure
    finally:
        loop.close()
        if flood is not None:
            flood.close()
    after = measure(settings.pid)
    if got is not None:
        _report_flood(result, phase, got, judged=not run.stopped)
        if phase == "flood":
            _report_cost(result, got, before, after)
    if not run.stopped:
        health = ClientHealth(
            [share],
            pace.planned,
            loop.started,
            pace.planned - loop.started,
            summarise(pings.slip).percentiles.get("p99"),
            summarise(
                [a - d for a, d in zip(pings.answered, pings.due, strict=True)]
            ).percentiles.get("p99"),
            0,
        )
        warnings, invalid = judge(health, "isolation, victims")
        result.warnings += [f"{phase}, victims: {text}" for text in warnings]
        result.invalid += [f"{phase}, victims: {text}" for text in invalid]
    found = _after_warm_up(pings, start_ns, end_ns)
    result.figures |= found.response.flat(phase) | found.service.flat(f"{phase}.service")
    result.figures |= {
        f"{phase}.goodput": found.goodput,
        f"{phase}.late": found.late,
        f"{phase}.missed": found.missed,
        f"{phase}.lost": found.lost,
    }
    return found, pings


def _report_cost(result: Result, got: FloodResult, before: Usage, after: Usage) -> None:
    """CPU time of the flood's phase, the victims' answers included; the machine's beside ours."""
    rows = list(got.records.rows())
    rejected = sum(row[3] in REJECTIONS for row in rows)
    if not rejected:
        result.absent.add("cpu_per_rejection_with_answers")
        return
    machine = (after.machine_cpu_s - before.machine_cpu_s) / len(rows)
    result.figures["machine_cpu_per_attempt"] = machine
    used = after.server_cpu_s - before.server_cpu_s
    if used > 0:  # less than before: the process has ended
        result.figures["cpu_per_rejection_with_answers"] = used / rejected


def _after_warm_up(pings: Pings, start_ns: int, end_ns: int) -> _Phase:
    end_ns = max(end_ns, start_ns + 1)
    since = start_ns + (end_ns - start_ns) // 10
    answers = [
        row for row in zip(pings.due, pings.sent, pings.answered, strict=True) if row[0] >= since
    ]
    missed = [due for due in pings.missed if due >= since]
    in_time = sum(since <= answered < end_ns for answered in pings.answered)
    return _Phase(
        summarise([row[2] - row[0] for row in answers] + [pings.given_up - due for due in missed]),
        summarise([row[2] - row[1] for row in answers]),
        len(answers) + len(missed),
        sum(due >= since for due in pings.late),
        len(missed),
        pings.lost,
        in_time * 1e9 / (end_ns - since),
    )


def _report_flood(result: Result, phase: str, got: FloodResult, *, judged: bool) -> None:
    rows = got.measured()
    if judged:
        p99 = summarise([r[2] - r[1] for r in rows]).percentiles.get("p99")
        slip = summarise([r[1] - r[0] for r in rows]).percentiles.get("p99")
        warnings, invalid = judge(got.health(slip, p99), "isolation")
        result.warnings += [f"{phase}: {text}" for text in warnings]
        result.invalid += [f"{phase}: {text}" for text in invalid]
    if phase != "flood":
        result.floods[phase] = got.records, got.start_ns
        return
    counts = Counter(row[3] for row in rows)
    result.figures |= {
        "admitted": counts[Outcome.ADMITTED],
        "rejected": sum(counts[outcome] for outcome in REJECTIONS),
        "rate": got.started / got.duration_s,
    }
    said = ", ".join(f"{n} {o.value}" for o, n in counts.most_common()) or "none"
    result.lines.append(("outcomes of the flood", said))
    result.records, result.start_ns = got.records, got.start_ns
    result.warm_up_s = got.duration_s / 10


def _judge(result: Result, phase: str, found: _Phase) -> None:
    """A victim that fell silent is a failure: of the base line, or of the server in the flood."""
    say = result.warnings if phase in ("flood", "recovery") else result.invalid
    if found.lost:
        say.append(f"{phase}: the server ended {found.lost} of the admitted clients")
    elif found.asked and found.missed > (1 - _STEADY) * found.asked:
        say.append(
            f"{phase}: {found.missed} of {found.asked} requests of admitted clients got no answer"
        )


def _report(
    result: Result, settings: IsolationSettings, found: dict[str, _Phase], victims: int
) -> None:
    result.figures["victims_lost"] = lost = sum(phase.lost for phase in found.values())
    result.latencies["response latency (due to answer), admitted clients"] = {
        name: phase.response for name, phase in found.items()
    }
    result.latencies["the same from when it was sent (hides waiting for one's turn)"] = {
        name: phase.service for name, phase in found.items()
    }
    result.headline = f"flood against control: {_against_control(result, found)}"
    result.lines += [
        (
            "victims",
            f"{victims} of {settings.cap} held, {settings.victim_rate:g} requests a second "
            f"together; lost: {lost}",
        ),
        (
            "flood",
            f"{settings.rate:g} attempts a second; {settings.duration_s:g} s a phase, the first "
            "tenth dropped",
        ),
        ("goodput", ", ".join(f"{name} {p.goodput:.0f}/s" for name, p in found.items())),
        (
            "sent late",
            ", ".join(f"{name} {p.late}" for name, p in found.items())
            + " (the answer before had not come)",
        ),
        ("no answer", ", ".join(f"{name} {p.missed} of {p.asked}" for name, p in found.items())),
    ]
    if "cpu_per_rejection_with_answers" in result.figures:
        each = result.figures["cpu_per_rejection_with_answers"] * 1e6
        result.lines.append(("server CPU", f"{each:.1f} us a rejection, the victims' included"))
    if "machine_cpu_per_attempt" in result.figures:
        each = result.figures["machine_cpu_per_attempt"] * 1e6
        result.lines.append(
            ("machine CPU", f"{each:.1f} us an attempt, client, victims and all else included")
        )


def _against_control(result: Result, found: dict[str, _Phase]) -> str:
    if "control" not in found or "flood" not in found:
        return "not measured"
    ratios = []
    for name in ("p50", "p99"):
        control, flood = (found[p].response.percentiles.get(name) for p in ("control", "flood"))
        if control and flood:
            result.figures[f"isolation.{name}"] = flood / control
            ratios.append(f"{name} x{flood / control:.2f}")
    if found["control"].goodput:
        share = found["flood"].goodput / found["control"].goodput
        result.figures["isolation.goodput"] = share
        ratios.append(f"goodput x{share:.3f}")
    return ", ".join(ratios) or "too few answers"
