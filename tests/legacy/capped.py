"""Capped processes to try things in: a script is run in a new one, and says what it found."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Nursery:
    """Where the processes come from: ``nursery.py``. Starting one takes it 5 ms, and Python 300."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "ignore", str(HERE / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path])},
        )

    def run(self, script: str, timeout: float) -> tuple[int, str, str]:
        """Its exit status, and what it wrote to standard output and to standard error."""
        assert self._process.stdin is not None
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            told = {"script": script, "out": out.name, "err": err.name}
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()
            pid = self._line(timeout)
            assert pid is not None, "the nursery hangs"
            status = self._line(timeout)
            if status is None:
                os.kill(pid, 9)
                self._line(timeout)
                raise AssertionError(f"not within {timeout} s: {err.read().decode()}")
            return status, out.read().decode(), err.read().decode()

    def _line(self, within: float) -> int | None:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], within)
        return int(self._process.stdout.readline()) if readable else None

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


#: Of this run of the tests; ``conftest.py`` starts and ends it.
nursery: Nursery | None = None


def inside(script: str, *, timeout: float = 60.0) -> Any:
    """Run ``script`` in a process with everything of ``inside_capped`` at hand. The value it
    gives to ``found()``; its errors are this test's."""
    assert nursery is not None
    status, out, errors = nursery.run(textwrap.dedent(script), timeout)
    assert status == 0, errors
    return json.loads(out.splitlines()[-1])


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
