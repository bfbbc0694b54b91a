"""Options of more than one command."""

from __future__ import annotations

from pathlib import Path

import click

from bench.files import check

__all__ = ["html_option", "json_option", "numbers"]


def numbers(text: str | tuple[int, ...]) -> tuple[int, ...]:
    """Read ``10,1000``. (click calls it with a default that is read already, too.)"""
    if isinstance(text, tuple):
        return text
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}: write numbers such as 10,1000") from None
    if min(found) < 1:
        raise click.BadParameter(f"{text!r}: at least 1 each")
    return found


def writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that can't be written when all is measured: before anything is."""
    if path is not None:
        if not path.resolve().parent.is_dir():
            raise click.BadParameter(f"{path}: no such folder")
        try:
            check(path)
        except OSError as error:
            raise click.BadParameter(f"{path}: cannot be written: {error.strerror}") from error
    return path


FILE = click.Path(dir_okay=False, writable=True, path_type=Path)

json_option = click.option("--json", "json_file", type=FILE, callback=writable, help="For readme.")
html_option = click.option(
    "--html", "html_file", type=FILE, callback=writable, help="One page with plots."
)
