"""Output behind a thread: whoever writes never waits, and is told what was dropped."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest
from program import wait_for

from gserver.daemon import output
from gserver.daemon.output import MAX_LINES, BackgroundWriter, log_to


@contextmanager
def pipe(size: int = 4096) -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def read_until(fd: int, text: str, within: float = 20.0) -> str:
    data = b""
    while text.encode() not in data:
        readable, _, _ = select.select([fd], [], [], within)
        assert readable, f"{text!r} does not come; the end of what came: {data[-200:]!r}"
        data += os.read(fd, 1 << 16)
    return data.decode()


def test_lines_come_out_whole_and_in_order() -> None:
    with pipe(1 << 20) as (reader, fd):
        with closing(BackgroundWriter(fd)) as out:
            for number in range(2000):
                out.write(f"line {number}\n")
        text = read_until(reader, "line 1999\n")
    assert text == "".join(f"line {number}\n" for number in range(2000))


def _stall(out: BackgroundWriter, fd: int) -> None:
    """Until the thread is inside a write that the pipe does not take."""
    out.write("." * 8191 + "\n")
    wait_for(lambda: not select.select([], [fd], [], 0)[1], lambda: "the pipe does not fill")
    wait_for(out._lines.empty, lambda: "the line is not taken")


def test_a_pipe_nobody_reads_holds_nobody_up_and_the_dropped_are_counted() -> None:
    with pipe() as (reader, fd):
        with closing(BackgroundWriter(fd)) as out:
            _stall(out, fd)
            began = monotonic()
            for number in range(MAX_LINES + 1234):
                out.write(f"line {number}\n")
            assert monotonic() - began < 10
            text = read_until(reader, f"line {MAX_LINES - 1}\n")
            assert text.count("line ") == MAX_LINES
            assert "\n[1,234 lines dropped: they came faster than they were written]\n" in text
            assert text.count("dropped") == 1
            out.write("afterwards\n")
            assert "dropped" not in read_until(reader, "afterwards\n")


def test_one_dropped_is_one_line() -> None:
    with pipe() as (reader, fd):
        with closing(BackgroundWriter(fd)) as out:
            _stall(out, fd)
            for _ in range(MAX_LINES + 1):
                out.write(".\n")
            assert "\n[1 line dropped: " in read_until(reader, "dropped")


def test_what_waits_is_bounded_in_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_CHARACTERS", 1 << 16)
    with pipe() as (reader, fd):
        with closing(BackgroundWriter(fd)) as out:
            _stall(out, fd)
            for _ in range(100):
                out.write("x" * 4095 + "\n")
            waiting = out._lines.qsize()
            assert waiting == 16
            assert f"[{100 - waiting} lines dropped" in read_until(reader, "dropped")


def test_the_dropped_are_told_at_the_end_as_well() -> None:
    with pipe() as (reader, fd):
        out = BackgroundWriter(fd)
        _stall(out, fd)
        for number in range(MAX_LINES + 7):
            out.write(f"line {number}\n")
        out.close(timeout=0.0)
        assert "[7 lines dropped" in read_until(reader, f"line {MAX_LINES - 1}\n")
        assert out._finished.acquire(timeout=20)


def test_close_does_not_wait_for_a_pipe_nobody_reads() -> None:
    with pipe() as (reader, fd):
        out = BackgroundWriter(fd)
        _stall(out, fd)
        began = monotonic()
        out.close(timeout=0.1)
        assert monotonic() - began < 10
        read_until(reader, ".\n")  # lets the thread end
        assert out._finished.acquire(timeout=20)


def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        out = BackgroundWriter(file.fileno())
        for number in range(1000):
            out.write(f"{number}\n")
        out.close(timeout=20)
    assert (tmp_path / "out").read_text().splitlines()[-1] == "999"


def test_where_the_reader_is_gone_nothing_is_raised_and_nothing_waits() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    try:
        with closing(BackgroundWriter(fd)) as out:
            for _ in range(3 * MAX_LINES):
                out.write("nobody reads this\n")
            wait_for(out._lines.empty, lambda: "the lines stay")
    finally:
        os.close(fd)


def test_a_full_disk_drops_until_there_is_room() -> None:
    with pipe() as (reader, fd), open("/dev/full", "wb") as full:
        descriptor = os.dup(full.fileno())
        try:
            with closing(BackgroundWriter(descriptor)) as out:
                out.write("lost\n")
                wait_for(out._lines.empty, lambda: "the line stays")
                # What the descriptor means changes under it, as a disk gets room again.
                os.dup2(fd, descriptor)
                wait_for(
                    lambda: out.write("kept\n") or select.select([reader], [], [], 0)[0],
                    lambda: "nothing is written",
                )
                assert "kept\n" in read_until(reader, "kept\n")
        finally:
            os.close(descriptor)


def test_a_descriptor_somebody_made_non_blocking_loses_nothing() -> None:
    with pipe() as (reader, fd):
        os.set_blocking(fd, False)
        with closing(BackgroundWriter(fd)) as out:
            for number in range(5000):
                out.write(f"line {number}\n")
            text = read_until(reader, "line 4999\n")
    assert text.count("\n") == 5000


def test_what_is_no_character_is_written_all_the_same(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        out = BackgroundWriter(file.fileno())
        out.write("\udcff\n")
        out.close(timeout=20)
    assert (tmp_path / "out").read_text() == "\\udcff\n"


# ---- the log ---------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with open(tmp_path / "log", "wb") as file:
        out = BackgroundWriter(file.fileno())
        root.handlers.clear()
        log_to(out)
        yield tmp_path / "log"
        root.handlers[:] = handlers
        root.setLevel(level)
        out.close(timeout=20)


def test_an_event_is_a_line_with_time_and_level(log: Path) -> None:
    logging.getLogger("gserver").info("full %d/%d, rejecting", 3, 3)
    logging.getLogger("gserver").debug("not shown")
    wait_for(lambda: log.read_text(), lambda: "nothing logged")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO full 3/3, rejecting\n", log.read_text()
    )


def test_no_peer_forges_a_line_of_the_log_or_steers_the_terminal(log: Path) -> None:
    try:
        raise ValueError("\x1b[2J\r\u202e back\\slash")
    except ValueError:
        logging.getLogger("gserver").exception("handler of %s failed", "/tmp/a\nb\x07")
    wait_for(lambda: "back" in log.read_text(), lambda: "nothing logged")
    first, *traceback = log.read_text().splitlines()
    assert first.endswith(r"ERROR handler of /tmp/a\nb\x07 failed")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == r"ValueError: \x1b[2J\r\u202e back\slash"


def test_a_record_that_cannot_be_formatted_does_not_raise(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = logging.LogRecord("gserver", logging.INFO, __file__, 1, "%d", ("no number",), None)
    logging.getLogger().handlers[0].handle(record)
    assert "--- Logging error ---" in capsys.readouterr().err
