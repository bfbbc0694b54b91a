"""``gserver probe``: measure any TCP server's connection limit."""

from __future__ import annotations

from typing import Any

import click

from gserver.errors import SettingError
from gserver.probe.calibrate import calibrate
from gserver.probe.cap import POLICY, CapFinding, find_cap
from gserver.probe.holders import cap_or_found
from gserver.probe.options import (
    Reports,
    cap_option,
    measuring,
    profile_of,
    profile_options,
    report_options,
    seconds,
)
from gserver.probe.pacing import ConstantRate
from gserver.probe.result import EXIT_USAGE, Result
from gserver.probe.run import Run
from gserver.probe.selftest import run_selftest
from gserver.probe.storm import StormSettings, run_storm
from gserver.probe.target import parse_target

__all__ = ["probe"]


class _Group(click.Group):
    """Prints the user's fault as one line, exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingError as error:
            click.echo(f"gserver probe: {error}", err=True)
            raise SystemExit(EXIT_USAGE) from None


@click.group(cls=_Group)
def probe() -> None:
    """Find any TCP server's connection limit, and how it turns people away.

    Exit status: 0 pass, 99 a threshold is not met, 3 the run does not count, 2 usage, 1 the
    target cannot be measured.
    """


@probe.command()
@click.argument("target")
@click.option("--cap", type=click.IntRange(1), help="The limit it should have.")
@click.option(
    "--max",
    "maximum",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="Hold at most that many.",
)
@click.option(
    "--duration", type=seconds, default="60s", show_default=True, help="At most that long."
)
@profile_options
@report_options
def cap(target: str, **flags: Any) -> None:
    """Find the limit of TARGET (HOST:PORT) and what happens at it."""
    settings = dict(flags)
    where, reports = parse_target(target), Reports.of(flags)
    profile, patience = profile_of(flags)

    def work(run: Run, result: Result) -> None:
        calibration = calibrate(where, profile, patience, run)
        try:
            result.details["calibration"] = calibration.as_json()
            finding = find_cap(
                where, calibration, run, maximum=flags["maximum"], expected=flags["cap"]
            )
        finally:
            calibration.close()
        result.lines.append(("profile", calibration.profile.name))
        report_cap(result, finding)

    measuring("cap", target, settings, reports, flags["duration"], work)


def report_cap(result: Result, finding: CapFinding) -> None:
    """Write what ``find_cap`` found into *result*."""
    result.details["cap"] = finding.as_json()
    result.figures |= {
        "peak": finding.peak,
        "over_admissions": finding.over_admissions,
        "dropped_while_held": finding.dropped_while_held,
    } | {outcome.value: count for outcome, count in finding.turned_away.items()}
    say = result.lines.append
    if finding.limit is None:
        say(("limit", f"none found: {finding.peak} served at once"))
    else:
        result.figures["limit"] = finding.limit
        say(("limit", f"{finding.limit} connections served at once"))
    if finding.policy is not None:
        text = POLICY[finding.policy]
        if finding.message:
            text += f" ({finding.message.decode('latin-1')!r})"
        say(("policy", text))
        counts = ", ".join(f"{n} {o.value}" for o, n in finding.turned_away.most_common())
        say(("turned away", f"{sum(finding.turned_away.values())}: {counts}"))
    if finding.fits_after_close is not None:
        result.figures["fits_after_close"] = finding.fits_after_close
        result.figures["tries_after_close"] = finding.tries_after_close or 0
        right = "as it should" if finding.fits_after_close == 1 else "NOT exactly one"
        say(
            (
                "one closed",
                f"{finding.fits_after_close} more fitted, {right}; "
                f"admitted at try {finding.tries_after_close}",
            )
        )
    if finding.limit is not None:
        say(("over-admissions", f"{finding.over_admissions} (most served at once: {finding.peak})"))
    if finding.dropped_while_held:
        say(("dropped while held", f"{finding.dropped_while_held} by the server"))
        result.warnings.append("the server ends connections by itself: the limit may be higher")
    if finding.expected is not None and finding.limit != finding.expected:
        result.warnings.append(f"the limit found is not the --cap given ({finding.expected})")
    if finding.local_errors:
        result.invalid.append(
            f"{finding.local_errors} attempts failed on this machine (descriptors or ports)"
        )


@probe.command()
@click.argument("target")
@cap_option
@click.option("--rate", type=float, default=1000.0, show_default=True, help="Attempts a second.")
@click.option("--duration", type=seconds, default="10s", show_default=True)
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option(
    "--sources", type=click.IntRange(0), default=0, help="Source addresses. 0: as needed."
)
@click.option(
    "--client-close",
    type=click.Choice(["fin", "rst"]),
    default="fin",
    show_default=True,
    help="How our side ends: RST leaves no TIME_WAIT, and so hides the server's.",
)
@click.option("--pid", type=click.IntRange(1), help="The server's process: its CPU and memory.")
@profile_options
@report_options
def storm(target: str, **flags: Any) -> None:
    """Hold the cap of TARGET and be turned away at a steady rate."""
    settings = dict(flags)
    where, reports = parse_target(target), Reports.of(flags)
    profile, patience = profile_of(flags)
    ConstantRate(flags["rate"], flags["duration"])  # refuses what cannot be, before any work

    def work(run: Run, result: Result) -> None:
        calibration = calibrate(where, profile, patience, run)
        try:
            result.details["calibration"] = calibration.as_json()
            held = cap_or_found(where, calibration, run, flags["cap"], 5000)
            run_storm(
                where,
                calibration,
                run,
                StormSettings(
                    cap=held,
                    rate=flags["rate"],
                    duration_s=flags["duration"],
                    processes=flags["processes"],
                    sources=flags["sources"],
                    reset_on_close=flags["client_close"] == "rst",
                    pid=flags["pid"],
                ),
                result,
            )
        finally:
            calibration.close()

    measuring("storm", target, settings, reports, flags["duration"] + 60, work)


@probe.command()
@click.option("--rate", type=float, default=2000.0, show_default=True, help="Of the A/A blocks.")
@click.option("--blocks", type=click.IntRange(2, 100), default=6, show_default=True)
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True)
@report_options
def selftest(**flags: Any) -> None:
    """Measure this client and this machine against a trivial rejecter of our own."""
    settings = dict(flags)
    reports = Reports.of(flags)

    def work(run: Run, result: Result) -> None:
        run_selftest(
            run,
            result,
            rate=flags["rate"],
            blocks=flags["blocks"],
            seed=reports.seed,
            processes=flags["processes"],
        )

    measuring("selftest", "itself", settings, reports, 60 + 6 * flags["blocks"], work)
