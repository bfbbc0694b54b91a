"""``python -m bench``: the suite's commands."""

from __future__ import annotations

import click

from bench.scenario_run import run


@click.group()
def main() -> None:
    """Measure servers at their connection limit."""


main.add_command(run)

if __name__ == "__main__":
    main()
