"""Close one connection at a full cap and reconnect at once: is the freed slot there?

The pause before each close (the quiet-time of ``gserver probe churn``) matters: a server that is
still awake from the last client sees the close sooner than one that sleeps, as it does between real
clients. Without it Envoy admitted 500 of 500, with 2 ms 85, with 10 ms 1 of 200.
"""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject, Unfit, micro
from bench.results import Figure
from gserver.probe.churn import ChurnSettings, run_churn
from gserver.probe.result import Result
from gserver.probe.run import Run

#: In each round; 504 in all.
TRIES = 84


class Churn(Experiment):
    name = "churn"
    title = f"Close, then reconnect, {TRIES} times a round at a full cap"
    seconds = 2.2
    figures = (
        Figure("tries", "tries", over="sum"),
        Figure("first", "admitted at once", over="sum", plotted=True),
        Figure("false", "false rejections", over="sum"),
        Figure("lag", "close to successful connect p50", "us"),
        Figure("over", "over-admitted", over="max"),
    )

    def measure(self, subject: Subject, run: Run) -> Figures:
        settings = ChurnSettings(
            cap=subject.cap,
            tries=TRIES,
            rate=1.0,
            duration_s=0.0,  # the serial part alone: nobody else knocks
            joiners=0,
            seed=0,
        )
        found = Result("churn", subject.target.text)
        run_churn(subject.target, subject.calibration, run, settings, found)
        figures = subject.judged(found)
        if not figures.get("reconnect.tries"):
            raise Unfit("nobody came back: the run was stopped before")
        if figures["reconnect.slots_lost"]:
            raise Unfit(f"a slot did not come back, at try {figures['reconnect.tries']}")
        if figures["reconnect.tries"] != settings.tries:
            raise Unfit(f"only {figures['reconnect.tries']} of {settings.tries} clients came back")
        return {
            "tries": figures["reconnect.tries"],
            "first": figures["reconnect.first_try"],
            "false": figures["reconnect.rejected"],
            "lag": micro(figures.get("reconnect.connect_lag.p50")),
            "over": figures["over_admissions"],
        }
