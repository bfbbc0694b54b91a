"""What a flood of refused clients costs a full server: nothing.

    python -m bench.refuse_cost [--clients 50000] [--reject refuse]

A server whose one slot is held (``gserver serve echo --max-connections 1 --reject refuse``), and as
many connects as asked for, one after the other. Printed: how they ended, and the CPU time that the
server's process used meanwhile (/proc/PID/task/*/schedstat, summed), beside what it uses in as
long a time in which nobody connects. With ``--reject reset``: what turning them away
costs instead.
"""

from __future__ import annotations

import argparse
import errno
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

SOURCES = [f"127.0.0.{n}" for n in range(1, 9)]


def cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir())


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--clients", type=int, default=50_000)
    parser.add_argument("--reject", default="refuse")
    args = parser.parse_args()
    command = [sys.executable, "-m", "gserver", "serve", "echo", "--listen", "127.0.0.1:0"]
    command += ["--max-connections", "1", "--reject", args.reject]
    with ExitStack() as stack:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        line = process.stdout.readline()
        address = ("127.0.0.1", int(line.split(";")[0].rpartition(":")[2]))
        holder = stack.enter_context(socket.create_connection(address))
        holder.sendall(b"x")
        assert holder.recv(1) == b"x"
        time.sleep(0.2)  # what starting costs is over

        before, began = cpu_ns(process.pid), time.perf_counter()
        outcomes = flood(address, args.clients)
        flooded, seconds = cpu_ns(process.pid) - before, time.perf_counter() - began

        before = cpu_ns(process.pid)
        time.sleep(seconds)
        quiet = cpu_ns(process.pid) - before
        holder.sendall(b"y")
        held = holder.recv(1) == b"y"
    print(f"{args.clients:,} clients in {seconds:.1f} s: {dict(outcomes)}")
    print(f"server's CPU meanwhile: {flooded / 1e6:.3f} ms; as long without them: ", end="")
    print(f"{quiet / 1e6:.3f} ms; a client: {(flooded - quiet) / args.clients / 1000:.4f} µs")
    print("the connection it holds is " + ("intact" if held else "broken"))


if __name__ == "__main__":
    main()
