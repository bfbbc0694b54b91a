"""``gserver exec``: an unmodified program under a hard cap."""

from __future__ import annotations

import sys

import click
import gevent.monkey

from gserver.errors import SettingError
from gserver.legacy import descriptors, entry, messages, run, signals
from gserver.legacy.install import SETTLE_S, install
from gserver.net.rejection import Close, Refuse, Reset

__all__ = ["exec_command"]

_REJECTIONS: dict[str, type[Close] | type[Reset] | type[Refuse]] = {
    "close": Close,
    "reset": Reset,
    "refuse": Refuse,
}


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run an unmodified Python program under a hard cap.",
)
@click.option("--max-connections", type=int, required=True, help="Clients served at once.")
@click.option(
    "--settle",
    type=float,
    default=SETTLE_S,
    show_default=True,
    help="Seconds a client may wait at the cap for a connection that is ending.",
)
@click.option(
    "--reject",
    type=click.Choice(list(_REJECTIONS)),
    default="close",
    show_default=True,
    help="What the others see.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="ADDRESS",
    help="The listener that counts, as :PORT, HOST:PORT or unix:/path; may be repeated. "
    "Default: the first that is not the program's own business, and others with its port.",
)
@click.option(
    "--handshake-timeout",
    type=float,
    default=10.0,
    show_default=True,
    help="Seconds a TLS client has for its handshake; 0: for ever.",
)
@click.option(
    "--reap-after",
    type=float,
    help="Seconds after which a connection whose client has left, and that the program has not "
    "closed, is shut down. Default: never; a client may have shut only its sending side.",
)
@click.option("-m", "module", is_flag=True, help="PROGRAM is a module, as for python -m.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def exec_command(
    max_connections: int,
    settle: float,
    reject: str,
    only: tuple[str, ...],
    handshake_timeout: float,
    reap_after: float | None,
    module: bool,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run PROGRAM, written for threads and blocking sockets, with a hard cap on its clients.

    It runs in gevent's greenlets, monkey-patched, and sees nothing of us: its arguments, its
    exit status and its signals are its own. What we have to say goes to stderr, marked
    "gserver: ".
    """
    try:
        messages.to_stderr()
        descriptors.raise_limit(max_connections)
        with entry.not_by_environment():
            gevent.monkey.patch_all()
        install(
            max_connections,
            settle=settle,
            rejection=_REJECTIONS[reject](),
            only=only,
            handshake_timeout=handshake_timeout or None,
            reap_after=reap_after,
        )
        signals.deliver_to_main()
        status = (run.run_module if module else run.run_program)(program, arguments)
    except SettingError as error:
        sys.stderr.write(f"gserver: {error}\n")
        sys.exit(2)
    sys.exit(status)
