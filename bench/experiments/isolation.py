"""Do admitted clients notice a flood of people being turned away?

Against a control: the same flood to a sink on this machine, which closes at once and never touches
the server. It costs the clients as much as a flood that is closed or reset; one that is asked
first, refused or left to wait costs them more or less, and that is in the ratio.
"""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject, micro
from bench.peers import Peer, Policy
from bench.results import Figure
from gserver.probe.isolation import IsolationSettings, run_isolation
from gserver.probe.result import Result
from gserver.probe.run import Run

#: Attempts a second of the flood; requests a second of all victims together; seconds a phase.
FLOOD, REQUESTS, PHASE = 4_000.0, 1_500.0, 0.8

#: The flood of a server that queues: every attempt stays open, and 3,000 of them are more than the
#: client can hold and keep its rate.
QUEUE_FLOOD = 500.0

VICTIMS = 10

#: Echoes of a phase that are in its figures: its first tenth is warm-up.
SAMPLES = round(0.9 * REQUESTS * PHASE)


class Isolation(Experiment):
    name = "isolation"
    title = (
        f"Echo of admitted clients while {FLOOD:,.0f} a second are turned away "
        f"({QUEUE_FLOOD:,.0f} left to wait)"
    )
    seconds = 3.3
    queue_seconds = 5.0
    figures = (
        Figure("control", "p50, flood elsewhere", "us"),
        Figure("flood", "p50, flood here", "us"),
        Figure("p50", "p50 here/elsewhere", "x", compared=True, plotted=True),
        Figure("p99", "p99 here/elsewhere", "x", compared=True, plotted=True),
        Figure("goodput", "goodput here/elsewhere", "x"),
        Figure("lost", "victims lost", over="max"),
    )

    def compares(self, peer: Peer) -> bool:
        """Whatever those over the cap are told: the echo is that of the admitted."""
        return True

    def measure(self, subject: Subject, run: Run) -> Figures:
        settings = IsolationSettings(
            cap=subject.cap,
            victims=VICTIMS,
            victim_rate=REQUESTS,
            rate=QUEUE_FLOOD if subject.peer.policy is Policy.QUEUE else FLOOD,
            duration_s=PHASE,
            phases=("control", "flood"),
        )
        found = Result("isolation", subject.target.text)
        run_isolation(subject.target, subject.calibration, run, settings, found)
        figures = subject.judged(found)
        return {
            "control": micro(figures.get("control.p50")),
            "flood": micro(figures.get("flood.p50")),
            "p50": figures.get("isolation.p50"),
            "p99": figures.get("isolation.p99"),
            "goodput": figures.get("isolation.goodput"),
            "lost": figures.get("victims_lost"),
        }
