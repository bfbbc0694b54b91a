"""``python -m bench run SCENARIO TARGET``: run one scenario file."""

from __future__ import annotations

from typing import Any

import click

from bench.advice import fitting
from gserver.errors import SettingError
from gserver.probe.measuring import CALIBRATION_S, measuring, silence_s
from gserver.probe.options import Command, profile_of, profile_options, report_options, seconds
from gserver.probe.reports import Reports
from gserver.probe.result import EXIT_USAGE, Result
from gserver.probe.run import Run
from gserver.probe.swarm import check_spawn_rate, load_scenario, run_scenario
from gserver.probe.target import parse_target

TOOL = "bench run"


@click.command("run", cls=Command)
@click.argument("scenario")
@click.argument("target")
@click.option("-u", "--users", type=click.IntRange(1), default=10, show_default=True)
@click.option("-r", "--spawn-rate", type=float, default=10.0, show_default=True, help="A second.")
@click.option("-t", "--run-time", type=seconds, default="20s", show_default=True)
@click.option("--cap", type=click.IntRange(1), help="The server's limit, for over-admissions.")
@profile_options
@report_options
def run(scenario: str, target: str, **flags: Any) -> None:
    """Run the users of the file SCENARIO against TARGET (HOST:PORT)."""
    try:
        loaded, where = load_scenario(scenario), parse_target(target)
        check_spawn_rate(flags["spawn_rate"])
        reports = Reports.of("run", flags)
        profile, patience = profile_of(flags)
    except SettingError as error:
        click.echo(f"{TOOL}: {error}", err=True)
        raise SystemExit(EXIT_USAGE) from None

    options = {word for option in run.params for word in option.opts}

    def work(running: Run, result: Result) -> None:
        run_scenario(
            loaded,
            where,
            profile,
            patience,
            running,
            result,
            users=flags["users"],
            spawn_rate=flags["spawn_rate"],
            run_time_s=flags["run_time"],
            cap=flags["cap"],
            seed=flags["seed"],
        )
        result.invalid = [fitting(text, options) for text in result.invalid]

    about = CALIBRATION_S + silence_s(profile, patience) + flags["run_time"]
    limit = about + 30 + 5 * patience.deadline_s
    measuring(loaded.name, target, flags, reports, about, limit, work, tool=TOOL)
