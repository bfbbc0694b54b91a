"""Five hundred clients at the same instant against a cap of three: who is served, who is told."""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject, Unfit, micro, otherwise
from bench.results import Figure
from gserver.probe.attempt import Patience
from gserver.probe.engine import Engine
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.run import Run, collector_off
from gserver.probe.stats import summarise

CLIENTS = 500

#: Seconds. A SYN that the listener's queue had no room for is sent again after 1 s and 3 s
#: (tcp_syn_retries in ip-sysctl.rst; RFC 6298, 2.1): who hears nothing by then is left hanging.
DEADLINE = 4.0

#: Seconds for which a client listens before it speaks: longer than a server takes to come to the
#: last of them. What one had said by then would turn its end-of-file into a reset.
QUIET = 0.1
DEFAULT = Patience()


class Burst(Experiment):
    name = "burst"
    title = f"{CLIENTS} simultaneous connects"
    own_cap = 3
    seconds = 0.9
    queue_seconds = 4.6
    figures = (
        Figure("served", "served"),
        Figure("rejected", "rejected"),
        Figure("other", "rejected otherwise", over="max"),
        Figure("unanswered", f"unanswered in {DEADLINE:g} s", over="max", plotted=True),
        Figure("p50", "verdict p50", "us"),
        Figure("last", "last verdict", "us", compared=True, plotted=True),
    )

    def measure(self, subject: Subject, run: Run) -> Figures:
        engine = Engine(
            subject.target,
            subject.calibration.profile,
            Patience(DEFAULT.quiet_s if subject.peer.asked else QUIET, DEADLINE),
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
        latencies: dict[Outcome, list[int]] = {}
        for attempt in attempts:
            if attempt.outcome is not None:
                mine = latencies.setdefault(attempt.outcome, [])
                mine.append(attempt.finished - attempt.started)
        told = sum(outcome in REJECTIONS for outcome in outcomes)
        kind = subject.kind
        if kind is not None and (text := otherwise(kind, latencies, CLIENTS)):
            subject.warnings.append(text)
        if served != subject.cap and kind is not None:
            subject.warnings.append(f"{served} were served, where {subject.cap} fit")
        latency = summarise(latencies.get(kind, []) if kind else [])
        return {
            "served": served,
            "rejected": latency.count,
            "other": told - latency.count,
            "unanswered": CLIENTS - served - told,
            "p50": micro(latency.percentiles.get("p50")),
            "last": micro(latency.max) if latency.count else None,
        }
