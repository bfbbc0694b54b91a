"""Rejections at a held cap, in an open loop: how fast clients are told, and what it costs."""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject, Unfit, micro
from bench.peers import Policy
from bench.results import Figure
from bench.time_wait import time_wait
from gserver.probe.outcomes import REJECTIONS
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.storm import StormSettings, run_storm

#: Attempts a second, and seconds. Far below what any of the servers can take, so that the figure
#: is the cost of a rejection and not the length of a queue.
RATE, DURATION = 2_000.0, 2.0

#: For servers that queue. Each attempt waits its whole deadline: few of them show it.
QUEUE_RATE, QUEUE_DURATION = 200.0, 1.0


class Storm(Experiment):
    name = "storm"
    title = f"Rejections at a held cap, {RATE:,.0f} a second"
    seconds = 4.0
    figures = (
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
            rate=QUEUE_RATE if queues else RATE,
            duration_s=QUEUE_DURATION if queues else DURATION,
            pid=subject.running.pid,
        )
        found = Result("storm", subject.target.text)
        run_storm(subject.target, subject.calibration, run, settings, found)
        if found.invalid:
            raise Unfit("; ".join(found.invalid))
        if found.records is None:
            raise Unfit("stopped before the flood")
        rows = [row[3] for row in found.records.rows()]
        rejected = sum(outcome in REJECTIONS for outcome in rows)
        told = rejected / len(rows)
        figures = found.figures
        return {
            "p50": micro(figures.get("reject.p50")),
            "p99": micro(figures.get("reject.p99")),
            "cpu": micro(figures.get("cpu_per_rejection")),
            "machine": micro(figures.get("machine_cpu_per_attempt")),
            "time_wait": time_wait(subject.running.port) / rejected if rejected else None,
            "unanswered": 100.0 * (1.0 - told),
            "over": figures["over_admissions"],
        }
