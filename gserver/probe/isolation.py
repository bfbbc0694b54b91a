"""``probe isolation``: do the admitted notice a flood of people being turned away?

Four phases of equal length: quiet; a flood of the same rate to a *sink* (the bundled rejecter),
which costs this machine the same but never touches the server; the flood to the server; recovery.
Only the third against the second says something about the server.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

from gevent import get_hub

from gserver.probe.calibrate import Calibration
from gserver.probe.children import Child
from gserver.probe.errors import TargetError
from gserver.probe.flood import Flood, FloodPlan
from gserver.probe.holders import Holders
from gserver.probe.open_loop import OpenLoop
from gserver.probe.outcomes import Outcome
from gserver.probe.pacing import ConstantRate
from gserver.probe.profiles import Profile
from gserver.probe.result import Result
from gserver.probe.run import Run, collector_off
from gserver.probe.stats import Summary, summarise
from gserver.probe.target import Target, parse_target
from gserver.probe.validity import judge

__all__ = ["PHASES", "IsolationSettings", "run_isolation"]

PHASES = ("quiet", "control", "flood", "recovery")


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """:param victims: admitted clients that are measured, at most the cap.
    :param victim_rate: requests a second of all victims together.
    :param rate: attempts a second of the flood; *duration_s*: of each phase.
    :param phases: those of :data:`PHASES` that are wanted, in their order.
    """

    cap: int
    victims: int
    victim_rate: float
    rate: float
    duration_s: float
    phases: Sequence[str] = PHASES


class _Victims:
    """Admitted connections that send a ping in turn, at a rate, and time the answers."""

    def __init__(self, socks: list[Any], profile: Profile) -> None:
        self._profile = profile
        self._socks = socks
        self._sent = [0] * len(socks)  # 0: nothing outstanding
        self._heard = [b""] * len(socks)
        self._turn = 0
        self.latency = array("q")
        self.lost = 0
        self._watchers: list[Any] = []
        for i, sock in enumerate(socks):
            watcher = get_hub().loop.io(sock.fileno(), 1)
            watcher.start(self._readable, i)
            self._watchers.append(watcher)

    def close(self) -> None:
        """End them all."""
        for i in range(len(self._socks)):
            self._drop(i)

    def send(self, intended: int) -> bool:
        """The next victim's ping; False when its last is still unanswered, or it is gone."""
        i = self._turn
        self._turn = (i + 1) % len(self._socks)
        if self._socks[i] is None or self._sent[i]:
            return False
        self._sent[i] = monotonic_ns()
        try:
            self._socks[i].send(self._profile.ping)
        except OSError:
            self._lose(i)
            return False
        return True

    def _readable(self, i: int) -> None:
        try:
            data = self._socks[i].recv(16_384)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(i)
        elif self._sent[i] and self._profile.expect is not None:
            heard = self._heard[i] = self._heard[i] + data
            if self._profile.expect.search(heard):
                self.latency.append(monotonic_ns() - self._sent[i])
                self._sent[i], self._heard[i] = 0, b""

    def _lose(self, i: int) -> None:
        self.lost += 1
        self._drop(i)

    def _drop(self, i: int) -> None:
        if self._socks[i] is not None:
            self._watchers[i].stop()
            self._watchers[i].close()
            self._socks[i].close()
            self._socks[i] = None


def run_isolation(
    target: Target, calibration: Calibration, run: Run, settings: IsolationSettings, result: Result
) -> None:
    """All four phases, figures into *result*.

    :raises TargetError: the profile has no request to repeat, or the cap cannot be held.
    """
    if not calibration.profile.ping:
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
        if holders.check_full() is None or run.stopped:
            return
        socks = []
        for attempt in list(holders.held)[: min(settings.victims, settings.cap)]:
            holders.held.discard(attempt)
            sock = holders.engine.detach(attempt)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            socks.append(sock)
        victims = _Victims(socks, calibration.profile)
        found: dict[str, Summary] = {}
        for phase in settings.phases:
            if run.stopped:
                break
            where = {"control": sink_target, "flood": target}.get(phase)
            found[phase] = _phase(run, result, settings, calibration, victims, phase, where)
        result.figures |= {
            "victims_lost": victims.lost,
            "dropped_while_held": len(holders.dropped),
        }
        _report(result, settings, found, victims.lost)
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
    victims: _Victims,
    phase: str,
    flooded: Target | None,
) -> Summary:
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
            )
        )
    victims.latency = array("q")
    loop = OpenLoop(pace, monotonic_ns() + 50_000_000, victims.send)
    try:
        with collector_off():
            if flood is None:
                for _ in range(int(settings.duration_s * 10)):
                    run.tell(f"{phase}: {len(victims.latency)} answers")
                    if not run.pause(0.1):
                        break
            else:
                got = flood.run(run, phase)
            loop.all_started.wait(0.5)
        if loop.failure is not None:
            raise loop.failure
    finally:
        loop.close()
        if flood is not None:
            flood.close()
    summary = summarise(victims.latency)
    result.figures |= summary.flat(phase)
    result.figures[f"{phase}.goodput"] = summary.count / settings.duration_s
    result.figures[f"{phase}.missed"] = loop.dropped
    if flood is not None and not run.stopped:
        rows = got.measured()
        p99 = summarise([r[2] - r[1] for r in rows]).percentiles.get("p99")
        slip = summarise([r[1] - r[0] for r in rows]).percentiles.get("p99")
        warnings, invalid = judge(got.health(slip, p99))
        result.warnings += [f"{phase}: {text}" for text in warnings]
        result.invalid += [f"{phase}: {text}" for text in invalid]
        if phase == "flood":
            admitted = sum(row[3] is Outcome.ADMITTED for row in rows)
            result.figures["admitted"] = admitted
            result.records, result.start_ns = got.records, got.start_ns
            result.warm_up_s = settings.duration_s / 10
    return summary


def _report(
    result: Result, settings: IsolationSettings, found: dict[str, Summary], lost: int
) -> None:
    result.latencies["request to answer, admitted clients"] = dict(found)
    result.lines += [
        (
            "victims",
            f"{min(settings.victims, settings.cap)} of {settings.cap} held, "
            f"{settings.victim_rate:g} requests a second together; lost: {lost}",
        ),
        ("flood", f"{settings.rate:g} attempts a second, {settings.duration_s:g} s a phase"),
        (
            "goodput",
            ", ".join(f"{p} {result.figures[f'{p}.goodput']:.0f}/s" for p in found),
        ),
    ]
    if "control" not in found or "flood" not in found:
        return
    ratios = []
    for name in ("p50", "p99"):
        control, flood = (found[p].percentiles.get(name) for p in ("control", "flood"))
        if control and flood:
            result.figures[f"isolation.{name}"] = flood / control
            ratios.append(f"{name} x{flood / control:.2f}")
    if found["control"].count:
        share = found["flood"].count / found["control"].count
        result.figures["isolation.goodput"] = share
        ratios.append(f"goodput x{share:.3f}")
    result.lines.append(("flood against control", ", ".join(ratios) or "too few answers"))
