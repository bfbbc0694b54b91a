"""What an experiment is: one question, put to one server that was just started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from bench.peers import Peer, Policy, Running
from bench.peers.base import HOST
from bench.results import Figure
from gserver.probe.attempt import Patience
from gserver.probe.calibrate import Calibration
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.oracle import Oracle
from gserver.probe.profiles import PROFILES
from gserver.probe.run import Run
from gserver.probe.target import Target, parse_target

__all__ = ["Experiment", "Figures", "Subject", "Unfit", "micro", "subject"]

Figures = dict[str, float | None]


class Unfit(Exception):
    """The block gave no figure that may stand: the client was at fault, or the server didn't
    come to the state that the experiment starts from. ``str()`` says which."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server as the probe sees it."""

    peer: Peer
    running: Running
    cap: int
    target: Target
    calibration: Calibration


@contextmanager
def subject(peer: Peer, running: Running, cap: int) -> Iterator[Subject]:
    """Describe ``running`` for the probe, without a connection: what a peer speaks is known.

    ``cap`` is what was asked for; :attr:`Subject.cap` is what the peer makes of it. A failing
    target becomes :class:`Unfit`.
    """
    oracle = Oracle()
    # Time to the first sign of admission is taken by none of the experiments.
    calibration = Calibration(PROFILES[peer.profile], Patience(), 0.0, None, oracle)
    target = parse_target(f"{HOST}:{running.port}")
    try:
        yield Subject(peer, running, peer.capacity(cap) or cap, target, calibration)
    except (LocalError, TargetError) as error:
        raise Unfit(str(error)) from error
    finally:
        oracle.close()


class Experiment:
    """Subclasses fill in the class variables and :meth:`measure`."""

    name: ClassVar[str]
    title: ClassVar[str]
    figures: ClassVar[Sequence[Figure]]
    #: About how long one server takes, its start and end included.
    seconds: ClassVar[float]
    #: The caps it is run at, unless others are asked for.
    caps: ClassVar[Sequence[int]] = (10, 1_000)

    def fits(self, peer: Peer) -> bool:
        """Whether the question makes sense for ``peer``. Without a limit few do."""
        return peer.policy is not Policy.UNLIMITED

    def group(self, peer: Peer) -> str:
        """Return the name of those that ``peer`` may be compared with: one policy's, unless said
        otherwise. What a queueing server's client waits for is not what a rejected one is told."""
        return peer.policy

    def measure(self, subject: Subject, run: Run) -> Figures:
        """Return the figures by key. The server is fresh, and ended by the caller.

        Raises :class:`Unfit`. Closes every connection it made. When ``run`` is stopped the
        figures don't count.
        """
        raise NotImplementedError


def micro(seconds: float | None) -> float | None:
    """Seconds to microseconds; None stays None."""
    return None if seconds is None else seconds * 1e6
