"""The processes that a run starts end with it, in whatever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing

import psutil
import pytest

from gserver.probe.attempt import Patience
from gserver.probe.errors import LocalError
from gserver.probe.flood import Flood, FloodPlan
from gserver.probe.profiles import PROFILES
from gserver.probe.run import Run
from gserver.probe.target import parse_target

pytestmark = pytest.mark.long

SELFTEST = [
    sys.executable, "-c", "from gserver.probe.cli import probe; probe()",
    "selftest", "--blocks", "2",
]  # fmt: skip


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie has, and waits for its new parent to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_child_outlives_a_parent_that_is_killed() -> None:
    """Killed, it can tell nobody: the kernel must (PR_SET_PDEATHSIG). A rejecter has no end."""
    children: list[psutil.Process] = []
    with subprocess.Popen(
        SELFTEST, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stderr is not None
            while "overhead" not in (line := parent.stderr.readline()):
                assert line
            children = psutil.Process(parent.pid).children(recursive=True)
            assert len(children) == 3  # two rejecters, and a flood
            parent.kill()
            parent.wait(20)
            deadline = time.monotonic() + 20
            while any(map(runs, children)):
                assert time.monotonic() < deadline, children
                time.sleep(0.01)
        finally:
            parent.kill()
            for child in children:
                if runs(child):
                    child.kill()


@pytest.mark.parametrize("before_the_start", [True, False])
def test_a_flood_whose_process_has_died_says_so_and_is_not_called_saturated(
    before_the_start: bool, zoo: Callable[..., int]
) -> None:
    target = parse_target(f"127.0.0.1:{zoo('fin')}")
    plan = FloodPlan(target, PROFILES["echo"], Patience(), rate=50, duration_s=20, processes=2)
    with Run(60, stream=None) as run, closing(Flood(plan)) as flood:
        os.kill(flood._children[1].pid, signal.SIGKILL)
        if before_the_start:  # else it may hear of that
            assert flood._children[1].status() == -signal.SIGKILL
        flood._children[0].stop_early()  # as Ctrl-C does, with what it has
        with pytest.raises(LocalError, match="process of the flood ended early, with status -9"):
            flood.run(run, "storm")
