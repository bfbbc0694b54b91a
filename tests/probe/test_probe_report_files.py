"""Report files: found unwritable before the run, put in place whole after it."""

from __future__ import annotations

import csv
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gserver.errors import SettingError
from gserver.probe.reports import Reports
from gserver.probe.result import EXIT_PASS, EXIT_USAGE, Result

COMMAND = [sys.executable, "-c", "from gserver.probe.cli import probe; probe()"]


def reports(**paths: object) -> Reports:
    flags: dict[str, Any] = {"seed": 1, "thresholds": (), "json": None, "csv": None, "html": None}
    flags |= {name: str(path) for name, path in paths.items()}
    for name in ("json", "csv", "html"):
        flags[f"{name}_path"] = flags.pop(name)
    return Reports.of("storm", flags)


@pytest.mark.parametrize("kind", ["json", "csv", "html"])
@pytest.mark.parametrize("place", ["nowhere/x", "file/x", ".", "x" * 256, "/proc/x"])
def test_a_file_that_cannot_be_made_is_the_users_fault(
    kind: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError) as caught:
        reports(**{kind: tmp_path / place})
    assert str(caught.value).startswith(f"--{kind} ")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def test_two_reports_do_not_share_a_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(SettingError, match="another report"):
        reports(json=tmp_path / "x", html=tmp_path / "link")


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "x.json"
    old.write_text("old")
    old.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(old)
    mine = reports(json=link)
    assert old.read_text() == "old"

    def fails(*_: object) -> None:
        assert old.read_text() == "old"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Result, "write_json", fails)
        assert mine.deliver(Result("storm", "t")) == EXIT_USAGE
    assert old.read_text() == "old"
    printed, complaint = capsys.readouterr()
    assert "gserver probe storm t" in printed
    assert complaint.splitlines() == [
        f"gserver probe: --json {str(link)!r}: not written: No space left on device"
    ]
    assert mine.deliver(Result("storm", "t")) == EXIT_PASS
    assert old.read_text().startswith("{")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "x.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").touch(0o444)
    with pytest.raises(SettingError, match="Permission denied"):
        reports(json=tmp_path / "x")


def test_a_pipe_is_not_opened_before_the_result(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    mine = reports(json=tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert mine.deliver(Result("storm", "t")) == EXIT_PASS
        assert os.read(reader, 4096).startswith(b"{")
    finally:
        os.close(reader)


def test_one_report_that_fails_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    mine = reports(json="/dev/full", csv=tmp_path / "x.csv")
    assert mine.deliver(Result("storm", "t", figures={"rate": 1.0})) == EXIT_USAGE
    assert (tmp_path / "x.csv").read_text() == "figure,value\nrate,1.0\n"


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_line_and_the_result_is_printed(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 2, 'fin')}"
    done = subprocess.run(
        [*COMMAND, "cap", target, "--json", "/dev/full"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "2 connections served at once" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last == "gserver probe: --json '/dev/full': not written: No space left on device"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "cap", target, "--json", str(tmp_path / "x.json")],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert (tmp_path / "x.json").stat().st_size > 0
    assert "could not be printed: No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        ["cap"],
        ["churn", "--cap", "3", "--tries", "5", "--duration", "1s"],
        ["slow", "--cap", "3", "--duration", "500ms"],
    ],
    ids=lambda command: command[0],
)
def test_raw_records_are_of_every_attempt(
    command: list[str], start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"
    name, *flags = command
    done = subprocess.run(
        [*COMMAND, name, target, *flags, "--csv", str(tmp_path / "x.csv")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "x.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {"admitted", "fin"} <= {row["outcome"] for row in rows}
    for row in rows:
        assert 0 <= float(row["intended_us"]) <= float(row["started_us"])
        assert float(row["started_us"]) <= float(row["finished_us"]) < 60e6
