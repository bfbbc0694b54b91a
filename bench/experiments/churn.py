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

TRIES = 500


class Churn(Experiment):
    name = "churn"
    title = f"Close, then reconnect, {TRIES} times at a full cap"
    seconds = 7.0
    figures = (
        Figure("first", f"admitted at once of {TRIES}", plotted=True),
        Figure("false", "false rejections"),
        Figure("lag", "close to successful connect p50", "us"),
        Figure("over", "over-admitted"),
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
        if found.invalid:
            raise Unfit("; ".join(found.invalid))
        figures = found.figures
        if figures["reconnect.slots_lost"]:
            raise Unfit(f"a slot did not come back, at try {figures['reconnect.tries']}")
        if figures["reconnect.tries"] != TRIES:
            raise Unfit(f"only {figures['reconnect.tries']} of {TRIES} clients came back")
        return {
            "first": figures["reconnect.first_try"],
            "false": figures["false_rejections.certain"],
            "lag": micro(figures.get("reconnect.connect_lag.p50")),
            "over": figures["over_admissions"],
        }
