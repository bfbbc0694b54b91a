"""``python -m bench compare``, ``show`` for its results again, and ``peers`` for who takes part."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

from bench.compare import describe, find_all, places, run_group
from bench.experiments import EXPERIMENTS, Experiment
from bench.page import page
from bench.peers import PEERS, Missing, Peer
from bench.progress import Progress
from bench.results import Result, merged
from bench.table import MIN_BLOCKS, render
from gserver.probe.environment import environment
from gserver.probe.result import EXIT_INVALID

__all__ = ["compare", "peers", "show"]


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
@click.option("--experiment", "names", multiple=True, type=click.Choice(list(EXPERIMENTS)))
@click.option("--peer", "chosen", multiple=True, type=click.Choice(list(PEERS)))
@click.option("--cap", "caps", multiple=True, type=click.IntRange(1, 100_000))
@click.option(
    "--blocks",
    default=MIN_BLOCKS,
    show_default=True,
    type=click.IntRange(2),
    help=f"Even, so that ABBA is whole; below {MIN_BLOCKS} no ratio is printed.",
)
@click.option("--seed", default=1, show_default=True, help="For the bootstrap intervals.")
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    help="Minutes; the result is then partial.  [default: half as much again as the estimate]",
)
@click.option("--json", "json_file", type=click.File("w", lazy=True), help="For show.")
@click.option("--html", "html_file", type=click.File("w", lazy=True), help="One page with plots.")
def compare(
    names: tuple[str, ...],
    chosen: tuple[str, ...],
    caps: tuple[int, ...],
    blocks: int,
    seed: int,
    time_limit: float | None,
    json_file: IO[str] | None,
    html_file: IO[str] | None,
) -> None:
    """Put every experiment to every server, side by side. Ctrl-C gives what there is.

    Without options: all experiments at their own caps, all servers that are installed.
    """
    if blocks % 2:
        raise click.BadParameter("must be even: each order is run both ways", param_hint="--blocks")
    experiments = [EXPERIMENTS[name] for name in names or EXPERIMENTS]
    found, missing = find_all([PEERS[name] for name in chosen or PEERS])
    # Where on this machine its files are kept is nobody's business.
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    command = ["python", "-m", "bench", *words]
    estimate = minutes(experiments, caps, found, blocks)
    time_limit = time_limit or 1.5 * estimate + 1.0
    click.echo(f"about {estimate:.0f} minutes, at most {time_limit:.0f}", err=True)
    run = Progress(60.0 * time_limit)
    with run:
        info = {peer.name: describe(peer, 10) for peer in found}
        result = Result(environment(command, seed), seed, info, missing, groups=[])
        for experiment in experiments:
            for cap in caps or experiment.caps:
                if not run.stopped:
                    result.groups.append(run_group(experiment, cap, found, blocks, run))
        result.partial = run.partial
    write(result, json_file, html_file)
    if result.partial:
        sys.exit(EXIT_INVALID)


def minutes(
    experiments: Sequence[Experiment], caps: Sequence[int], peers: Sequence[Peer], blocks: int
) -> float:
    """Return about how long a comparison takes."""
    seconds = sum(
        experiment.seconds * blocks * len(places(experiment, peers)) * len(caps or experiment.caps)
        for experiment in experiments
    )
    return seconds / 60.0


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.File())
@click.option("--json", "json_file", type=click.File("w", lazy=True), help="For show.")
@click.option("--html", "html_file", type=click.File("w", lazy=True), help="One page with plots.")
def show(files: tuple[IO[str], ...], json_file: IO[str] | None, html_file: IO[str] | None) -> None:
    """Print the tables of what compare --json wrote.

    Several files are taken together, their blocks one after the other: a long comparison can be
    made in short runs, each while the machine is free. They must be of the same machine and
    versions.
    """
    try:
        result = merged([Result.from_json(json.load(file)) for file in files])
    except (ValueError, KeyError, TypeError) as error:
        raise click.BadParameter(f"no results of compare --json: {error}") from error
    write(result, json_file, html_file)


def write(result: Result, json_file: IO[str] | None, html_file: IO[str] | None) -> None:
    """Print the tables, and write the files that were asked for."""
    click.echo(render(result))
    if json_file is not None:
        json.dump(result.to_json(), json_file, indent=1)
        json_file.write("\n")
    if html_file is not None:
        html_file.write(page(result))
