"""What a test needs and does not find: a skip, or a failure where it should have been there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], "2 skipped"),
        (["--may-miss", "apt-get"], "2 skipped"),
        (["--may-miss", "atheris", "--may-miss", "install redis-tools"], "2 failed"),
    ],
    ids=["anything", "this", "others"],
)
def test_a_missing_client_fails_its_test_unless_it_may_be_missing(
    options: list[str], found: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*command, str(HERE / "replies" / "test_real_clients.py"), "-k", "http_curl and GET"],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"= {found}, " in done.stdout, done.stdout
    assert "curl is missing: apt-get install curl" in done.stdout
    assert done.returncode == ("failed" in found)
