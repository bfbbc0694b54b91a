"""The comparison: every experiment against every server, fresh for each block, in ABBA order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import stats
from bench.experiments import Experiment, Unfit, subject
from bench.peers import Missing, Peer, PeerFailed, start
from bench.progress import Progress
from bench.results import Group, PeerInfo, Series
from gserver.probe.oracle import Oracle

__all__ = ["Place", "describe", "find_all", "places", "run_group"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of a block: a peer in its group, or its second run there."""

    peer: Peer
    group: str
    twin: bool = False


def find_all(peers: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    """Return the peers that are installed, and for each that isn't what to do about it."""
    found, missing = [], {}
    for peer in peers:
        try:
            peer.find()
        except Missing as error:
            missing[peer.name] = str(error)
        else:
            found.append(peer)
    return found, missing


def places(experiment: Experiment, peers: Sequence[Peer]) -> list[Place]:
    """Return the fitting peers in their groups, each group's first once more at its end.

    At the end, and not beside it: the twins are then as far apart in time as the reference is
    from those it is compared with.
    """
    groups: dict[str, list[Peer]] = {}
    for peer in peers:
        if experiment.fits(peer):
            groups.setdefault(experiment.group(peer), []).append(peer)
    order = []
    for name, members in groups.items():
        order += [Place(peer, name) for peer in members]
        order.append(Place(members[0], name, twin=True))
    return order


def describe(peer: Peer, cap: int) -> PeerInfo:
    """Start ``peer`` once to learn what its listener's backlog is, and return what is known."""
    with start(peer, cap) as running:
        oracle = Oracle()
        try:
            backlog = oracle.listeners(running.port)[0].backlog
        finally:
            oracle.close()
    return PeerInfo(peer.name, peer.title, peer.policy, peer.counts, peer.version(), backlog)


def run_group(
    experiment: Experiment, cap: int, peers: Sequence[Peer], blocks: int, run: Progress
) -> Group:
    """Run one experiment at one cap; returns what there is when ``run`` is stopped.

    A server that fails, or a block in which the client was at fault, leaves the block without
    figures and a note; the others go on.
    """
    order = places(experiment, peers)
    rows = {place: Series(place.peer.name, place.group, place.twin) for place in order}
    for block, sequence in enumerate(stats.orders(order, blocks), 1):
        for place in sequence:
            row = rows[place]
            run.place = f"{experiment.name}, cap {cap}, block {block} of {blocks}, {row.label}"
            run.tell("starting")
            try:
                with (
                    start(place.peer, cap) as running,
                    subject(place.peer, running, cap) as it,
                ):
                    figures = experiment.measure(it, run)
            except (PeerFailed, Unfit) as error:
                figures = {}
                if not run.stopped:
                    row.notes.append(f"block {block}: {error}")
            if run.stopped:
                break  # what was being measured when it was stopped does not count
            row.blocks.append(figures)
        if run.stopped:
            break
    return Group(
        experiment.name, experiment.title, cap, list(experiment.figures), list(rows.values())
    )
