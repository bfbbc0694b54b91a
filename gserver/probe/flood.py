"""A flood: open-loop attempts from processes of their own, whose records come back whole.

``python -m gserver.probe.flood PARENT`` reads a specification (one JSON line), says ``ready``,
reads the start time, and writes a JSON line and the raw record columns. The process that holds
connections or measures victims so never shares its interpreter with the flood.
"""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

import gevent

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.children import Child, die_with_parent
from gserver.probe.engine import Engine
from gserver.probe.errors import LocalError
from gserver.probe.open_loop import OpenLoop
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Outcome
from gserver.probe.pacing import ConstantRate
from gserver.probe.profiles import Profile, Speaks
from gserver.probe.records import Records
from gserver.probe.run import Run, collector_off
from gserver.probe.target import PORTS_PER_SOURCE, Target, parse_target, source_addresses
from gserver.probe.validity import ClientHealth

__all__ = ["Flood", "FloodPlan", "FloodResult", "main"]

_SPARE_DESCRIPTORS = 64
_TO_END_S = 5.0  # for the processes to hand over what they have
_GRACE = 1.01  # arrivals later than that are not of this rate any more


@dataclass(frozen=True, slots=True)
class FloodPlan:
    """What to send. Shapes: *rate* arrivals a second in all, split evenly over *processes*.

    :param sources: source addresses in all; 0: as many as the number of arrivals asks for, where
        the target has them to spare (127.0.0.0/8).
    :param reset_on_close: end with RST instead of FIN.
    :param has_oracle: the kernel's rows show the target's connections (``Calibration.oracle``).
    """

    target: Target
    profile: Profile
    patience: Patience
    rate: float
    duration_s: float
    processes: int = 1
    sources: int = 0
    reset_on_close: bool = False
    has_oracle: bool = True

    def paces(self) -> list[ConstantRate]:
        """One pace a process, interleaved."""
        each = self.rate / self.processes
        return [
            ConstantRate(each, self.duration_s, phase=i / self.processes)
            for i in range(self.processes)
        ]

    def source_count(self) -> int:
        """How many source addresses to use; 1: the kernel's choice."""
        if self.sources:
            return self.sources
        if self.target.family != socket.AF_INET or not self.target.is_loopback:
            return 1
        return 1 + int(self.rate * self.duration_s) // PORTS_PER_SOURCE

    def specification(self, process: int) -> str:
        """The JSON line for one process."""
        profile, pace = self.profile, self.paces()[process]
        sources = source_addresses(self.target, self.source_count())
        return json.dumps(
            {
                "target": self.target.numeric,
                "profile": [
                    profile.name,
                    profile.speaks.value,
                    profile.send.decode("latin-1"),
                    *(
                        None if p is None else p.pattern.decode("latin-1")
                        for p in (
                            profile.expect,
                            profile.reject,
                            profile.status,
                            profile.greeting,
                        )
                    ),
                ],
                "patience": [self.patience.quiet_s, self.patience.deadline_s],
                "pace": [pace.rate, pace.duration_s, pace.phase],
                "sources": sources[process :: self.processes] or sources,
                "reset": self.reset_on_close,
                "oracle": self.has_oracle,
            }
        )


@dataclass(frozen=True, slots=True)
class FloodResult:
    """What came back. ``records`` holds all attempts; the first tenth of the time is warm-up.

    ``duration_s``: for how long there were arrivals; less than was planned when stopped early.

    ``served``: from when to when (monotonic ns) each admitted connection certainly was: they are
    held to the end, because closing them would make room and hide that the server lets in too many.
    """

    records: Records
    start_ns: int
    duration_s: float
    cpu_shares: list[float]
    planned: int
    started: int
    dropped: int
    served: list[tuple[int, int]]

    @property
    def measured_from_ns(self) -> int:
        """Attempts intended before are warm-up: a tenth of the time in which there were any."""
        return self.start_ns + (max(self.records.intended, default=0) - self.start_ns) // 10

    def measured(self) -> list[tuple[int, int, int, Outcome]]:
        """The rows after warm-up, by their intended time."""
        since = self.measured_from_ns
        return sorted(row for row in self.records.rows() if row[0] >= since)

    def health(self, slip_p99_s: float | None, outcome_p99_s: float | None) -> ClientHealth:
        """For :func:`gserver.probe.validity.judge`."""
        local = sum(row[3] is Outcome.LOCAL for row in self.records.rows())
        return ClientHealth(
            self.cpu_shares,
            self.planned,
            self.started,
            self.dropped,
            slip_p99_s,
            outcome_p99_s,
            local,
        )


