"""``gserver exec``: an unmodified program under a hard cap."""

from __future__ import annotations

import sys

import click
import gevent.monkey

from gserver.daemon import environment
from gserver.daemon.exec_options import ExecSettings, exec_options
from gserver.legacy import run, stdin

__all__ = ["exec_command"]


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    short_help="Run an unmodified Python program under a hard cap.",
)
@exec_options
@click.option("-m", "module", is_flag=True, help="PROGRAM is a module, as for python -m.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def exec_command(
    settings: ExecSettings, module: bool, program: str, arguments: tuple[str, ...]
) -> None:
    """Run PROGRAM, written for threads and blocking sockets, with a hard cap on its clients.

    It runs in gevent's greenlets, monkey-patched, and sees nothing of us: its arguments, its
    exit status and its signals are its own. What we have to say goes to stderr, marked
    "gserver: ".

    \b
    Examples:
      gserver exec --max-connections 100 old_server.py --its-own-flags
      gserver exec --max-connections 100 --per-source 10 -m http.server 8000
    """
    environment.have_no_effect()
    gevent.monkey.patch_all()
    settings.install()
    stdin.cooperate()
    sys.exit((run.run_module if module else run.run_program)(program, arguments))
