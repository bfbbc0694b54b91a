"""The fixture that every test stands on: it fails a test that leaves something behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import HERE

LEAKS = {
    "descriptor": "kept.append(os.open('/dev/null', os.O_RDONLY))",
    "greenlet": "kept.append(gevent.spawn(gevent.event.Event().wait)); gevent.idle()",
    "child": "kept.append(subprocess.Popen(['sleep', '30']))",
    "slot": "kept.append(limiter := Limiter(1)); slots.take(limiter.pool, gevent.Greenlet())",
    "errors in the loop": "gevent.spawn(lambda: 1 / 0).join()",
}

FILE = """
import os, subprocess
import gevent, gevent.event
from gserver import Limiter, slots

kept = []

def test_leaks():
    {leak}

def test_after_all():
    for thing in kept:
        if isinstance(thing, subprocess.Popen):
            thing.kill()
            thing.wait()
"""


@pytest.mark.long
@pytest.mark.parametrize("what", LEAKS)
def test_a_test_that_leaves_something_behind_fails_and_is_told_what(
    what: str, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(FILE.format(leak=LEAKS[what]))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-q", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1, run.stdout
    assert "ERROR test_it.py::test_leaks" in run.stdout
    assert what in run.stdout
