"""How long unmodified programs need to end a connection: clients falsely turned away, by settle.

    python bench/legacy_settle.py [--clients 100] [NAME …]

Each program of the compatibility matrix whose name contains a NAME runs at its cap under
``gserver exec --settle S``. One client after the other has its answer, closes and connects again:
its slot is free, and whoever is turned away is so falsely. Prints one line a program.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "legacy"))

from legacy_matrix import CAP, ROWS, Conversation, Program, Row, Turned, admitted, serves, until

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for row in ROWS:
        if options.names and not any(name in row.name for name in options.names):
            continue
        if missing := row.missing():
            print(f"{row.name}: not run: {missing}")
            continue
        found = (f"{s * 1000:g} ms: {false_rejections(row, s, options.clients)}" for s in SETTLES)
        print(f"{row.name}: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
