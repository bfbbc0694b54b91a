"""Rejections at a held cap, in an open loop: how fast clients are told, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bench.experiments.base import Experiment, Figures, Subject, Unfit, micro, otherwise
from bench.peers import Peer, Policy
from bench.results import Figure
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.storm import StormSettings, run_storm

#: Source addresses, taken in turn. A client that is given the port of one before it takes over that
#: one's TIME_WAIT: of 4,000 from a single address 200 did, and the server seemed to leave 0.95.
SOURCES = 16

#: For servers that queue: attempts a second, and seconds. Each waits its whole deadline.
QUEUE_RATE, QUEUE_DURATION = 200.0, 1.0


#: The share of a flood's time whose attempts are in no figure (gserver.probe.flood).
WARM_UP = 0.1

#: Of all attempts. A latency is that of one kind of rejection, the server's own.
COUNTS = (
    Figure("other", "rejected otherwise", "%", over="max"),
    Figure("unanswered", "unanswered", "%", over="max"),
    Figure("over", "over-admitted", over="max"),
)


class Storm(Experiment):
    """At a rate far below what any of the servers can take, so that latency is the time that a
    rejection takes and not the length of a queue. Every rejection wakes the server up."""

    name = "storm"
    title = "Rejections at a held cap, 2,000 a second"
    seconds = 1.9
    queue_seconds = 4.0
    rate: ClassVar[float] = 2_000.0
    #: Seconds of a flood, warm-up included.
    duration: ClassVar[float] = 1.0
    #: Whether clients end with RST, which leaves no TIME_WAIT on either side.
    reset_on_close: ClassVar[bool] = False
    figures: ClassVar[Sequence[Figure]] = (
        Figure("p50", "latency p50", "us", compared=True, plotted=True),
        Figure("p99", "p99", "us", compared=True, plotted=True),
        # From the intended start: what the client's own lateness adds.
        Figure("response_p50", "response p50", "us"),
        Figure("response_p99", "response p99", "us"),
        Figure("cpu", "server CPU", "us", compared=True, plotted=True),
        Figure("machine", "machine CPU", "us"),
        Figure("time_wait", "TIME_WAIT each"),
        Figure("queued", "queued", over="sum"),
        Figure("hung", "hung", over="sum"),
        *COUNTS,
    )

    @classmethod
    def samples(cls) -> int:
        """Return the attempts of a round that are in its figures."""
        return round((1 - WARM_UP) * cls.rate * cls.duration)

    def measure(self, subject: Subject, run: Run) -> Figures:
        queues = subject.peer.policy is Policy.QUEUE
        settings = StormSettings(
            cap=subject.cap,
            rate=QUEUE_RATE if queues else self.rate,
            duration_s=QUEUE_DURATION if queues else self.duration,
            sources=SOURCES,
            reset_on_close=self.reset_on_close,
            pid=subject.running.pid,
        )
        found = Result(self.name, subject.target.text)
        run_storm(subject.target, subject.calibration, run, settings, found)
        figures = subject.judged(found)
        if found.records is None:
            raise Unfit("stopped before the flood")
        latencies: dict[Outcome, list[int]] = {}
        for _, started, finished, outcome in found.records.rows():
            latencies.setdefault(outcome, []).append(finished - started)
        counts = {outcome: len(mine) for outcome, mine in latencies.items()}
        attempts = sum(counts.values())
        rejected = sum(counts.get(outcome, 0) for outcome in REJECTIONS)
        answered = rejected + counts.get(Outcome.ADMITTED, 0)
        kind = subject.kind
        if kind is not None and (text := otherwise(kind, latencies, attempts)):
            subject.warnings.append(text)
        # The machine's table was full (tcp_max_tw_buckets): nobody knows whose were thrown away.
        overflow = figures.get("time_wait_overflow", 0)
        every: Figures = {
            "p50": micro(figures.get(f"{kind}.p50")),
            "p99": micro(figures.get(f"{kind}.p99")),
            "response_p50": micro(figures.get(f"{kind}.response.p50")),
            "response_p99": micro(figures.get(f"{kind}.response.p99")),
            "cpu": micro(figures.get("cpu_per_rejection")),
            "machine": micro(figures.get("machine_cpu_per_attempt")),
            "time_wait": None if overflow else figures.get("time_wait_per_rejection"),
            "queued": counts.get(Outcome.QUEUED, 0),
            "hung": counts.get(Outcome.HANG, 0),
            "other": 100.0 * (rejected - counts.get(kind, 0)) / attempts if kind else None,
            "unanswered": 100.0 * (attempts - answered) / attempts,
            "over": figures["over_admissions"],
        }
        return {figure.key: every[figure.key] for figure in self.figures}


class Flood(Storm):
    """At a rate where a server finds several clients in one turn of its loop, and shares the cost
    of waking up among them: what a rejection costs where cost matters."""

    name = "flood"
    title = "Rejections at a held cap, 6,000 a second"
    seconds = 1.8
    quick = False
    rate = 6_000.0
    duration = 0.8
    # Else 5,000 TIME_WAITs a run fill the kernel's table, and the servers that run later are
    # spared them, and their cost. What they leave is counted in the storm.
    reset_on_close = True
    figures = (
        Figure("cpu", "server CPU", "us", compared=True, plotted=True),
        Figure("machine", "machine CPU", "us"),
        *COUNTS,
    )

    def fits(self, peer: Peer) -> bool:
        """Not those that queue: they would hold every client of the flood."""
        return super().fits(peer) and peer.policy is not Policy.QUEUE