class Flood:
    """The processes of one flood. They are ready when this returns, and wait for :meth:`run`.

    :meth:`close` ends them; it may be called again.
    """

    def __init__(self, plan: FloodPlan) -> None:
        self.plan = plan
        self._children: list[Child] = []
        try:
            for process in range(plan.processes):
                child = Child("gserver.probe.flood")
                self._children.append(child)
                child.send(plan.specification(process))
            for child in self._children:
                child.line()
        except BaseException:
            self.close()
            raise

    def run(self, run: Run, what: str) -> FloodResult:
        """Start, wait for the end, collect. Ends early, with what there is, when *run* stops.

        :raises LocalError: one of the processes has died.
        """
        start_ns = monotonic_ns() + 50_000_000
        for child in self._children:
            with suppress(BrokenPipeError):  # it has died: its empty output tells
                child.send(str(start_ns))
        duration = self.plan.duration_s
        readers = [gevent.spawn(child.output.read) for child in self._children]
        last = self.plan.duration_s + self.plan.patience.deadline_s + _TO_END_S
        asked = killed = False
        while not all(reader.ready() for reader in readers):
            passed = (monotonic_ns() - start_ns) / 1e9
            if run.stopped and not asked:
                asked = True
                duration = min(max(passed, 0.001), duration)
                last = min(last, passed + _TO_END_S)
                for child in self._children:
                    child.stop_early()
            if passed > last:
                run.stop("the flood did not end in time")
                killed = True
                self.close()
            run.tell(
                f"{what}: {self.plan.rate:g}/s, {max(0, passed):.1f} of {self.plan.duration_s:g} s"
            )
            gevent.wait(readers, timeout=0.1)
        records, headers = Records(), []
        for child, reader in zip(self._children, readers, strict=True):
            head, _, body = reader.get().partition(b"\n")
            if not head and not killed:
                raise LocalError(
                    f"a process of the flood ended early, with status {child.status()}; its "
                    "attempts are missing (a signal's number below 0: -9 is often too little "
                    "memory)"
                )
            headers.append(json.loads(head) if head else {})
            records.extend(Records.from_bytes(body))
        self.close()
        return FloodResult(
            records,
            start_ns,
            duration,
            [header.get("cpu_share", 1.0) for header in headers],
            sum(pace.planned for pace in self.plan.paces()),
            sum(header.get("started", 0) for header in headers),
            sum(header.get("dropped", 0) for header in headers),
            [(begin, end) for header in headers for begin, end in header.get("served", ())],
        )

    def close(self) -> None:
        """Kill what is left of the processes. May be called again."""
        for child in self._children:
            child.close()


def _pattern(text: str | None) -> re.Pattern[bytes] | None:
    return None if text is None else re.compile(text.encode("latin-1"), re.DOTALL)


def main() -> None:
    """One process of a flood."""
    die_with_parent(int(sys.argv[1]))
    spec: dict[str, Any] = json.loads(sys.stdin.readline())
    target = parse_target(spec["target"])
    name, speaks, send, *patterns = spec["profile"]
    expect, reject, status, greeting = map(_pattern, patterns)
    profile = Profile(
        name, Speaks(speaks), send.encode("latin-1"), expect, reject, status, greeting
    )
    pace = ConstantRate(*spec["pace"])
    records = Records(pace.planned)
    oracle = Oracle() if spec["oracle"] else None
    patience = Patience(*spec["patience"])
    admitted: list[Attempt] = []
    known: dict[Attempt, int] = {}  # until when it was certainly served

    def on_outcome(attempt: Attempt) -> None:
        records.add(attempt)
        if attempt.outcome is Outcome.ADMITTED:
            admitted.append(attempt)
        else:
            engine.end(attempt)

    def look() -> None:
        """Who is still served, by the kernel's account: an end may have come and wait to be read,
        perhaps while another process's client is let in for it."""
        now = monotonic_ns()
        known.update((attempt, now) for attempt in admitted if engine.is_held(attempt))

    engine = Engine(
        target,
        profile,
        patience,
        oracle=oracle,
        sources=spec["sources"],
        on_outcome=on_outcome,
        reset_on_close=spec["reset"],
        note_sources=True,
    )
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS
    with Run(pace.duration_s + patience.deadline_s + 5, stream=None) as run, collector_off():
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        start_ns = int(sys.stdin.readline())
        header = _flood(engine, pace, start_ns, open_files, run, look)
        look()
        header["served"] = [(a.served, known.get(a, a.served + 1)) for a in admitted]
        engine.close()
    if engine.failure is not None:
        raise engine.failure
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + records.to_bytes())
    sys.stdout.flush()
    os._exit(0)  # tens of thousands of records need no orderly teardown


def _flood(
    engine: Engine,
    pace: ConstantRate,
    start_ns: int,
    open_files: int,
    run: Run,
    look: Callable[[], None],
) -> dict[str, Any]:
    """Make it; *look* is called ten times a second meanwhile."""

    def arrive(intended: int) -> bool:
        if engine.open_count >= open_files:
            return False
        engine.start(intended, keep=True)
        return True

    loop = OpenLoop(pace, start_ns, arrive)
    run.pause((start_ns - monotonic_ns()) / 1e9)
    cpu, began = time.process_time(), time.monotonic()
    ends = start_ns / 1e9 + pace.duration_s * _GRACE + 0.01
    while not run.stopped and not loop.all_started.is_set() and time.monotonic() < ends:
        loop.all_started.wait(min(0.1, max(0.001, ends - time.monotonic())))
        look()
    share = (time.process_time() - cpu) / max(time.monotonic() - began, 1e-9)
    loop.close()
    while engine.in_flight and not run.stopped:
        gevent.sleep(0.005)
    if loop.failure is not None:
        raise loop.failure
    if run.partial:
        return {"cpu_share": share, "started": loop.started, "dropped": loop.dropped}
    return {
        "cpu_share": share,
        "started": loop.started,
        "dropped": pace.planned - loop.started,
    }


if __name__ == "__main__":
    main()
