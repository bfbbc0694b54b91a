"""The ``gserver`` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import click

from gserver.daemon.connection_options import connection_options, connection_settings
from gserver.daemon.output import BackgroundWriter, log_to
from gserver.daemon.signals import StopSignals
from gserver.errors import SettingError
from gserver.net.listeners import system_backlog
from gserver.net.rejection import Close, Rejection, Reset

__all__ = ["cli", "main"]

_REJECTIONS: dict[str, Callable[[], Rejection]] = {"close": Close, "reset": Reset}
_USAGE_ERROR = 2
_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


class _Count(click.ParamType[int]):
    """A whole number, 1 or more."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            raise SettingError(_name(param), value, "must be a whole number, 1 or more")
        return number


class _Seconds(click.ParamType[float]):
    """Seconds, 0 or more."""

    name = "SECONDS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise SettingError(_name(param), value, "must be a number of seconds, 0 or more")
        return number


def _name(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"


def _version() -> str:
    try:
        return version("gserver")
    except PackageNotFoundError:
        return "not installed"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 success, 1 it did not do what it was to do, 2 a usage error.",
)
@click.version_option(_version(), message="gserver %(version)s")
def cli() -> None:
    """A TCP server that knows when it is full, and says so at once.

    It serves at most so many clients at a time. The next one is turned away at once, instead of
    hanging in the kernel's queue until it gives up.
    """


@cli.command()
@click.argument("handler", default="console", metavar="[HANDLER]")
@click.option(
    "--listen",
    multiple=True,
    default=["127.0.0.1:8999"],
    show_default="127.0.0.1:8999",
    metavar="ADDRESS",
    help="HOST:PORT, :PORT (every address), [IPv6]:PORT, unix:/path or unix:@name (abstract). "
    "Port 0 takes a free one. May be given again: all listeners share one cap.",
)
@click.option(
    "--max-connections",
    type=_Count(),
    default=100,
    show_default=True,
    help="The cap: the most clients served at once.",
)
@click.option(
    "--reject",
    type=click.Choice(list(_REJECTIONS)),
    default="close",
    show_default=True,
    help="What the excess sees: close, an end-of-file; reset, ECONNRESET, which leaves no "
    "TIME_WAIT here and is the better one above 2,000 rejections a second.",
)
@click.option(
    "--settle",
    type=_Seconds(),
    default=0.0,
    show_default=True,
    help="How long a client at the cap may wait for connections that are just ending.",
)
@click.option(
    "--backlog",
    type=_Count(),
    default=system_backlog,
    show_default="the system's somaxconn",
    help="Clients the kernel may queue until they are accepted.",
)
@click.option(
    "--drain-timeout",
    type=_Seconds(),
    default=10.0,
    show_default=True,
    help="How long the admitted may take to finish after SIGTERM or SIGINT. A second signal "
    "ends the server at once.",
)
@click.option(
    "--app-dir",
    default=".",
    show_default="the current directory",
    metavar="DIR",
    help="Where MODULE is looked for first.",
)
@connection_options
def serve(
    handler: str,
    listen: tuple[str, ...],
    max_connections: int,
    reject: str,
    settle: float,
    backlog: int,
    drain_timeout: float,
    app_dir: str,
    **of_connections: Any,
) -> None:
    """Serve clients with HANDLER, at most --max-connections at a time.

    HANDLER is one of

    \b
      console         prints what each client sends, with its address (the default)
      echo            sends everything back
      MODULE:HANDLER  any callable (socket, address); the socket is gevent's

    The first line printed says where it listens. The log goes to standard error.

    \b
    Examples:
      gserver serve
      gserver serve echo --listen :7 --max-connections 1000 --reject reset
      gserver serve mypkg.app:handle --listen unix:/run/app.sock
    """
    stop = StopSignals(drain_timeout)
    from gserver.daemon.loading import load_handler
    from gserver.daemon.serve import ServeSettings
    from gserver.daemon.serve import serve as run
    from gserver.handlers.console import Console
    from gserver.handlers.echo import echo

    out = BackgroundWriter(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    err = BackgroundWriter(2)
    try:
        serving: Callable[[Any, Any], object]
        if handler == "console":
            serving = Console(out.write)
        elif handler == "echo":
            serving = echo
        else:
            serving = load_handler(handler, app_dir)
        log_to(err)
        settings = ServeSettings(
            listen=listen,
            max_connections=max_connections,
            rejection=_REJECTIONS[reject](),
            settle=settle,
            backlog=backlog,
            drain_timeout=drain_timeout,
            **connection_settings(**of_connections),
        )
        run(settings, serving, stop, out)
    finally:
        out.close()
        err.close()


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
        _fail(f"{command}: {error.format_message()} Try '{command} --help'.")
    except click.ClickException as error:
        _fail(f"{program}: {error.format_message()}")
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # `gserver --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing left to flush at exit
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(line: str) -> NoReturn:
    print(line, file=sys.stderr)  # noqa: T201  # the one line of a usage error
    sys.exit(_USAGE_ERROR)


def _open_standard_streams() -> None:
    """A descriptor 0 to 2 that was closed would be given to the first socket opened, and what
    is printed would go to a client."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest one free is this one
