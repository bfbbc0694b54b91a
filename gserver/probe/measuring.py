"""How a command runs: its time, its descriptors, its faults in one line each, its exit status."""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, monotonic_ns
from typing import Any, Final, TypeVar

import click

from gserver.errors import SettingError
from gserver.probe.attempt import Patience
from gserver.probe.calibrate import Calibration, calibrate, watch_s
from gserver.probe.environment import environment
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.known_cap import SPARE_FILES, cap_or_found, must_fit
from gserver.probe.options import profile_of
from gserver.probe.outcomes import Outcome
from gserver.probe.procstat import Usage, listening_process, measure
from gserver.probe.profiles import Profile
from gserver.probe.records import Records
from gserver.probe.reports import Reports
from gserver.probe.result import EXIT_TARGET, EXIT_USAGE, TOOL, Result
from gserver.probe.run import Run, Stopped
from gserver.probe.target import Target, parse_target

__all__ = ["CALIBRATION_S", "at_the_cap", "measuring", "silence_s", "still_there"]

S = TypeVar("S")

CALIBRATION_S: Final = 2.0  # about; of an echo server 1.4 s
_SEARCH_S: Final = 60.0  # for a cap that was not given, and for filling up to it
_LEAST_FILES: Final = SPARE_FILES + 16
_LEAST_FILES_TO_FLOOD: Final = 256  # a process of a flood keeps 64 to itself
_GONE_S: Final = 1.0  # a listener that was shut while full is back by then
_OUR_FAULT: Final = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EADDRNOTAVAIL,
    errno.EAGAIN,  # of fork
)


def measuring(
    command: str,
    target: str,
    flags: dict[str, Any],
    reports: Reports,
    about_s: float,
    limit_s: float,
    work: Callable[[Run, Result], None],
    *,
    floods: bool = False,
    tool: str = TOOL,
) -> None:
    """Run *work*, deliver the result, exit with its status. Does not return.

    Stopped by a signal or by *limit_s*, it delivers what there is, marked partial; where this
    machine failed, marked invalid. The user's fault is one line and status 2; the target's one
    line and status 1.

    :param about_s: what it takes as a rule, said at the beginning.
    :param floods: more descriptors are needed than for a few attempts.
    :param tool: whose command it is: how lines about faults begin.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = _LEAST_FILES_TO_FLOOD if floods else _LEAST_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = {name: value for name, value in flags.items() if value is not None}
    result = Result(command, target, environment(sys.argv, reports.seed), settings, tool=tool)
    try:
        if hard < least:
            raise SettingError("ulimit -n", hard, f"{command} needs at least {least} open files")
        with Run(limit_s) as run:
            run.announce(
                f"{command} {target}: about {about_s:.0f} s, at most {limit_s:.0f} s; Ctrl-C gives "
                "what there is by then"
            )
            try:
                work(run, result)
            except Stopped:
                pass
            except TargetError as error:
                if not result.figures:
                    raise
                result.invalid.append(str(error))  # with what had been measured before
            except LocalError as error:
                result.invalid.append(str(error))
            except OSError as error:
                if error.errno not in _OUR_FAULT:
                    raise
                result.invalid.append(
                    f"this machine: {error.strerror} (open files: at most {hard}, `ulimit -n`)"
                )
            result.partial = result.partial or run.partial
        status = reports.deliver(result)
    except (SettingError, TargetError) as error:
        click.echo(f"{tool}: {error}", err=True)
        status = EXIT_USAGE if isinstance(error, SettingError) else EXIT_TARGET
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    raise SystemExit(status)


def at_the_cap(
    command: str,
    target: str,
    flags: dict[str, Any],
    duration_s: float,
    settings_for: Callable[[int, int | None], S],
    work: Callable[[Target, Calibration, Run, S, Result], None],
    *,
    floods: bool = False,
    longest_s: float | None = None,
) -> None:
    """Calibrate, find the cap when none is given, then *work* with ``settings_for(cap, pid)``.

    :param duration_s: how long the work itself takes, about.
    :param floods: as of :func:`measuring`.
    :param longest_s: how long it may take where the server takes its time; None: no longer.

    Does not return.
    """
    where, reports = parse_target(target), Reports.of(command, flags)
    profile, patience = profile_of(flags)
    must_fit(flags["cap"])

    def measured(run: Run, result: Result) -> None:
        calibration = calibrate(where, profile, patience, run)
        try:
            result.details["calibration"] = calibration.as_json()
            result.lines += calibration.lines()
            cap, known = cap_or_found(where, calibration, run, flags["cap"], result)
            result.settings["cap"] = cap
            result.details["calibration"] = known.as_json()
            result.warnings += known.caveats(2 * known.patience.quiet_s)
            pid = flags["pid"] or _listener(calibration, where)
            settings = settings_for(cap, pid)
            result.start_ns = began = monotonic_ns()
            recording = replace(known, records=Records())
            before = measure(pid)
            try:
                work(where, recording, run, settings, result)
            finally:
                if result.records is None:  # a flood's come before the holders' own
                    result.records = recording.records
            _report_cpu(result, pid, before, measure(pid), (monotonic_ns() - began) / 1e9)
            if not run.stopped and not still_there(where, calibration, run):
                result.invalid.append("the server has gone: nobody listens there any more")
        finally:
            calibration.close()

    # Silence is watched in calibration, and again of one more than the cap.
    about = CALIBRATION_S + duration_s + 2 * silence_s(profile, patience)
    about += 0.0 if flags["cap"] else 5.0
    limit = (duration_s if longest_s is None else longest_s) + _SEARCH_S + 5 * patience.deadline_s
    limit = max(limit, about)
    measuring(command, target, flags, reports, about, limit, measured, floods=floods)


def silence_s(profile: Profile | None, patience: Patience) -> float:
    """How long silence is watched, where *profile* says that nothing else shows an admission.

    Of a server that is not known yet (None) calibration says so when it finds that out.
    """
    return watch_s(patience) if profile is not None and profile.judges_by_silence else 0.0


def _listener(calibration: Calibration, target: Target) -> int | None:
    if calibration.oracle is None:
        return None
    host, port = target.address
    rows = calibration.oracle.listeners(port, host)
    return listening_process([row.inode for row in rows])


def _report_cpu(
    result: Result, pid: int | None, before: Usage, after: Usage, passed_s: float
) -> None:
    result.details["server_pid"] = pid
    # On loopback the kernel charges the server's share of a handshake to the client: one figure
    # without the other would flatter who is called.
    machine = (after.machine_cpu_s - before.machine_cpu_s) / passed_s
    result.figures["machine_cpu"] = machine
    text = f"the whole machine {machine:.0%} of a core"
    used = after.server_cpu_s - before.server_cpu_s
    if pid is not None and used > 0:  # less than before: the process has ended
        share = result.figures["server_cpu"] = used / passed_s
        text = f"server {share:.0%} of a core, {text}"
    result.lines.append(("CPU", f"{text}; fill and pauses included"))


def still_there(target: Target, calibration: Calibration, run: Run) -> bool:
    """Whether the server listens, now that nobody is held: not if it refuses for a whole second."""
    engine = replace(calibration, records=None).engine(target)
    gives_up = monotonic() + _GONE_S
    try:
        while True:
            attempt = engine.start(keep=True)
            run.until(lambda a=attempt: a.outcome, calibration.patience.deadline_s)  # type: ignore[misc]
            if attempt.outcome is not Outcome.REFUSED or monotonic() > gives_up:
                return attempt.outcome is not Outcome.REFUSED
            run.pause(0.05)
    finally:
        engine.close()
