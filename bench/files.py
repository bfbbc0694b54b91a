"""Files that results go to: found to be writable before anything is measured, replaced whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

__all__ = ["check", "put"]

#: Bytes that must be free: several times what the largest report has come to.
ROOM = 4 << 20


def check(path: Path) -> None:
    """Raise :class:`OSError` if a report could not be written to ``path``; leaves nothing behind.

    By taking the room that it needs, in a file beside it: of a full disk neither the permissions
    nor an empty file say anything.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        return  # a device or a pipe: tried when there is something to write
    with tempfile.TemporaryFile(dir=place.parent) as file:
        os.posix_fallocate(file.fileno(), 0, ROOM)


def put(path: Path, text: str) -> bool:
    """Write ``text``; where that fails, say so on standard error, keep what was there before, and
    return False."""
    place = path.resolve()
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        if place.exists() and not place.is_file():
            place.write_text(text)
            return True
        try:
            part.write_text(text)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        click.echo(f"{path}: not written: {error.strerror}", err=True)
        return False
    return True
