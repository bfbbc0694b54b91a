"""``python -m bench compare``, ``show`` for its results again, and ``peers`` for who takes part."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import click

from bench.compare import compare_all, find_all
from bench.experiments import EXPERIMENTS
from bench.files import put
from bench.options import html_option, json_option, numbers
from bench.page import page
from bench.peers import PEERS, Missing
from bench.plan import seconds, steps
from bench.progress import Progress, duration
from bench.results import Result, merged
from bench.stats import BOOTSTRAP_BLOCKS
from bench.table import render
from gserver.probe.environment import environment
from gserver.probe.result import EXIT_INVALID, EXIT_USAGE

__all__ = ["compare", "peers", "show"]

CAPS = (10, 1_000)

#: Runnable processes on average before the first measurement, from which on they are in the way.
BUSY = 0.5

#: Descriptors beside those of the connections: of a queueing server's flood, and of ours.
SPARE_DESCRIPTORS = 2_000


@click.command()
def peers() -> None:
    """List the servers, what their clients see at the cap, and how to install those missing."""
    for peer in PEERS.values():
        try:
            peer.find()
            state = peer.version()
        except Missing as error:
            state = str(error)
        click.echo(f"{peer.name:20} {peer.policy:10} {state}\n{'':31} counts {peer.counts}")


@click.command()
@click.option("--caps", type=numbers, help="Such as 10,1000, which is the default.")
@click.option("--experiment", "names", multiple=True, type=click.Choice(list(EXPERIMENTS)))
@click.option("--peer", "chosen", multiple=True, type=click.Choice(list(PEERS)))
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help=f"Each experiment so often.  [default: {BOOTSTRAP_BLOCKS}]",
)
@click.option("--quick", is_flag=True, help="A first look, below 5 minutes: one round, at cap 10.")
@click.option("--seed", default=1, show_default=True, help="For the bootstrap intervals.")
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    help="Minutes; the result is then partial.  [default: a quarter more than is planned]",
)
@click.option("--details", is_flag=True, help="Print the table of each experiment, too.")
@json_option
@html_option
def compare(
    caps: tuple[int, ...] | None,
    names: tuple[str, ...],
    chosen: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    seed: int,
    time_limit: float | None,
    details: bool,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Put every experiment to every server that is installed, side by side.

    Ctrl-C gives what there is, marked partial. Exit status 3: partial, or blocks are missing.
    """
    caps = caps or (CAPS[:1] if quick else CAPS)
    raise_descriptor_limit(2 * max(caps) + SPARE_DESCRIPTORS)
    experiments = [EXPERIMENTS[name] for name in names or EXPERIMENTS]
    if quick:
        rounds = rounds or 1
        experiments = [each for each in experiments if each.quick or names]
    found, missing = find_all([PEERS[name] for name in chosen or PEERS])
    plan = steps(experiments, caps, found, rounds)
    if not any(step.order for step in plan):
        raise click.UsageError(nothing_to_do(missing))
    planned = seconds(plan, len(found))
    limit = 60.0 * time_limit if time_limit else 1.25 * planned + 60.0
    click.echo(
        f"planned: {duration(planned)}, at most {duration(limit)}; "
        f"{len(found)} servers, {sum(step.rounds * len(step.order) for step in plan)} blocks",
        err=True,
    )
    # Where on this machine its files are kept is nobody's business.
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    command = ["python", "-m", "bench", *words]
    result = Result(environment(command, seed), seed, {}, missing, groups=[])
    if text := busy(result.environment["load_average"][0]):
        click.echo(f"warning: {text}", err=True)
    run = Progress(limit)
    with run:
        compare_all(plan, found, result, run)
    whole = deliver(result, json_file, html_file, details)
    if result.partial or result.gaps():
        sys.exit(EXIT_INVALID)
    if not whole:
        sys.exit(EXIT_USAGE)


def busy(load: float) -> str:
    """Say that the machine has other things to do, by its load average of a minute; "" if not."""
    if load <= BUSY:
        return ""
    return (
        f"the machine is not idle: load average {load:.2f}, above {BUSY:g}; figures will be worse"
    )


def nothing_to_do(missing: Mapping[str, str]) -> str:
    """Say why none of the servers that were asked for can be put to any of the experiments."""
    if missing:
        return "nothing to measure: " + "; ".join(missing.values())
    return "nothing to measure: none of these experiments fits any of these servers"


def raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit on open files as far as it goes: the servers inherit it.

    Raises :class:`click.BadParameter` when that is not enough.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        raise click.BadParameter(
            f"needs {needed:,} open files, and the hard limit is {hard:,} (ulimit -Hn)",
            param_hint="--caps",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.File())
@click.option("--details", is_flag=True, help="Print the table of each experiment, too.")
@json_option
@html_option
def show(
    files: tuple[IO[str], ...],
    details: bool,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Print the tables of what compare --json wrote.

    Several files are taken together, their rounds one after the other: a long comparison can be
    made in short runs, each while the machine is free. They must be of the same machine and
    versions, and each given once.
    """
    try:
        results = [Result.from_json(json.load(file)) for file in files]
    except (ValueError, KeyError, TypeError) as error:
        raise click.BadParameter(f"no results of compare --json: {error}") from error
    try:
        result = merged(results)
    except ValueError as error:
        raise click.BadParameter(f"not to be taken together: {error}") from error
    if not deliver(result, json_file, html_file, details):
        sys.exit(EXIT_USAGE)


def deliver(result: Result, json_file: Path | None, html_file: Path | None, details: bool) -> bool:
    """Write the files that were asked for, then print the tables: who reads those may have gone.

    Returns False when a file was not written, and says so.
    """
    whole = json_file is None or put(json_file, json.dumps(result.to_json(), indent=1) + "\n")
    whole = (html_file is None or put(html_file, page(result))) and whole
    click.echo(render(result, details=details))
    return whole
