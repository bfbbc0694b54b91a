"""How long the reaper's sweep over many held connections holds the loop, in ms.

    python -m bench.sweep_cost [--held 10000] [--seconds 10]

A server in this process, its clients in another one (bench/holder.py; raise ulimit -n to hold
more). A repeating timer of 1 ms measures how late the loop is: without any timeout, which is the
machine's own noise; with sweeps back to back in which nobody's time is over, and eviction
remembers the longest idle; and while every connection times out at the same instant. Printed
besides: the longest slice of the sweep itself, by this thread's CPU clock and by the wall, and
the CPU time of a whole sweep.
"""

from __future__ import annotations

import argparse
import gc
import platform
import subprocess
import sys
import time
from typing import Any

import gevent
from gevent.fileobject import FileObject

from gserver import StreamServer, Timeouts
from gserver.handlers.echo import echo
from gserver.reaper import Reaper

TICK_S = 0.001
NEVER = 3600.0


class Watch:
    """The latest tick of a timer that should come each millisecond, and the longest slice."""

    def __init__(self) -> None:
        self.late = self.slice_cpu = self.slice_wall = self.cpu = 0.0
        self.slices = 0
        self._last = time.perf_counter()
        self._timer: Any = gevent.get_hub().loop.timer(TICK_S, TICK_S)
        self._timer.start(self._tick)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.late = max(self.late, now - self._last - TICK_S)
        self._last = now

    def slice(self, run: Any, reaper: Reaper) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        run(reaper)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        self.slice_cpu, self.slice_wall = max(self.slice_cpu, cpu), max(self.slice_wall, wall)
        self.cpu += cpu
        self.slices += 1

    def report(self, what: str) -> None:
        self._timer.stop()
        self._timer.close()
        print(
            f"{what:44} loop late at most {self.late * 1e3:6.2f} ms; {self.slices:5} slices, "
            f"longest {self.slice_cpu * 1e3:5.2f} ms CPU, {self.slice_wall * 1e3:6.2f} ms wall"
        )


def measure(held: int, seconds: float, sweeping: bool) -> None:
    timeouts = Timeouts(idle=NEVER) if sweeping else Timeouts()
    server = StreamServer(
        ("127.0.0.1", 0),
        echo,
        max_connections=held,
        timeouts=timeouts,
        evict_idle=NEVER if sweeping else None,
    )
    server.start()
    reaper = server._reaper
    holder = subprocess.Popen(
        [sys.executable, "-m", "bench.holder", str(server.address[1]), str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        FileObject(holder.stdout, close=False).readline()
        assert server.stats.active == held
        gc.collect()
        gc.freeze()  # the collector's pauses are no part of a sweep
        gc.disable()
        if not sweeping:
            watch = Watch()
            gevent.sleep(seconds)
            watch.report(f"{held} held, no timeout set")
            return
        run = Reaper._go_on
        watch = Watch()
        Reaper._go_on = lambda self: watch.slice(run, self)  # type: ignore[method-assign]
        # Everybody is old enough to be looked at, idle for long enough to be remembered for
        # eviction, and nobody's time is over.
        reaper._youngest = 0.0  # type: ignore[misc]
        reaper._evict_idle = 1e-9
        reaper._period = TICK_S  # type: ignore[misc]
        sweeps = count_sweeps(reaper)
        reaper._set_timer(TICK_S)
        gevent.sleep(seconds)
        watch.report(f"{held} held, sweeps back to back")
        print(f"{'':44} {sweeps()} sweeps, {watch.cpu / sweeps() * 1e3:.1f} ms CPU each")

        reaper._set_timer(None)
        object.__setattr__(timeouts, "idle", 1e-9)
        watch = Watch()
        began = time.perf_counter()
        reaper._set_timer(TICK_S)
        while server.stats.active:
            gevent.sleep(TICK_S)
        watch.report(f"{held} time out at the same instant")
        print(f"{'':44} all ended after {time.perf_counter() - began:.2f} s")
        Reaper._go_on = run  # type: ignore[method-assign]
    finally:
        gc.enable()
        holder.stdin.close()
        server.stop(0)
        holder.wait()
        holder.stdout.close()


def count_sweeps(reaper: Reaper) -> Any:
    count = 0
    begin = Reaper._begin_sweep

    def counted(self: Reaper) -> None:
        nonlocal count
        count += 1
        begin(self)

    Reaper._begin_sweep = counted  # type: ignore[method-assign]
    return lambda: count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, Linux {platform.release()}")
    measure(options.held, options.seconds, sweeping=False)
    measure(options.held, options.seconds, sweeping=True)


if __name__ == "__main__":
    main()
