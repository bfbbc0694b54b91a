"""Where a result goes: the terminal, and the files that were asked for.

A file that cannot be written is found before the run, not after it; one that is there already is
kept until the new one is whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import click

from gserver.errors import SettingError
from gserver.probe.figures import must_exist
from gserver.probe.html_report import write_html
from gserver.probe.result import EXIT_USAGE, Result
from gserver.probe.text_report import render
from gserver.probe.threshold import Threshold, parse_threshold
from gserver.probe.version import version

__all__ = ["Reports"]

_STDOUT: Final = 1
_FILES: Final = {"--json": "json_path", "--csv": "csv_path", "--html": "html_path"}


@dataclass(frozen=True, slots=True)
class Reports:
    """Where a result goes, and what it must meet.

    :param files: path by option, of ``--json``, ``--csv`` and ``--html``.
    """

    seed: int
    files: dict[str, str]
    thresholds: tuple[Threshold, ...]

    @classmethod
    def of(cls, command: str, flags: dict[str, Any]) -> Reports:
        """Read the flags of ``report_options``.

        :param command: as in :data:`gserver.probe.figures.FIGURES`.
        :raises SettingError: a threshold that cannot be read, or on a figure that *command* never
            has; a file that cannot be written.
        """
        thresholds = tuple(parse_threshold(text) for text in flags["thresholds"])
        must_exist(command, thresholds)
        files = {option: flags[name] for option, name in _FILES.items() if flags[name] is not None}
        seen: set[Path] = set()
        for option, path in files.items():
            _check_writable(option, path)
            place = Path(path).resolve()
            if place in seen and not _is_stream(place):
                raise SettingError(option, path, "another report goes there already")
            seen.add(place)
        return cls(flags["seed"], files, thresholds)

    def deliver(self, result: Result) -> int:
        """Print the table, write the files; returns the exit status.

        What cannot be printed or written is a line on standard error each; the others are
        delivered all the same, and the status is not 0.
        """
        checked = result.check(self.thresholds)
        writers: dict[str, Callable[[IO[str]], None]] = {
            "--json": lambda stream: result.write_json(stream, version(), checked),
            "--csv": result.write_csv,
            "--html": lambda stream: write_html(stream, result, checked),
        }
        whole = _print(result.tool, render(result, checked))
        for option, path in self.files.items():
            try:
                _put(Path(path), writers[option])
            except OSError as error:
                whole = False
                _complain(result.tool, f"{option} {path!r}: not written: {error.strerror}")
        return result.exit_status(checked) or (0 if whole else EXIT_USAGE)


def _complain(tool: str, text: str) -> None:
    try:
        click.echo(f"{tool}: {text}", err=True)
    except OSError:  # the exit status is all that is left
        pass


def _print(tool: str, text: str) -> bool:
    try:
        click.echo(text, nl=False)
    except OSError as error:
        # What the stream still holds would fail once more when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)
        _complain(tool, f"the result could not be printed: {error.strerror}")
        return False
    return True


def _is_stream(place: Path) -> bool:
    """A device, a pipe, or what standard output goes to: written as it is, never replaced."""
    try:
        found = place.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return True
    try:
        return os.path.samestat(found, os.fstat(_STDOUT))
    except OSError:  # standard output is closed
        return False


def _part(place: Path) -> Path:
    return place.with_name(f".{os.getpid()}.part")


def _check_writable(option: str, path: str) -> None:
    """Find out whether *path* can be written; changes nothing and leaves nothing behind.

    :raises SettingError: it can't.
    """
    place = Path(path)
    try:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_stream(place):  # opening and closing a pipe would be its end
            if not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        place = place.resolve()
        if place.exists():  # a read-only file is not replaced behind its owner's back
            os.close(os.open(place, os.O_WRONLY))
        part = _part(place)
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise SettingError(option, path, f"cannot be written: {error.strerror}") from None


def _put(place: Path, write: Callable[[IO[str]], None]) -> None:
    if _is_stream(place):
        with place.open("a", encoding="utf-8") as stream:
            write(stream)
        return
    place = place.resolve()  # a symbolic link stays one
    part = _part(place)
    try:
        with part.open("x", encoding="utf-8") as stream:
            write(stream)
        if place.exists():
            part.chmod(stat.S_IMODE(place.stat().st_mode))
        part.replace(place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
