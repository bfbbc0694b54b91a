"""Rejections at a held cap, in an open loop: how fast clients are told, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bench.experiments.base import Experiment, Figures, Subject, Unfit, micro
from bench.peers import Peer, Policy
from bench.results import Figure
from bench.time_wait import time_wait
from gserver.probe.outcomes import REJECTIONS
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.storm import StormSettings, run_storm

#: Seconds of a flood. The first tenth is warm-up.
DURATION = 2.0

#: Source addresses, taken in turn. A client that is given the port of one before it takes over that
#: one's TIME_WAIT: of 4,000 from a single address 200 did, and the server seemed to leave 0.95.
SOURCES = 16

#: For servers that queue: attempts a second, and seconds. Each waits its whole deadline.
QUEUE_RATE, QUEUE_DURATION = 200.0, 1.0


class Storm(Experiment):
    """At a rate far below what any of the servers can take, so that latency is the time that a
    rejection takes and not the length of a queue. Every rejection wakes the server up."""

    name = "storm"
    title = "Rejections at a held cap, 2,000 a second"
    seconds = 4.0
    rate: ClassVar[float] = 2_000.0
    #: Whether clients end with RST, which leaves no TIME_WAIT on either side.
    reset_on_close: ClassVar[bool] = False
    figures: ClassVar[Sequence[Figure]] = (
        Figure("p50", "latency p50", "us", compared=True, plotted=True),
        Figure("p99", "p99", "us", compared=True, plotted=True),
        Figure("cpu", "server CPU", "us", compared=True, plotted=True),
        Figure("machine", "machine CPU", "us"),
        Figure("time_wait", "TIME_WAIT each"),
        Figure("unanswered", "unanswered %"),
        Figure("over", "over-admitted"),
    )

    def measure(self, subject: Subject, run: Run) -> Figures:
        queues = subject.peer.policy is Policy.QUEUE
        settings = StormSettings(
            cap=subject.cap,
            rate=QUEUE_RATE if queues else self.rate,
            duration_s=QUEUE_DURATION if queues else DURATION,
            sources=SOURCES,
            reset_on_close=self.reset_on_close,
            pid=subject.running.pid,
        )
        found = Result(self.name, subject.target.text)
        run_storm(subject.target, subject.calibration, run, settings, found)
        if found.invalid:
            raise Unfit("; ".join(found.invalid))
        if found.records is None:
            raise Unfit("stopped before the flood")
        rows = [row[3] for row in found.records.rows()]
        rejected = sum(outcome in REJECTIONS for outcome in rows)
        figures = found.figures
        waiting = time_wait(subject.running.port)
        # The machine's table was full (tcp_max_tw_buckets): the server was spared some.
        overflow = figures.get("time_wait_overflow", 0)
        every: Figures = {
            "p50": micro(figures.get("reject.p50")),
            "p99": micro(figures.get("reject.p99")),
            "cpu": micro(figures.get("cpu_per_rejection")),
            "machine": micro(figures.get("machine_cpu_per_attempt")),
            "time_wait": waiting / rejected if rejected and not overflow else None,
            "unanswered": 100.0 * (1.0 - rejected / len(rows)),
            "over": figures["over_admissions"],
        }
        return {figure.key: every[figure.key] for figure in self.figures}


class Flood(Storm):
    """At a rate where a server finds several clients in one turn of its loop, and shares the cost
    of waking up among them: what a rejection costs where cost matters."""

    name = "flood"
    title = "Rejections at a held cap, 8,000 a second"
    rate = 8_000.0
    # Else 16,000 TIME_WAITs a run fill the kernel's table, and the servers that run later are
    # spared them, and their cost. What they leave is counted in the storm.
    reset_on_close = True
    figures = (
        Figure("cpu", "server CPU", "us", compared=True, plotted=True),
        Figure("machine", "machine CPU", "us"),
        Figure("unanswered", "unanswered %"),
        Figure("over", "over-admitted"),
    )

    def fits(self, peer: Peer) -> bool:
        """Not those that queue: they would hold every client of the flood."""
        return super().fits(peer) and peer.policy is not Policy.QUEUE
