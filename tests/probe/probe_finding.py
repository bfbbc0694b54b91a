"""``probe cap`` without its command, for tests of what it finds."""

from __future__ import annotations

from gserver.probe.attempt import Patience
from gserver.probe.calibrate import calibrate
from gserver.probe.cap import find_cap
from gserver.probe.finding import CapFinding
from gserver.probe.profiles import Profile
from gserver.probe.run import Run
from gserver.probe.target import parse_target

PATIENCE = Patience(quiet_s=0.02, deadline_s=0.5)


def find(
    port: int,
    profile: Profile | None = None,
    *,
    maximum: int = 500,
    expected: int | None = None,
    patience: Patience = PATIENCE,
) -> CapFinding:
    """What is found at *port*; with no *profile* calibration finds it out."""
    target = parse_target(f"127.0.0.1:{port}")
    with Run(60, stream=None) as run:
        calibration = calibrate(target, profile, patience, run)
        try:
            finding = find_cap(target, calibration, run, maximum=maximum, expected=expected)
        finally:
            calibration.close()
        assert not run.partial
    return finding
