"""``python -m bench``: everything that is measured here, and what is made of it."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

import click

from gserver.probe.result import EXIT_USAGE

#: Command → its module and function, and a line of help. Loaded when called: none waits for the
#: others' imports.
COMMANDS = {
    "compare": ("bench.compare_command", "compare", "Our server and the peers, side by side."),
    "show": ("bench.compare_command", "show", "The tables of a comparison's JSON, again."),
    "peers": ("bench.compare_command", "peers", "Who takes part, and how to install who doesn't."),
    "run": ("bench.scenario_run", "run", "A scenario file against any server."),
    "reject-cost": ("bench.reject_cost", "main", "A rejection's CPU, and the admitted's echo."),
    "refuse-cost": ("bench.refuse_cost", "main", "A flood of refused clients: nothing."),
    "reply-cost": ("bench.reply_cost", "main", "A rejection with a message."),
    "rules-cost": ("bench.rules_cost", "main", "The gate's decisions, and its memory."),
    "held-memory": ("bench.held_memory", "main", "The memory of a silent connection."),
    "sweep-cost": ("bench.sweep_cost", "main", "A sweep for timeouts over many connections."),
    "tcp-info-cost": ("bench.tcp_info_cost", "main", "One look at TCP_INFO."),
    "legacy-cost": ("bench.legacy_cost", "main", "What gserver exec adds."),
    "legacy-settle": ("bench.legacy_settle", "main", "How long unmodified programs need to end."),
    "readme": ("bench.readme", "readme", "The README's figures and plot, from bench/results."),
}


INTERRUPTED = 130  # before there was anything to show: 128 + SIGINT, as a shell reports it


class Lazy(click.Group):
    """Commands that are imported when they are asked for; the user's errors are one line."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        try:
            status = super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(EXIT_USAGE)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "bench"
            click.echo(f"{command}: {' '.join(error.format_message().split())}", err=True)
            sys.exit(EXIT_USAGE)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[name]
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=Lazy)
def main() -> None:
    """Measure servers at their connection limit. COMMAND --help says more.

    Everything states first how long it takes, shows where it is, and gives at Ctrl-C what it has,
    marked partial (exit status 3).
    """


if __name__ == "__main__":
    main()
