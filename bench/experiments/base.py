"""What an experiment is: one question, put to one server that was just started."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from bench.advice import fitting
from bench.peers import Peer, Policy, Running
from bench.peers.base import HOST
from bench.results import Figure
from bench.stats import BOOTSTRAP_BLOCKS
from gserver.probe.attempt import Patience
from gserver.probe.calibrate import Calibration
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.profiles import PROFILES
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.target import Target, parse_target

__all__ = ["Experiment", "Figures", "Subject", "Unfit", "micro", "otherwise", "subject"]

Figures = dict[str, float | None]

OUTCOME = {
    Policy.FIN: Outcome.FIN,
    Policy.RST: Outcome.RST,
    Policy.MESSAGE: Outcome.MESSAGE,
    Policy.REFUSED: Outcome.REFUSED,
}

#: Seconds until a client of a server that queues is given up, where others wait for two: it would
#: hear nothing in those either, and each of them is waited for at the end.
QUEUE_DEADLINE = 1.0


class Unfit(Exception):
    """The block gave no figure that may stand: the client was at fault, or the server didn't
    come to the state that the experiment starts from. ``str()`` says which."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server as the probe sees it, and what was noticed while it was measured."""

    peer: Peer
    running: Running
    cap: int
    target: Target
    calibration: Calibration
    warnings: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Outcome | None:
        """What a client turned away by this server sees; None: it turns nobody away."""
        return OUTCOME.get(self.peer.policy)

    def judged(self, found: Result) -> dict[str, float]:
        """Return the figures of a probe's run; raise :class:`Unfit` for one that does not count.

        Its warnings become the subject's.
        """
        if found.invalid:
            raise Unfit("; ".join(map(fitting, found.invalid)))
        self.warnings.extend(map(fitting, found.warnings))
        if over := found.figures.get("over_admissions"):
            self.warnings.append(f"{over:g} more than the cap were served at once")
        return found.figures


@contextmanager
def subject(peer: Peer, running: Running, cap: int) -> Iterator[Subject]:
    """Describe ``running`` for the probe, without a connection: what a peer speaks is known.

    ``cap`` is what was asked for; :attr:`Subject.cap` is what the peer makes of it. A failing
    target becomes :class:`Unfit`.
    """
    oracle = Oracle()
    patience = Patience()
    if peer.policy is Policy.QUEUE:
        patience = Patience(deadline_s=QUEUE_DEADLINE)
    # Time to the first sign of admission is taken by none of the experiments.
    calibration = Calibration(PROFILES[peer.profile], patience, 0.0, None, oracle)
    target = parse_target(f"{HOST}:{running.port}")
    try:
        yield Subject(peer, running, peer.capacity(cap) or cap, target, calibration)
    except (LocalError, TargetError) as error:
        raise Unfit(fitting(str(error))) from error
    finally:
        oracle.close()


class Experiment:
    """Subclasses fill in the class variables and :meth:`measure`."""

    name: ClassVar[str]
    title: ClassVar[str]
    figures: ClassVar[Sequence[Figure]]
    #: About how long one server takes, its start and end included; and one that queues.
    seconds: ClassVar[float]
    queue_seconds: ClassVar[float | None] = None
    #: How often each server is asked: in so many rounds.
    rounds: ClassVar[int] = BOOTSTRAP_BLOCKS
    #: Whether a first look has it.
    quick: ClassVar[bool] = True
    #: The one cap that it is run at, where the answer does not depend on it.
    own_cap: ClassVar[int | None] = None

    def fits(self, peer: Peer) -> bool:
        """Whether the question makes sense for ``peer``. Without a limit few do."""
        return peer.policy is not Policy.UNLIMITED

    def group(self, peer: Peer) -> str:
        """Return the name of those that ``peer`` may be compared with: one policy's, unless said
        otherwise. What a queueing server's client waits for is not what a rejected one is told."""
        return peer.group

    def compares(self, peer: Peer) -> bool:
        """Whether ratios are made of ``peer``'s figures, so that an A/A row is needed.

        Those that queue tell nobody anything: what their clients are told is shown, not compared.
        """
        return peer.policy is not Policy.QUEUE and any(figure.compared for figure in self.figures)

    def measure(self, subject: Subject, run: Run) -> Figures:
        """Return the figures by key. The server is fresh, and ended by the caller.

        What qualifies them goes to the subject's warnings. Raises :class:`Unfit`. Closes every
        connection it made. When ``run`` is stopped the figures don't count.
        """
        raise NotImplementedError


def micro(seconds: float | None) -> float | None:
    """Seconds to microseconds; None stays None."""
    return None if seconds is None else seconds * 1e6


def otherwise(kind: Outcome, latencies: Mapping[Outcome, Sequence[int]], attempts: int) -> str:
    """Say how many of ``attempts`` were turned away in another way than ``kind``; "": none.

    ``latencies``: of each outcome, in ns. Kinds are never put together in one figure.
    """
    others = [
        f"{len(mine)} {outcome} (p50 {statistics.median(mine) / 1e3:.0f} us)"
        for outcome, mine in latencies.items()
        if outcome in REJECTIONS and outcome is not kind
    ]
    return f"of {attempts} clients {', '.join(others)} instead of {kind}" if others else ""
