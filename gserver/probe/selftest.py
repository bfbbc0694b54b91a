"""``probe selftest``: what this machine and this client add, and how much identical runs differ."""

from __future__ import annotations

from statistics import geometric_mean

from gserver.probe.attempt import Patience
from gserver.probe.children import Child
from gserver.probe.flood import Flood, FloodPlan, FloodResult
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import PROFILES
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.stats import bootstrap_interval, summarise
from gserver.probe.target import parse_target
from gserver.probe.validity import judge

__all__ = ["run_selftest"]

_RAMP = (2_000, 4_000, 6_000, 8_000, 10_000, 13_000, 16_000, 20_000, 25_000, 30_000)
_BLOCK_S = 1.0
_LEAST_PAIRS = 2  # of A/A blocks, for an interval


def run_selftest(
    run: Run, result: Result, *, rate: float, blocks: int, seed: int, processes: int
) -> None:
    """Measure against bundled rejecters and write the figures into *result*.

    :param rate: attempts a second of the A/A blocks.
    :param blocks: pairs of A/A blocks, 2 or more, in the order ABBA.
    """
    servers: list[Child] = []
    try:
        ports = []
        for _ in range(2):
            server = Child("gserver.probe.rejecter")
            servers.append(server)
            ports.append(int(server.line()))
        _overhead(run, result, ports[0], rate)
        _ceiling(run, result, ports[0], processes)
        _noise(run, result, ports, rate, blocks, seed)
    finally:
        for server in servers:
            server.close()
    result.partial = run.partial


def _flood(run: Run, port: int, rate: float, processes: int, what: str) -> FloodResult:
    plan = FloodPlan(
        parse_target(f"127.0.0.1:{port}"), PROFILES["silent"], Patience(), rate, _BLOCK_S, processes
    )
    flood = Flood(plan)
    try:
        return flood.run(run, what)
    finally:
        flood.close()


def _latencies(found: FloodResult) -> tuple[list[int], list[int]]:
    rows = [row for row in found.measured() if row[3] is Outcome.FIN]
    return [row[2] - row[1] for row in rows], [row[1] - row[0] for row in rows]


def _faults(found: FloodResult) -> list[str]:
    """Why a flood does not count, one sentence each; late arrivals alone are no reason."""
    return judge(found.health(None, None), "selftest")[1]


def _overhead(run: Run, result: Result, port: int, rate: float) -> None:
    found = _flood(run, port, rate, 1, "overhead")
    latency, slip = _latencies(found)
    summary, slips = summarise(latency), summarise(slip)
    result.latencies[f"outcome latency at {rate:g} a second, nothing but accept and close"] = {
        "fin": summary,
        "slip": slips,
    }
    result.figures |= summary.flat("fin") | slips.flat("slip")
    health = found.health(slips.percentiles.get("p99"), summary.percentiles.get("p99"))
    if not run.stopped:
        warnings, invalid = judge(health, "selftest")
        result.warnings += warnings
        result.invalid += invalid
    result.records, result.start_ns = found.records, found.start_ns
    result.warm_up_s = _BLOCK_S / 10


def _ceiling(run: Run, result: Result, port: int, processes: int) -> None:
    reached, steps, most = 0.0, [], "at least"  # as long as no step of the ramp failed
    for rate in _RAMP:
        if run.stopped:
            break
        found = _flood(run, port, rate, processes, "ceiling")
        result.floods[f"ceiling, {rate} a second"] = found.records, found.start_ns
        if run.stopped:
            break
        summary = summarise(_latencies(found)[0])
        invalid = _faults(found)
        steps.append(
            {
                "rate": rate,
                "valid": not invalid,
                "p50_s": summary.percentiles.get("p50"),
                "p99_s": summary.percentiles.get("p99"),
                "client_cpu": max(found.cpu_shares),
            }
        )
        if invalid:
            most = "up to"
            break
        reached = rate
    result.details["ceiling"] = steps
    if not steps:
        return
    result.figures["ceiling"] = reached
    result.lines.append(
        (
            "ceiling",
            f"{most} {reached:.0f} attempts a second are valid; client processes: {processes}",
        )
    )
    result.headline = f"this client makes {most} {reached:.0f} attempts a second here"


def _noise(run: Run, result: Result, ports: list[int], rate: float, blocks: int, seed: int) -> None:
    ratios: dict[str, list[float]] = {"p50": [], "p99": []}
    left_out = 0
    for block in range(blocks):
        pair: dict[int, FloodResult] = {}
        for which in (0, 1) if block % 2 == 0 else (1, 0):
            if not run.stopped:
                what = f"A/A block {block + 1} of {blocks}"
                pair[which] = found = _flood(run, ports[which], rate, 1, what)
                name = f"A/A block {block + 1}, server {'AB'[which]}"
                result.floods[name] = found.records, found.start_ns
        if run.stopped:  # the last flood was cut short
            break
        why = [reason for found in pair.values() for reason in _faults(found)]
        if why:
            left_out += 1
            result.warnings.append(f"A/A block {block + 1} is left out: {'; '.join(why)}")
            continue
        a, b = (summarise(_latencies(pair[i])[0]).percentiles for i in (0, 1))
        for name, values in ratios.items():
            if name in a and name in b:
                values.append(b[name] / a[name])
    if left_out and blocks - left_out < _LEAST_PAIRS and not run.stopped:
        result.invalid.append(f"A/A: {left_out} of {blocks} pairs of blocks do not count")
    result.details["a_a_ratios"] = ratios
    for name, values in ratios.items():
        if len(values) < _LEAST_PAIRS:
            continue
        low, high = bootstrap_interval(values, seed=seed)
        result.figures |= {
            f"noise.{name}.low": low,
            f"noise.{name}.high": high,
            f"noise.{name}.min": min(values),
            f"noise.{name}.max": max(values),
        }
        result.lines.append(
            (
                f"A/A noise, {name}",
                f"{len(values)} pairs of blocks: two identical servers differ by "
                f"x{geometric_mean(values):.2f} "
                f"(95 % {low:.2f} to {high:.2f}; single pairs {min(values):.2f} to "
                f"{max(values):.2f})",
            )
        )
