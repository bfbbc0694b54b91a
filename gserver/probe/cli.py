"""``gserver probe``: measure any TCP server's connection limit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import monotonic_ns
from typing import Any

import click

from gserver.errors import SettingError
from gserver.probe.calibrate import calibrate
from gserver.probe.cap import find_cap
from gserver.probe.cap_report import report_cap
from gserver.probe.churn import ChurnSettings, run_churn
from gserver.probe.isolation import IsolationSettings, run_isolation
from gserver.probe.known_cap import most_held, must_fit
from gserver.probe.measuring import (
    CALIBRATION_S,
    at_the_cap,
    measuring,
    silence_s,
    still_there,
)
from gserver.probe.options import (
    Command,
    cap_options,
    processes_option,
    profile_of,
    profile_options,
    report_options,
    seconds,
)
from gserver.probe.pacing import ConstantRate
from gserver.probe.records import Records
from gserver.probe.reports import Reports
from gserver.probe.result import EXIT_USAGE, Result
from gserver.probe.run import Run
from gserver.probe.selftest import run_selftest
from gserver.probe.slow import WAITS, SlowSettings, run_slow
from gserver.probe.storm import StormSettings, run_storm
from gserver.probe.target import parse_target, source_addresses

__all__ = ["probe"]


class _Group(click.Group):
    """Prints the user's fault as one line, exit status 2."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingError as error:
            click.echo(f"gserver probe: {error}", err=True)
            raise SystemExit(EXIT_USAGE) from None


@click.group(cls=_Group)
def probe() -> None:
    """Find any TCP server's connection limit, and how it turns people away.

    \b
      gserver probe cap 127.0.0.1:6379
      gserver probe storm :8999 --cap 100 --threshold 'reject.p99<2ms'

    TARGET is HOST:PORT, [IPV6]:PORT, or :PORT on this host. Load a server only if it is yours.

    Exit status: 0 pass, 99 a threshold is not met, 3 the run does not count, 2 usage, 1 the
    target cannot be measured.
    """


@probe.command()
@click.argument("target")
@click.option("--cap", type=click.IntRange(1), help="The limit it must have: else exit 99.")
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
    """Find the limit of TARGET and what happens at it.

    A server that answers nothing (profile silent) is judged by the kernel's rows and by silence:
    who is held is watched until one second after --deadline, and who is turned away later than
    that counts as admitted.
    """
    where, reports = parse_target(target), Reports.of("cap", flags)
    profile, patience = profile_of(flags)
    must_fit(flags["cap"])
    if flags["cap"] is not None and flags["cap"] >= flags["maximum"]:
        raise SettingError("--max", flags["maximum"], "must be above --cap, to see that it holds")

    def work(run: Run, result: Result) -> None:
        calibration = calibrate(where, profile, patience, run)
        result.start_ns = monotonic_ns()
        result.details["calibration"] = calibration.as_json()
        result.lines += calibration.lines()
        result.records = Records()
        calibration = replace(calibration, records=result.records)
        most = min(flags["maximum"], most_held())
        try:
            result.warnings += calibration.caveats(calibration.watch_s)
            finding = find_cap(where, calibration, run, maximum=most, expected=flags["cap"])
            result.partial = run.partial
            report_cap(result, finding)
            if finding.limit is None and most < flags["maximum"] and finding.peak >= most:
                result.invalid.append(
                    f"held {most} and no more: this machine's limit on open files (`ulimit -n`)"
                )
            if not run.stopped and not still_there(where, calibration, run):
                result.invalid.append("the server has gone: nobody listens there any more")
        finally:
            calibration.close()

    # At its limit a server is watched as long as calibration has watched it.
    silence = silence_s(profile, patience)
    about = min(CALIBRATION_S + 3 + 2 * silence, flags["duration"])
    measuring("cap", target, flags, reports, about, flags["duration"], work)


@probe.command()
@click.argument("target")
@cap_options
@click.option("--rate", type=float, default=1000.0, show_default=True, help="Attempts a second.")
@click.option("--duration", type=seconds, default="10s", show_default=True, help="Of the storm.")
@processes_option
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
@profile_options
@report_options
def storm(target: str, **flags: Any) -> None:
    """Be turned away at a steady rate while the cap is held."""
    # Both refuse what cannot be, before any work.
    ConstantRate(flags["rate"], flags["duration"])
    source_addresses(parse_target(target), flags["sources"])

    settings = partial(
        StormSettings,
        rate=flags["rate"],
        duration_s=flags["duration"],
        processes=flags["processes"],
        sources=flags["sources"],
        reset_on_close=flags["client_close"] == "rst",
    )
    at_the_cap(
        "storm",
        target,
        flags,
        flags["duration"],
        lambda cap, pid: settings(cap=cap, pid=pid),
        run_storm,
        floods=True,
    )


