"""What the cost scripts share: options, the time they state, progress, JSON, and how they end.

A script is a function that measures and says so line by line to a :class:`Sheet`; :func:`cost`
makes a command of it, for ``python -m bench NAME`` and for ``python -m bench.MODULE`` alike.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bench.files import put
from bench.options import json_option
from bench.progress import Progress, duration
from gserver.probe.environment import environment
from gserver.probe.result import EXIT_INVALID, EXIT_USAGE

__all__ = ["FORMAT", "Sheet", "cost"]

#: Of the JSON; counts up with every change that an older reader would misread.
FORMAT = 1


class TimeIsOver(KeyboardInterrupt):
    """The stated time is over. A KeyboardInterrupt: gevent hands these to the main greenlet."""


class Sheet:
    """What a script has found so far, on standard output and for JSON.

    ``partial`` says why it is not complete; "" when it is. ``warnings`` qualify the figures,
    ``invalid`` says why they do not count.
    """

    def __init__(self, name: str, settings: dict[str, Any], limit_s: float) -> None:
        self.name = name
        self.settings = settings
        self.rows: list[dict[str, Any]] = []
        self.verdicts: list[str] = []
        self.warnings: list[str] = []
        self.invalid: list[str] = []
        self.partial = ""
        # Where it was measured, and the load before it began.
        self.environment = environment(["python", "-m", "bench", name, *words(settings)])
        self._progress = Progress(limit_s)

    def say(self, text: str) -> None:
        """Print a line that holds no figures."""
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)  # progress is rewritten in its line
        click.echo(text)

    def row(self, text: str, **figures: Any) -> None:
        """Print a line of figures, and keep them."""
        self.rows.append(figures)  # first: an interruption must not find it printed and not kept
        self.say(text)

    def verdict(self, text: str) -> None:
        """Print a sentence about the figures, and keep it."""
        self.verdicts.append(text)
        self.say(text)

    def warn(self, text: str) -> None:
        """Print what qualifies the figures, and keep it."""
        self.warnings.append(text)
        self.say(f"warning: {text}")

    def invalidate(self, text: str) -> None:
        """Print why the figures do not count, and keep it: the exit status will be 3."""
        self.invalid.append(text)
        self.say(f"INVALID: {text}")

    def tell(self, text: str) -> None:
        """Show what is being measured, on standard error."""
        self._progress.tell(text)

    def to_json(self) -> dict[str, Any]:
        """Return everything."""
        return {
            "format": FORMAT,
            "name": self.name,
            "partial": self.partial,
            "environment": self.environment,
            "settings": self.settings,
            "rows": self.rows,
            "verdicts": self.verdicts,
            "warnings": self.warnings,
            "invalid": self.invalid,
        }


def words(settings: dict[str, Any]) -> list[str]:
    """Return the command line's words for ``settings``."""
    found = []
    for key, value in settings.items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            found += [word for name in value for word in (option, name)]
        elif isinstance(value, tuple) and value:
            found += [option, ",".join(map(str, value))]
        elif value is True:
            found.append(option)
        elif value not in (False, None, "", ()):
            found += [option, str(value)]
    return found


def cost(name: str, about: Callable[..., float]) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function ``(sheet, **options)``.

    ``about(**options)`` says how many seconds it takes; after twice as long and a minute it is
    ended. Ended early, or by Ctrl-C, what there is is printed and written, marked partial, and
    the exit status is 3, as it is when the sheet is invalid. The limit on open files is raised as
    far as it goes: children inherit it.
    """

    def decorate(measure: Callable[..., None]) -> click.Command:
        @click.command(name, help=measure.__doc__)
        @json_option
        def command(json_file: Path | None, **options: Any) -> None:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            planned = about(**options)
            limit = 2 * planned + 60
            click.echo(f"planned: {duration(planned)}, at most {duration(limit)}", err=True)
            sheet = Sheet(name, options, limit)
            try:
                with time_limit(limit):
                    measure(sheet, **options)
            except TimeIsOver:
                sheet.partial = "its time was over"
            except KeyboardInterrupt:
                sheet.partial = "interrupted"
            if sheet.partial:
                sheet.say(f"PARTIAL: {sheet.partial}")
            whole = json_file is None or put(
                json_file, json.dumps(sheet.to_json(), indent=1) + "\n"
            )
            if sheet.partial or sheet.invalid:
                sys.exit(EXIT_INVALID)
            if not whole:
                sys.exit(EXIT_USAGE)

        # Options are declared on the function, below this decorator.
        command.params += getattr(measure, "__click_params__", [])[::-1]
        return command

    return decorate


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeIsOver` after ``seconds``, and KeyboardInterrupt for SIGTERM too."""

    def over(number: int, frame: object) -> None:
        raise TimeIsOver

    handlers = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGALRM, over),
            (signal.SIGTERM, signal.default_int_handler),
            # A shell that started it in the background would have it ignored.
            (signal.SIGINT, signal.default_int_handler),
        )
    }
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
