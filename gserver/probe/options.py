"""The flags that the commands share, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from gserver.errors import SettingError
from gserver.probe.attempt import Patience
from gserver.probe.profiles import PROFILES, Profile, profile_named

__all__ = [
    "Command",
    "cap_options",
    "processes_option",
    "profile_of",
    "profile_options",
    "report_options",
    "seconds",
]

F = TypeVar("F", bound=Callable[..., Any])


_THRESHOLD: Final = "--threshold"
_COMPARISON: Final = re.compile("[<>=]")
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


class Command(click.Command):
    """Takes several thresholds after one ``--threshold``, too, which click's options do not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, with the option before each of them."""
        return super().parse_args(ctx, _one_by_one(args))


def _one_by_one(args: list[str]) -> list[str]:
    # A comparison stands in every threshold and in no target; other options' values do not count.
    spread: list[str] = []
    option = ""  # the last that there was
    for i, word in enumerate(args):
        if word.startswith("-"):
            option = word.partition("=")[0]
        elif option == _THRESHOLD and args[i - 1] != _THRESHOLD and _COMPARISON.search(word):
            spread.append(_THRESHOLD)
        spread.append(word)
    return spread


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
    click.option(
        "--json", "json_path", type=click.Path(dir_okay=False), help="Write all, raw records too."
    ),
    click.option(
        "--csv", "csv_path", type=click.Path(dir_okay=False), help="Write the attempts, one a row."
    ),
    click.option("--html", "html_path", type=click.Path(dir_okay=False), help="Write one page."),
    click.option(
        _THRESHOLD,
        "thresholds",
        multiple=True,
        metavar="EXPR",
        help="Exit 99 unless it holds: 'reject.p99<2ms'. May be repeated, and followed by others.",
    ),
)


def _process(context: click.Context, option: click.Parameter, pid: int | None) -> int | None:
    if pid is not None and not Path(f"/proc/{pid}/task").is_dir():
        raise SettingError("--pid", pid, "no such process on this machine")
    return pid


processes_option = click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Client processes that share the rate.",
)

cap_options = _stacked(
    click.option(
        "--cap", type=click.IntRange(1), help="The server's limit. Default: find it first."
    ),
    click.option(
        "--pid",
        type=click.IntRange(1),
        callback=_process,
        help="The server's first process, for its CPU time. Default: who listens there.",
    ),
)


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
