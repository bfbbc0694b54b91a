"""``probe storm``: open-loop rejections at a held cap."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import monotonic_ns

from gserver.probe.calibrate import Calibration
from gserver.probe.figures import latency_names
from gserver.probe.flood import Flood, FloodPlan, FloodResult
from gserver.probe.holders import Holders
from gserver.probe.outcomes import HANGS, OUTCOMES, REJECTIONS, Outcome
from gserver.probe.procstat import Usage, is_running, measure
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.stats import Summary, most_at_once, summarise
from gserver.probe.target import Target
from gserver.probe.time_wait import left_in_time_wait
from gserver.probe.validity import judge

__all__ = ["StormSettings", "report_flood", "run_storm"]

#: Below that, a page more or less is most of the difference.
_ENOUGH_FOR_MEMORY = 100

_UNANSWERED = (*HANGS, Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True)
class StormSettings:
    """:param pid: the server's first process, for its CPU time and memory; None: not known."""

    cap: int
    rate: float
    duration_s: float
    processes: int = 1
    sources: int = 0
    reset_on_close: bool = False
    pid: int | None = None


def run_storm(
    target: Target, calibration: Calibration, run: Run, settings: StormSettings, result: Result
) -> None:
    """Hold the cap, flood, and write the figures into *result*.

    :raises TargetError: the cap cannot be held, or is not one.
    """
    plan = FloodPlan(
        target,
        calibration.profile,
        calibration.patience,
        settings.rate,
        settings.duration_s,
        settings.processes,
        settings.sources,
        settings.reset_on_close,
        has_oracle=calibration.oracle is not None,
    )
    pid = settings.pid
    holders = Holders(target, calibration, run)
    flood = None
    try:
        before = measure(pid, memory=True)
        holders.fill(settings.cap)
        held = measure(pid, memory=True)
        if not run.stopped:
            holders.check_full()
        if run.stopped:
            result.partial = run.partial
            return
        flood = Flood(plan)
        before_flood = monotonic_ns()  # the holders were all there
        start = measure(pid)
        found = flood.run(run, "storm")
        result.partial = run.partial
        end = measure(pid)
        oracle = calibration.oracle
        waiting = oracle.time_waits(target.address[1]) if oracle is not None else None
        if holders.engine.failure is not None:
            raise holders.engine.failure
        # Certainly served: until it was last known to be. When the server has ended a holder we
        # know from when we read it, which may be long after; until then it counts for nothing.
        now = monotonic_ns()
        still = sum(holders.engine.is_held(attempt) for attempt in holders.held)
        served = [(0, now)] * still + [(0, before_flood)] * (settings.cap - still) + found.served
        dropped = len(holders.dropped)
        result.invalid += holders.were_lost()
    finally:
        if flood is not None:
            flood.close()
        holders.close()
    report_flood(result, found)
    _report_holding(result, settings, most_at_once(served), dropped, (before, held))
    _report_cost(result, settings, start, end)
    if waiting is not None:
        overflow = end.time_wait_overflow - start.time_wait_overflow
        _report_time_wait(result, settings, found, waiting, overflow)


def report_flood(result: Result, found: FloodResult) -> None:
    """Write a flood's figures, tables, records and validity, all after warm-up."""
    rows = found.measured()
    if not rows and not result.partial:
        result.invalid.append("no attempt came to an outcome after the warm-up")
    counts = Counter(row[3] for row in rows)
    outcome_table, response_table = {}, {}
    for outcome in OUTCOMES:
        if not counts[outcome]:
            result.absent |= latency_names(outcome.value)
            result.absent |= latency_names(f"{outcome.value}.response")
            continue
        mine = [row for row in rows if row[3] is outcome]
        outcome_table[outcome.value] = latency = summarise([row[2] - row[1] for row in mine])
        response_table[outcome.value] = response = summarise([row[2] - row[0] for row in mine])
        result.figures |= latency.flat(outcome.value)
        result.figures |= response.flat(f"{outcome.value}.response")
    rejections = [row for row in rows if row[3] in REJECTIONS]
    reject = summarise([row[2] - row[1] for row in rejections])
    result.figures |= reject.flat("reject")
    result.figures |= summarise([r[2] - r[0] for r in rejections]).flat("reject.response")
    if not rejections:
        result.absent |= latency_names("reject") | latency_names("reject.response")
        result.absent |= {"cpu_per_rejection", "time_wait_per_rejection"}
    slip = summarise([row[1] - row[0] for row in rows])
    result.figures |= slip.flat("slip")
    outcome_p99 = summarise([row[2] - row[1] for row in rows]).percentiles.get("p99")
    health = found.health(slip.percentiles.get("p99"), outcome_p99)
    if not result.partial:
        warnings, invalid = judge(health, "storm")
        result.warnings += warnings
        result.invalid += invalid
    result.details["client"] = health.as_json()
    reached = found.started / found.duration_s
    result.figures |= {
        "rate": reached,
        "dropped": found.dropped,
        **{f"{outcome.value}.count": counts[outcome] for outcome in OUTCOMES},
        "hangs": sum(counts[outcome] for outcome in HANGS),
        "queued": counts[Outcome.QUEUED],
        "syn_pending": counts[Outcome.SYN_PENDING],
        "unknown": counts[Outcome.UNKNOWN],
        "admitted": counts[Outcome.ADMITTED],
        "rejected": len(rejections),
        "client_cpu": max(found.cpu_shares, default=0.0),
    }
    if counts[Outcome.UNKNOWN]:  # any of them may be one: no threshold on these is met
        del result.figures["hangs"], result.figures["queued"]
    result.latencies["outcome latency (connect to outcome)"] = outcome_table
    result.latencies["response latency (intended start to outcome)"] = response_table
    result.latencies["slip (actual less intended start)"] = {"all attempts": slip}
    result.lines += [
        (
            "rate",
            f"{reached:.0f} attempts a second for {found.duration_s:g} s, the first tenth "
            f"dropped; client at {result.figures['client_cpu']:.0%} of a core",
        ),
        ("outcomes", ", ".join(f"{n} {o.value}" for o, n in counts.most_common()) or "none"),
    ]
    unanswered = ", ".join(f"{counts[o]} {o.value}" for o in _UNANSWERED if counts[o])
    if unanswered:
        result.lines.append(
            ("without an answer", f"{unanswered}: clients waited their whole deadline for nothing")
        )
    told = [_how_soon(kind, outcome_table[kind]) for kind in REJECTIONS if counts[kind]]
    result.headline = "; ".join(
        [f"{len(rejections)} of {len(rows)} told that they are rejected", *told]
        + ([f"without an answer: {unanswered}"] if unanswered else [])
    )
    result.records, result.start_ns = found.records, found.start_ns
    result.warm_up_s = found.duration_s / 10


