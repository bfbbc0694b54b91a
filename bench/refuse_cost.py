"""What a flood of refused clients costs a full server: nothing.

    python -m bench refuse-cost [--clients 50000] [--reject refuse] [--json FILE]

A server whose one slot is held (``gserver serve echo --max-connections 1 --reject refuse``), and as
many connects as asked for, one after the other. Printed: how they ended, and the CPU time that the
server's processes used meanwhile, beside what they use in as long a time in which nobody connects;
and of the whole machine: on loopback the kernel charges the client with what it does for a server.
With ``--reject reset``: what turning them away costs instead.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from contextlib import ExitStack

import click

from bench.costs import Sheet, cost
from bench.processes import GSERVER, start
from gserver.probe.outcomes import Outcome, of_errno
from gserver.probe.procstat import Usage, measure

__all__ = ["main"]

SOURCES = [f"127.0.0.{n}" for n in range(1, 9)]


def flood(address: tuple[str, int], count: int) -> Counter[str]:
    """Connect, one after the other, and see what each observes."""
    outcomes: Counter[str] = Counter()
    for number in range(count):
        with socket.socket() as client:
            client.settimeout(20)
            client.bind((SOURCES[number % len(SOURCES)], 0))
            try:
                client.connect(address)
                outcomes["served" if client.recv(1) else "closed"] += 1
            except OSError as error:
                outcomes[errno.errorcode.get(error.errno or 0, repr(error))] += 1
    return outcomes


def spent(before: Usage, after: Usage) -> tuple[float, float]:
    """Return the CPU time between two readings, in seconds: the server's, and the machine's."""
    return (
        after.server_cpu_s - before.server_cpu_s,
        after.machine_cpu_s - before.machine_cpu_s,
    )


@cost("refuse-cost", lambda clients, reject: 1 + 2 * clients * 4e-5)
@click.option("--clients", type=click.IntRange(1), default=50_000, show_default=True)
@click.option("--reject", default="refuse", show_default=True, help="Or another, to compare.")
def main(sheet: Sheet, clients: int, reject: str) -> None:
    """What a flood of refused clients costs a full server."""
    with ExitStack() as stack:
        command = [*GSERVER, "--max-connections", "1", "--reject", reject]
        process, line = start(command, stack)
        address = ("127.0.0.1", int(line.split(";")[0].rpartition(":")[2]))
        holder = stack.enter_context(socket.create_connection(address))
        holder.sendall(b"x")
        assert holder.recv(1) == b"x"
        time.sleep(0.2)  # what starting costs is over

        sheet.tell("the flood")
        start_s, before = time.perf_counter(), measure(process.pid)
        outcomes = flood(address, clients)
        flooded, machine = spent(before, measure(process.pid))
        seconds = time.perf_counter() - start_s

        sheet.tell("as long without it")
        before = measure(process.pid)
        time.sleep(seconds)
        quiet, machine_quiet = spent(before, measure(process.pid))
        holder.sendall(b"y")
        held = holder.recv(1) == b"y"
    each = (flooded - quiet) / clients * 1e6
    machine_each = (machine - machine_quiet) / clients * 1e6
    sheet.row(
        f"{clients:,} clients in {seconds:.1f} s: {dict(outcomes)}\n"
        f"server's CPU meanwhile: {flooded * 1e3:.3f} ms; as long without them: "
        f"{quiet * 1e3:.3f} ms; a client: {each:.4f} µs\n"
        f"the whole machine's: {machine * 1e3:.0f} ms; as long without them: "
        f"{machine_quiet * 1e3:.0f} ms; a client, its own part in it: {machine_each:.1f} µs",
        reject=reject,
        clients=clients,
        seconds=seconds,
        outcomes=dict(outcomes),
        flooded_ms=flooded * 1e3,
        quiet_ms=quiet * 1e3,
        us_each=each,
        machine_ms=machine * 1e3,
        machine_quiet_ms=machine_quiet * 1e3,
        machine_us_each=machine_each,
    )
    for name, count in outcomes.items():
        if name.startswith("E") and of_errno(getattr(errno, name, 0)) is Outcome.LOCAL:
            sheet.invalidate(f"{count:,} clients failed on this machine: {name}")
    sheet.verdict("the connection it holds is " + ("intact" if held else "broken"))


if __name__ == "__main__":
    main()
