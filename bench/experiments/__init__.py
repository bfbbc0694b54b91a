"""The questions of the comparison, each a small file: by name in :data:`EXPERIMENTS`."""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject, Unfit, subject
from bench.experiments.burst import Burst
from bench.experiments.churn import Churn
from bench.experiments.isolation import Isolation
from bench.experiments.memory import Memory
from bench.experiments.storm import Flood, Storm

__all__ = ["EXPERIMENTS", "Experiment", "Figures", "Subject", "Unfit", "subject"]

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (Storm(), Flood(), Churn(), Burst(), Isolation(), Memory())
}
