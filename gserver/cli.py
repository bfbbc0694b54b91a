"""The ``gserver`` command."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, NoReturn

import click

from gserver.admission.limits import MOST_SLOTS, Limits
from gserver.daemon.admission_options import admission_options
from gserver.daemon.connection_options import connection_options, connection_settings
from gserver.daemon.flags import Count, Seconds
from gserver.daemon.output import BackgroundWriter, log_to
from gserver.daemon.proxy_options import proxies_of, proxy_options
from gserver.daemon.rejection_options import Rejections, rejection_options
from gserver.daemon.signals import Hangups, StopSignals
from gserver.errors import SettingError
from gserver.handlers.adapters import Kind
from gserver.handlers.console import Console, escape
from gserver.handlers.echo import echo
from gserver.net.listeners import system_backlog

__all__ = ["cli", "main"]

_FAILURE = 1
_USAGE_ERROR = 2
_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def _version() -> str:
    try:
        return version("gserver")
    except PackageNotFoundError:
        return "not installed"


class _Group(click.Group):
    """A group that imports some of its commands only when they are named: `gserver serve` needs
    nothing of the probe, and `gserver exec` as little as possible of anything."""

    lazy: ClassVar[dict[str, str]] = {
        "exec": "gserver.daemon.exec:exec_command",
        "probe": "gserver.probe.cli:probe",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.lazy[cmd_name].partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 on success, 1 on failure, 2 when an option or an argument cannot be "
    "used.",
)
@click.version_option(_version(), message="gserver %(version)s")
def cli() -> None:
    """A TCP server that knows when it is full, and says so at once.

    It serves a limited number of clients at a time. The next one is turned away at once, instead
    of being left in the kernel's queue, connected and unanswered.

    \b
      gserver demo     see the difference
      gserver serve    try it with: nc 127.0.0.1 8999
    """


@cli.command()
@click.argument("handler", default="console", metavar="[HANDLER]")
@click.option(
    "--listen",
    multiple=True,
    default=["127.0.0.1:8999"],
    metavar="ADDRESS",
    help="HOST:PORT, [IPv6]:PORT, :PORT (on every address), unix:/path or unix:@name (abstract). "
    "Port 0 takes a free one. May be repeated: all listeners share one cap.  "
    "[default: 127.0.0.1:8999]",
)
@click.option(
    "--max-connections",
    type=Count(MOST_SLOTS),
    default=100,
    show_default=True,
    help="The cap: serve at most N clients at a time.",
)
@rejection_options(default="close; reply:http for a WSGI application without TLS")
@click.option(
    "--settle",
    type=Seconds(),
    default=0,
    show_default=True,
    help="Before turning a client away, wait up to SECONDS for a connection that is just ending. "
    "For handlers that take a moment to end.",
)
@click.option(
    "--backlog",
    type=Count(),
    default=system_backlog,
    help="Let the kernel queue up to N clients until they are accepted.  "
    "[default: the system's limit, somaxconn]",
)
@click.option(
    "--drain-timeout",
    type=Seconds(),
    default=10,
    show_default=True,
    help="On SIGTERM or SIGINT admit nobody, and end the clients that have not finished after "
    "SECONDS. A second signal ends the server at once. SIGHUP ends nothing.",
)
@click.option(
    "--app-dir",
    default=".",
    metavar="DIR",
    help="Look for MODULE in DIR first.  [default: the current directory]",
)
@click.option(
    "--kind",
    # Of an enumeration itself the choices would be its names: request_handler.
    type=click.Choice([kind.value for kind in Kind], case_sensitive=False),
    callback=lambda _context, _param, value: None if value is None else Kind(value),
    help="What HANDLER was written for. 'blocking': called in a thread of its own, with a plain "
    "socket.  [default: as it looks; 'callable' if nothing tells]",
)
@admission_options
@proxy_options
@connection_options
def serve(
    handler: str,
    listen: tuple[str, ...],
    limits: Limits,
    rejections: Rejections,
    settle: float,
    backlog: int,
    drain_timeout: float,
    app_dir: str,
    kind: Kind | None,
    proxy_protocol_from: tuple[str, ...],
    proxy_timeout: float | None,
    **of_connections: Any,
) -> None:
    """Serve clients with HANDLER, and turn away those over the cap.

    HANDLER is one of:

    \b
      console         print what clients send, with their address (the default)
      echo            send everything back
      MODULE:HANDLER  call HANDLER(socket, address) in MODULE; a gevent socket.
                      A WSGI application or a socketserver.BaseRequestHandler
                      is served as what it is.

    The first line on standard output says where it listens. The log goes to standard error.

    \b
    Examples:
      gserver serve
      gserver serve echo --listen :7 --max-connections 1000 --reject reset
      gserver serve pkg.app:handle --per-source 10 --wait 0.05 --reject reply:http
      gserver serve mypkg.app:handle --listen unix:/run/app.sock
    """
    stop, hangups = StopSignals(drain_timeout), Hangups()
    from gserver.daemon.loading import load_handler
    from gserver.daemon.serve import ServeSettings
    from gserver.daemon.serve import serve as run

    out = BackgroundWriter(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    err = BackgroundWriter(2)
    try:
        serving: Callable[[Any, Any], object]
        if handler == "console":
            serving = Console(out.write)
        elif handler == "echo":
            serving = echo
        else:
            serving = load_handler(handler, app_dir, kind)
        log_to(err)
        settings = ServeSettings(
            listen=listen,
            limits=limits,
            rejections=rejections,
            settle=settle,
            backlog=backlog,
            drain_timeout=drain_timeout,
            kind=kind,
            proxies=proxies_of(proxy_protocol_from, proxy_timeout),
            **connection_settings(**of_connections),
        )
        listened_to_the_end = run(settings, serving, stop, hangups, out)
    finally:
        out.close()
        err.close()
    if not listened_to_the_end:
        sys.exit(_FAILURE)


@cli.command()
def demo() -> None:
    """Show, in a few seconds, what a full server does to its clients.

    First a server that serves one client after the other: the second one connects, and is met
    with silence until the first one leaves. Then a capped server: the second one is told at once.
    """
    from gserver.demo import run

    if not run(click.echo):
        raise SystemExit(1)


def main() -> NoReturn:
    """Run the command line, and exit: the user's errors are one line and status 2."""
    _open_standard_streams()
    program = "gserver"
    try:
        status = cli.main(prog_name=program, standalone_mode=False)
    except SettingError as error:
        _fail(f"{program}: {error}")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(_USAGE_ERROR)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else program
        text = error.format_message().rstrip(".")
        _fail(f"{command}: {text}{'' if text.endswith('?') else '.'} Try '{command} --help'.")
    except click.ClickException as error:
        _fail(f"{program}: {error.format_message()}")
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except OSError as error:  # a reader that left (EPIPE) click takes care of
        if error.errno != errno.ENOSPC:
            raise
        # What is left in the buffer cannot be written: its flush at exit must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _fail(f"{program}: cannot write the output: {error.strerror}", _FAILURE)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(text: str, status: int = _USAGE_ERROR) -> NoReturn:
    """Exit with one line, whatever the user gave: it may hold newlines and control characters."""
    line = escape(text, leave="\\") + "\n"
    with contextlib.suppress(OSError):  # full or gone: the status says it all the same
        # Not print(): what is left in its buffer would fail again at exit, and be the status.
        os.write(2, line.encode("utf-8", "backslashreplace"))
    sys.exit(status)


def _open_standard_streams() -> None:
    """A descriptor 0 to 2 that was closed would be given to the first socket opened, and what
    is printed would go to a client."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest one free is this one
    # Python leaves None for each one closed, and print(file=None) goes to the other one.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115  # for good
