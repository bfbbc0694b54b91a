"""What a comparison will do, and how long that takes: pure, nothing is started here.

Rounds go over everything: first each experiment at each cap once, then all of it again. So an
interrupted comparison has a little of everything, and a drift of the machine is shared by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import stats
from bench.experiments import Experiment
from bench.peers import Peer, Policy

__all__ = ["Pass", "Place", "Step", "passes", "places", "seconds", "steps"]

#: Seconds to start a server once and ask what it is.
DESCRIBE = 0.4


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of a round: a peer in its group, or its second run there."""

    peer: Peer
    group: str
    twin: bool = False

    @property
    def label(self) -> str:
        return f"{self.peer.name} (A/A)" if self.twin else self.peer.name


@dataclass(frozen=True, slots=True)
class Step:
    """One experiment at one cap, so often: a table of the result."""

    experiment: Experiment
    cap: int
    rounds: int
    order: Sequence[Place]

    def seconds(self) -> float:
        """About how long one round takes."""
        return sum(self.seconds_at(place) for place in self.order)

    def seconds_at(self, place: Place) -> float:
        """About how long one server of a round takes."""
        experiment = self.experiment
        if place.peer.policy is Policy.QUEUE and experiment.queue_seconds is not None:
            return experiment.queue_seconds
        return experiment.seconds


@dataclass(frozen=True, slots=True)
class Pass:
    """One round of a step: ``order`` is there in odd rounds (counted from 1), back in even ones."""

    step: Step
    round: int
    order: Sequence[Place]


def places(experiment: Experiment, peers: Sequence[Peer]) -> list[Place]:
    """Return the fitting peers in their groups.

    The first of each group runs once more at its end, if the experiment compares: the twins are
    then as far apart in time as the reference is from those it is compared with. One that has its
    group to itself does too: how far it is from itself says what its figures are worth.
    """
    groups: dict[str, list[Peer]] = {}
    for peer in peers:
        if experiment.fits(peer):
            groups.setdefault(experiment.group(peer), []).append(peer)
    order = []
    for name, members in groups.items():
        order += [Place(peer, name) for peer in members]
        if experiment.compares(members[0]):
            order.append(Place(members[0], name, twin=True))
    return order


def steps(
    experiments: Sequence[Experiment],
    caps: Sequence[int],
    peers: Sequence[Peer],
    rounds: int | None = None,
) -> list[Step]:
    """Return the experiments at the ``caps``, or once at their own; ``rounds``: None: their own."""
    return [
        Step(experiment, cap, rounds or experiment.rounds, places(experiment, peers))
        for experiment in experiments
        for cap in ([experiment.own_cap] if experiment.own_cap else caps)
    ]


def passes(steps: Sequence[Step]) -> Iterator[Pass]:
    """Yield what is to be done, in order."""
    for number in range(max((step.rounds for step in steps), default=0)):
        for step in steps:
            if number < step.rounds:
                yield Pass(step, number + 1, stats.orders(step.order, number + 1)[number])


def seconds(steps: Sequence[Step], peers: int) -> float:
    """Return about how long all of it takes, with ``peers`` servers to describe first."""
    return DESCRIBE * peers + sum(step.rounds * step.seconds() for step in steps)