@probe.command()
@click.argument("target")
@cap_options
@click.option(
    "--tries",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    help="First: close one and come back at once, so often.",
)
@click.option("--rate", type=float, default=50.0, show_default=True, help="Leavers a second.")
@click.option(
    "--duration", type=seconds, default="10s", show_default=True, help="Of leaving and joining."
)
@click.option(
    "--joiners", type=click.IntRange(1, 1000), default=4, show_default=True, help="Who knock."
)
@profile_options
@report_options
def churn(target: str, **flags: Any) -> None:
    """Leave and join at the cap: is a freed slot found?

    Counts false rejections and over-admissions, and times the lag of a freed slot.
    """
    ConstantRate(flags["rate"], flags["duration"])

    # Each try lasts a quiet-time where the server does not speak first: as long as was asked for,
    # or longer, which only calibration finds out.
    tries_s = flags["tries"] * (flags["quiet_time"] + 0.005)
    longest_s = 3 * tries_s + 10
    settings = partial(
        ChurnSettings,
        tries=flags["tries"],
        tries_s=longest_s,
        rate=flags["rate"],
        duration_s=flags["duration"],
        joiners=flags["joiners"],
        seed=flags["seed"],
    )
    at_the_cap(
        "churn",
        target,
        flags,
        flags["duration"] + tries_s,
        lambda cap, _: settings(cap=cap),
        run_churn,
        longest_s=flags["duration"] + longest_s,
    )


@probe.command()
@click.argument("target")
@cap_options
@click.option("--clients", type=click.IntRange(1), default=3, show_default=True, help="Slow ones.")
@click.option("--duration", type=seconds, default="10s", show_default=True, help="Of each kind.")
@profile_options
@report_options
def slow(target: str, **flags: Any) -> None:
    """Who holds a slot without asking for anything?

    Clients that are silent, that trickle, and that half-close; and for how long.
    """
    at_the_cap(
        "slow",
        target,
        flags,
        flags["duration"] * 3 + 3,
        lambda cap, _: SlowSettings(cap, min(flags["clients"], cap), flags["duration"]),
        run_slow,
        longest_s=flags["duration"] * 3 + 3 + WAITS * (flags["deadline"] + 1),
    )


@probe.command()
@click.argument("target")
@cap_options
@click.option(
    "--victims",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Of the admitted, how many are measured.",
)
@click.option(
    "--victim-rate", type=float, default=500.0, show_default=True, help="Their requests a second."
)
@click.option("--rate", type=float, default=5000.0, show_default=True, help="Of the flood.")
@click.option("--duration", type=seconds, default="5s", show_default=True, help="Of each phase.")
@processes_option
@profile_options
@report_options
def isolation(target: str, **flags: Any) -> None:
    """Do the admitted notice a flood of the turned away?

    Four phases: quiet; control, the same flood to a sink; the flood; recovery.
    """
    ConstantRate(flags["rate"], flags["duration"])
    ConstantRate(flags["victim_rate"], flags["duration"], setting="--victim-rate")

    settings = partial(
        IsolationSettings,
        victims=flags["victims"],
        victim_rate=flags["victim_rate"],
        rate=flags["rate"],
        duration_s=flags["duration"],
        processes=flags["processes"],
    )
    at_the_cap(
        "isolation",
        target,
        flags,
        flags["duration"] * 4 + 3,
        lambda cap, pid: settings(cap=cap, pid=pid),
        run_isolation,
        floods=True,
    )


@probe.command()
@click.option("--rate", type=float, default=2000.0, show_default=True, help="Of the A/A blocks.")
@click.option(
    "--blocks",
    type=click.IntRange(2, 100),
    default=6,
    show_default=True,
    help="Pairs of runs against two identical servers.",
)
@processes_option
@report_options
def selftest(**flags: Any) -> None:
    """What do this client and this machine add?

    Against a trivial rejecter of our own: overhead, ceiling, and how much two of them differ.
    """
    ConstantRate(flags["rate"], 1.0)
    reports = Reports.of("selftest", flags)

    def work(run: Run, result: Result) -> None:
        run_selftest(
            run,
            result,
            rate=flags["rate"],
            blocks=flags["blocks"],
            seed=flags["seed"],
            processes=flags["processes"],
        )

    # A flood of a second each, and half a second for its processes to start and to end.
    about = 1.5 * (11 + 2 * flags["blocks"])
    measuring("selftest", "itself", flags, reports, about, 2 * about + 30, work, floods=True)
