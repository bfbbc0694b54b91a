"""A capped process to try things in: a script is run with ``capped``, and says what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

PRELUDE = """
import gevent.monkey; gevent.monkey.patch_all()
import sys; sys.path.insert(0, {here!r})
from inside_capped import *
"""


def inside(script: str, *, timeout: float = 60.0, check: bool = True) -> Any:
    """Run ``script`` in a process with everything of ``inside_capped`` at hand. The value it
    gives to ``found()``; its errors are this test's."""
    source = PRELUDE.format(here=str(HERE)) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", source],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else done.stderr


def with_entry_point(folder: Path) -> dict[str, str]:
    """An environment in which gevent calls our entry point: a package made in ``folder``
    registers it, as ours does where it is installed."""
    metadata = folder / "entry-1.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: entry\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.did_patch_all]\n"
        "gserver = gserver.daemon.environment:did_patch_all\n"
    )
    return {**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{folder}"}
