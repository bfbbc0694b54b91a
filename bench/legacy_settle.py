"""How long unmodified programs need to end a connection: clients falsely turned away, by settle.

    python -m bench legacy-settle [--clients 100] [--program NAME …] [--json FILE]

Each program of the compatibility matrix whose name contains a NAME runs at its cap under
``gserver exec --settle S``. One client after the other has its answer, closes and connects again:
its slot is free, and whoever is turned away is so falsely. Prints one line a program.
"""

from __future__ import annotations

import signal
import sys

import click

from bench.costs import Sheet, cost
from bench.processes import ROOT

# The matrix is the tests': its programs are started as there.
sys.path.insert(0, str(ROOT / "tests" / "legacy"))

from legacy_matrix import (  # type: ignore[import-not-found]
    CAP,
    ROWS,
    Conversation,
    Program,
    Row,
    Turned,
    admitted,
    serves,
    until,
)

__all__ = ["main"]

SETTLES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


def false_rejections(row: Row, settle: float, clients: int) -> int:
    """Of so many clients that come when a slot is free, how many are turned away."""
    program = Program(row, "--settle", str(settle))
    held: list[Conversation] = []
    turned_away = 0
    try:
        until(lambda: serves(row, program.port, CAP))
        held = [until(lambda: admitted(row, program.port)) for _ in range(CAP)]
        for _ in range(clients):
            try:
                held.pop(0).finish()
                conversation = Conversation(row, program.port)
                if conversation.turned_away(0.01 + settle):
                    conversation.close()
                    raise Turned
                held.append(conversation)
            except Turned:
                turned_away += 1
                held.append(until(lambda: admitted(row, program.port)))
    finally:
        for conversation in held:
            conversation.close()
        program.stop(signal.SIGKILL)
    return turned_away


def chosen(names: tuple[str, ...]) -> list[Row]:
    return [row for row in ROWS if not names or any(name in row.name for name in names)]


def about(clients: int, program: tuple[str, ...]) -> float:
    return len(chosen(program)) * len(SETTLES) * (0.6 + 0.015 * clients)


@cost("legacy-settle", about)
@click.option("--clients", type=click.IntRange(1), default=100, show_default=True)
@click.option("--program", multiple=True, help="Part of a name; may be repeated.")
def main(sheet: Sheet, clients: int, program: tuple[str, ...]) -> None:
    """Clients falsely turned away by unmodified programs, by --settle."""
    for row in chosen(program):
        if missing := row.missing():
            sheet.say(f"{row.name}: not run: {missing}")
            continue
        found = {}
        for settle in SETTLES:
            sheet.tell(f"{row.name}, {settle * 1000:g} ms")
            found[f"{settle * 1000:g} ms"] = false_rejections(row, settle, clients)
        text = ", ".join(f"{settle}: {count}" for settle, count in found.items())
        sheet.row(f"{row.name}: {text}", program=row.name, clients=clients, falsely=found)


if __name__ == "__main__":
    main()
