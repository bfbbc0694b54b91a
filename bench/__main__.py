"""``python -m bench``: the suite's commands."""

from __future__ import annotations

import click

from bench.compare_command import compare, peers, show
from bench.scenario_run import run


@click.group()
def main() -> None:
    """Measure servers at their connection limit."""


for command in (run, compare, show, peers):
    main.add_command(command)

if __name__ == "__main__":
    main()