def _how_soon(kind: Outcome, latency: Summary) -> str:
    """Of one kind of rejection: a quick kind must not make a slow one look quick."""
    shown = [
        f"{name} {latency.percentiles[name] * 1e6:.0f} us"
        for name in ("p50", "p99")
        if name in latency.percentiles
    ]
    after = f"after {', '.join(shown)}" if shown else "too few for a latency"
    return f"{latency.count} {kind.value} {after}"


def _report_holding(
    result: Result,
    settings: StormSettings,
    served: int,
    dropped: int,
    memory: tuple[Usage, Usage],
) -> None:
    over = max(0, served - settings.cap)
    result.figures["over_admissions"] = over
    result.figures["dropped_while_held"] = dropped
    text = f"{settings.cap} connections throughout"
    if dropped:
        text = f"{settings.cap} connections, of which the server ended {dropped}"
    result.lines.insert(0, ("held", text))
    result.lines.append(("over-admissions", f"{over} certain (most served at once: {served})"))
    sockets = (memory[1].socket_memory - memory[0].socket_memory) / settings.cap
    result.figures["socket_memory_per_held"] = sockets
    text = f"{sockets / 1024:.1f} KiB of TCP buffers (the machine's)"
    if "search" in result.details:
        # What that needed the server has kept, as a rule: the second filling looks cheap.
        text += "; of the server: not measured, the search had filled it before; give --cap"
    elif settings.pid is not None and memory[1].server_pss:
        each = (memory[1].server_pss - memory[0].server_pss) / settings.cap
        result.figures["memory_per_held"] = each
        text = f"{each / 1024:.1f} KiB of the server (PSS), {text}"
    if settings.cap >= _ENOUGH_FOR_MEMORY:
        result.lines.append(("memory a held client", text))


def _report_cost(result: Result, settings: StormSettings, start: Usage, end: Usage) -> None:
    # The counters cover the whole flood, warm-up included: divide by all of its attempts.
    assert result.records is not None
    rows = list(result.records.rows())
    rejected = sum(row[3] in REJECTIONS for row in rows)
    if not rejected:
        return
    machine = (end.machine_cpu_s - start.machine_cpu_s) / len(rows)
    result.figures["machine_cpu_per_attempt"] = machine
    # One that refuses uses none at all; one that has ended would seem to.
    is_counted = settings.pid is not None and is_running(settings.pid)
    if is_counted and end.server_cpu_s >= start.server_cpu_s:  # less: one of its processes died
        server = (end.server_cpu_s - start.server_cpu_s) / rejected
        result.figures["cpu_per_rejection"] = server
        result.lines.append(("server CPU", f"{server * 1e6:.1f} us a rejection"))
    result.lines.append(
        ("machine CPU", f"{machine * 1e6:.1f} us an attempt, client and all else included")
    )


def _report_time_wait(
    result: Result,
    settings: StormSettings,
    found: FloodResult,
    waiting: set[int],
    overflow: int,
) -> None:
    left = left_in_time_wait(
        found.records.sources(),
        waiting,
        monotonic_ns(),
        overflow=overflow,
        client_resets=settings.reset_on_close,
    )
    if not left.rejected:
        return
    result.figures |= {"time_wait_per_rejection": left.each, "time_wait_overflow": overflow}
    closes = "RST" if settings.reset_on_close else "FIN"
    text = f"{left.each:.2f} made a rejection on the server's port (clients close with {closes})"
    if left.thrown_away:
        low = left.made / left.rejected
        text = f"between {low:.2f} and {text}"
        result.warnings.append(
            f"the machine's table of TIME_WAITs was full: it has thrown {overflow} away, of this "
            "server or of others"
        )
    result.lines.append(("TIME_WAIT", text))
