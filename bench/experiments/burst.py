"""Five hundred clients at the same instant against a cap of three: who is served, who is told."""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject, Unfit
from bench.results import Figure
from gserver.probe.engine import Engine, Patience
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.run import Run, collector_off
from gserver.probe.stats import summarise

CLIENTS = 500

#: Seconds. A SYN that the listener's queue had no room for is sent again after 1 s and 3 s
#: (tcp_syn_retries in ip-sysctl.rst; RFC 6298, 2.1): who hears nothing by then is left hanging.
DEADLINE = 4.0


class Burst(Experiment):
    name = "burst"
    title = f"{CLIENTS} simultaneous connects"
    caps = (3,)
    seconds = 2.5
    figures = (
        Figure("served", "served"),
        Figure("rejected", "rejected"),
        Figure("unanswered", f"unanswered in {DEADLINE:g} s", plotted=True),
        Figure("p50", "verdict p50", "us", compared=True),
        Figure("last", "last verdict", "us", plotted=True),
    )

    def measure(self, subject: Subject, run: Run) -> Figures:
        engine = Engine(
            subject.target,
            subject.calibration.profile,
            Patience(deadline_s=DEADLINE),
            oracle=subject.calibration.oracle,
        )
        try:
            with collector_off():
                attempts = [engine.start(keep=True) for _ in range(CLIENTS)]
                run.until(lambda: engine.in_flight == 0, DEADLINE + 2.0)
        finally:
            served = sum(attempt.is_held for attempt in attempts)
            engine.close()
        if engine.failure is not None:
            raise engine.failure
        outcomes = [attempt.outcome for attempt in attempts]
        if None in outcomes:
            raise Unfit("stopped before every client had its outcome")
        if Outcome.LOCAL in outcomes:
            raise Unfit("connections failed on this machine: descriptors or ports")
        rejected = [attempt for attempt in attempts if attempt.outcome in REJECTIONS]
        latency = summarise([attempt.finished - attempt.started for attempt in rejected])
        return {
            "served": served,
            "rejected": len(rejected),
            "unanswered": CLIENTS - served - len(rejected),
            "p50": 1e6 * latency.percentiles["p50"] if "p50" in latency.percentiles else None,
            "last": 1e6 * latency.max if rejected else None,
        }
