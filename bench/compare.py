"""The comparison: every experiment against every server, fresh for each block, in ABBA order."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiments import Experiment, Unfit, subject
from bench.peers import Missing, Peer, PeerFailed, start
from bench.plan import Pass, Place, Step, passes, seconds
from bench.progress import Progress
from bench.results import Block, Group, PeerInfo, Result, Series
from gserver.probe.oracle import Oracle

__all__ = ["compare_all", "describe", "find_all"]


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


def describe(peer: Peer, cap: int) -> PeerInfo:
    """Start ``peer`` once to learn what its listener's backlog is, and return what is known.

    Raises :class:`PeerFailed`.
    """
    with start(peer, cap) as running:
        oracle = Oracle()
        try:
            backlog = oracle.listeners(running.port)[0].backlog
        finally:
            oracle.close()
    return PeerInfo(peer.name, peer.title, peer.policy, peer.counts, peer.version(), backlog)


def compare_all(plan: Sequence[Step], peers: Sequence[Peer], result: Result, run: Progress) -> None:
    """Do all of ``plan`` and write it into ``result``; what there is when ``run`` is stopped.

    A server that doesn't start is left out and named. A block in which a server fails later, or
    the client is at fault, is tried once more; what fails twice leaves a block without figures
    that says why. The others go on.
    """
    run.plan(seconds(plan, len(peers)))
    for peer in peers:
        run.place = f"looking at {peer.name}"
        run.tell("")
        look_at(peer, result)
        if run.stopped:
            break
    rows: dict[int, dict[Place, Series]] = {}
    for step in plan:
        here = [place for place in step.order if place.peer.name in result.peers]
        rows[id(step)] = {place: Series(place.peer.name, place.group, place.twin) for place in here}
        result.groups.append(group(step.experiment, step.cap, list(rows[id(step)].values())))
    for each in passes(plan):
        if run.stopped:
            break
        run_pass(each, rows[id(each.step)], run)
    result.groups = [group for group in result.groups if any(row.blocks for row in group.series)]
    result.partial = run.partial


def look_at(peer: Peer, result: Result) -> None:
    """Describe ``peer`` in ``result``; one that fails twice is left out, and why is said."""
    why = ""
    for _ in range(2):  # as with blocks: another program may have been given its port
        try:
            result.peers[peer.name] = describe(peer, 10)
        except PeerFailed as error:
            why = str(error)
        else:
            return
    result.failed[peer.name] = why


def group(experiment: Experiment, cap: int, series: list[Series]) -> Group:
    """Return the table of an experiment, still without figures."""
    return Group(experiment.name, experiment.title, cap, list(experiment.figures), series)


def run_pass(each: Pass, rows: dict[Place, Series], run: Progress) -> None:
    """Run one round of one experiment; what is under way when it is stopped does not count."""
    step = each.step
    for place in each.order:
        if place not in rows:
            continue
        where = f"{step.experiment.name}, cap {step.cap}, round {each.round} of {step.rounds}"
        run.place = f"{where}, {place.label}"
        run.tell("starting")
        block = run_block(step, place, run)
        if block.failed and not run.stopped:
            why = block.failed
            run.tell("once more")
            block = run_block(step, place, run)
            block.warnings.insert(0, f"measured a second time; the first: {why}")
        if run.stopped:
            return
        rows[place].blocks.append(block)
        run.done(step.seconds_at(place))


def run_block(step: Step, place: Place, run: Progress) -> Block:
    """Put one experiment to one fresh server."""
    try:
        with (
            start(place.peer, step.cap) as running,
            subject(place.peer, running, step.cap) as it,
        ):
            return Block(step.experiment.measure(it, run), it.warnings)
    except (PeerFailed, Unfit) as error:
        return Block(failed=str(error))
    except Exception:
        if run.stopped:  # whatever a half-done measurement says
            return Block(failed="stopped")
        raise
