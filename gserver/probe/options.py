"""The flags that the commands share, and what becomes of them."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from gserver.errors import SettingError
from gserver.probe.attempt import Patience
from gserver.probe.environment import environment
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.html_report import write_html
from gserver.probe.profiles import PROFILES, Profile, profile_named
from gserver.probe.result import EXIT_TARGET, EXIT_USAGE, Result
from gserver.probe.run import Run
from gserver.probe.text_report import render
from gserver.probe.threshold import Threshold, parse_threshold
from gserver.probe.version import version

__all__ = [
    "Reports",
    "cap_option",
    "measuring",
    "profile_of",
    "profile_options",
    "report_options",
    "seconds",
]

F = TypeVar("F", bound=Callable[..., Any])


_TIME: Final = re.compile(r"([0-9]*\.?[0-9]+)(us|ms|s|m)?")
_UNIT: Final = {None: 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0}


def seconds(value: str | float) -> float:
    """A length of time: ``10ms``, ``2s``, ``1m``; a bare number is seconds. Above 0."""
    if isinstance(value, float):
        return value
    match = _TIME.fullmatch(value)
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"{value!r}: write a time such as 10ms, 2s or 1m")
    return float(match[1]) * _UNIT[match[2]]


def _stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    def apply(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


profile_options = _stacked(
    click.option(
        "--profile",
        "profile_name",
        metavar="NAME",
        help=f"What the server speaks: {', '.join(PROFILES)}. Default: ask it.",
    ),
    click.option("--send", metavar="TEXT", help="The probe; \\r\\n and \\xNN are read."),
    click.option("--expect", metavar="REGEX", help="What an admitted client receives."),
    click.option("--reject-pattern", metavar="REGEX", help="What a rejected client receives."),
    click.option(
        "--quiet-time",
        type=seconds,
        default="10ms",
        show_default=True,
        help="Listen that long before speaking. Above the round trip and the server's own delay.",
    ),
    click.option(
        "--deadline",
        type=seconds,
        default="2s",
        show_default=True,
        help="No verdict by then: a hang.",
    ),
)

report_options = _stacked(
    click.option("--seed", type=int, default=1, show_default=True, help="For what is random."),
    click.option("--json", "json_path", type=click.Path(dir_okay=False), help="Write all as JSON."),
    click.option("--csv", "csv_path", type=click.Path(dir_okay=False), help="Write raw records."),
    click.option("--html", "html_path", type=click.Path(dir_okay=False), help="Write one page."),
    click.option(
        "--threshold",
        "thresholds",
        multiple=True,
        metavar="EXPR",
        help="Exit 99 unless it holds: 'reject.p99<2ms', 'over_admissions==0'. May be repeated.",
    ),
)

cap_option = click.option(
    "--cap", type=click.IntRange(1), help="The server's limit. Default: find it first."
)


@dataclass(frozen=True, slots=True)
class Reports:
    """Where a result goes, and what it must meet."""

    seed: int
    json_path: str | None
    csv_path: str | None
    html_path: str | None
    thresholds: tuple[Threshold, ...]

    @classmethod
    def of(cls, flags: dict[str, Any]) -> Reports:
        """Read the flags of ``report_options``.

        :raises SettingError: a threshold that cannot be read, a folder that is not there.
        """
        for name in ("json_path", "csv_path", "html_path"):
            path = flags[name]
            if path is not None and not Path(path).resolve().parent.is_dir():
                raise SettingError(f"--{name[:-5]}", path, "no such folder")
        return cls(
            flags["seed"],
            flags["json_path"],
            flags["csv_path"],
            flags["html_path"],
            tuple(parse_threshold(text) for text in flags["thresholds"]),
        )

    def deliver(self, result: Result) -> int:
        """Print the table, write the files; returns the exit status."""
        checked = result.check(self.thresholds)
        status = result.exit_status(checked)
        click.echo(render(result, checked), nl=False)
        if self.json_path is not None:
            with open(self.json_path, "w") as stream:
                result.write_json(stream, version())
        if self.csv_path is not None:
            with open(self.csv_path, "w") as stream:
                result.write_csv(stream)
        if self.html_path is not None:
            with open(self.html_path, "w") as stream:
                write_html(stream, result, checked)
        return status


def profile_of(flags: dict[str, Any]) -> tuple[Profile | None, Patience]:
    """Read the flags of ``profile_options``; None: find the profile out."""
    name, send = flags["profile_name"], flags["send"]
    expect, reject = flags["expect"], flags["reject_pattern"]
    patience = Patience(flags["quiet_time"], flags["deadline"])
    if patience.quiet_s >= patience.deadline_s:
        raise SettingError("--quiet-time", patience.quiet_s, "must be shorter than --deadline")
    if name is None:
        if send is None and expect is None and reject is None:
            return None, patience
        name = "echo" if send is not None and expect is None else "banner"
        if expect is None and reject is not None and send is None:
            raise SettingError("--reject-pattern", reject, "give --profile too")
    return profile_named(name, send=send, expect=expect, reject=reject), patience


def measuring(
    command: str,
    target: str,
    flags: dict[str, Any],
    reports: Reports,
    limit_s: float,
    work: Callable[[Run, Result], None],
) -> None:
    """Run *work*, deliver the result, exit with its status. Does not return.

    The user's fault is one line and status 2; the target's one line and status 1.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = {name: value for name, value in flags.items() if value is not None}
    result = Result(command, target, environment(sys.argv, reports.seed), settings)
    try:
        with Run(limit_s) as run:
            work(run, result)
            result.partial = result.partial or run.partial
        status = reports.deliver(result)
    except SettingError as error:
        click.echo(f"gserver probe: {error}", err=True)
        status = EXIT_USAGE
    except LocalError as error:
        result.invalid.append(str(error))
        status = reports.deliver(result)
    except TargetError as error:
        click.echo(f"gserver probe: {error}", err=True)
        status = EXIT_TARGET
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    raise SystemExit(status)
