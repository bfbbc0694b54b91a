"""How long the reaper's sweep over many held connections holds the loop, in ms.

    python -m bench sweep-cost [--held 10000] [--seconds 10] [--json FILE]

A server in this process, its clients in another one (bench/holder.py). A repeating timer of 1 ms
measures how late the loop is: without any timeout, which is the machine's own noise; with sweeps
back to back in which nobody's time is over, and eviction remembers the longest idle; and while
every connection times out at the same instant. Printed besides: the longest slice of the sweep
itself, by this thread's CPU clock and by the wall, and the CPU time of a whole sweep.
"""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from typing import Any

import click
import gevent
from gevent.fileobject import FileObject

from bench.costs import Sheet, cost
from bench.processes import module, start
from gserver import StreamServer, Timeouts
from gserver.handlers.echo import echo
from gserver.reaper import Reaper

__all__ = ["main"]

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

    def report(self, sheet: Sheet, what: str, **more: float) -> None:
        self._timer.stop()
        self._timer.close()
        sheet.row(
            f"{what:44} loop late at most {self.late * 1e3:6.2f} ms; {self.slices:5} slices, "
            f"longest {self.slice_cpu * 1e3:5.2f} ms CPU, {self.slice_wall * 1e3:6.2f} ms wall",
            what=what,
            late_ms=self.late * 1e3,
            slices=self.slices,
            longest_cpu_ms=self.slice_cpu * 1e3,
            longest_wall_ms=self.slice_wall * 1e3,
            **more,
        )


def measure(sheet: Sheet, held: int, seconds: float, sweeping: bool) -> None:
    timeouts = Timeouts(idle=NEVER) if sweeping else Timeouts()
    server = StreamServer(
        ("127.0.0.1", 0),
        echo,
        max_connections=held,
        timeouts=timeouts,
        evict_idle=NEVER if sweeping else None,
    )
    server.start()
    run, begin = Reaper._go_on, Reaper._begin_sweep
    with ExitStack() as stack:
        stack.callback(server.stop, 0)
        sheet.tell(f"{held} connections come in")
        holder, _ = start(module("bench.holder", server.address[1], held), stack, speaks=False)
        assert holder.stdout is not None
        FileObject(holder.stdout.fileno(), "rb", close=False).readline()
        assert server.stats.active == held
        gc.collect()
        gc.freeze()  # the collector's pauses are no part of a sweep
        gc.disable()
        stack.callback(gc.enable)
        if not sweeping:
            sheet.tell("no timeout set")
            watch = Watch()
            gevent.sleep(seconds)
            watch.report(sheet, f"{held} held, no timeout set")
            return
        sheet.tell("sweeps back to back")
        stack.callback(setattr, Reaper, "_go_on", run)
        stack.callback(setattr, Reaper, "_begin_sweep", begin)
        sweep(sheet, server, timeouts, held, seconds)


def sweep(
    sheet: Sheet, server: StreamServer, timeouts: Timeouts, held: int, seconds: float
) -> None:
    """Measure sweeps that end nobody, then the one that ends everybody. Patches the Reaper."""
    run, reaper = Reaper._go_on, server._reaper
    watch = Watch()
    Reaper._go_on = lambda self: watch.slice(run, self)  # type: ignore[method-assign]
    # Everybody is old enough to be looked at, idle for long enough to be remembered for
    # eviction, and nobody's time is over.
    reaper._youngest = 0.0  # type: ignore[misc]
    reaper.evict_idle = 1e-9  # type: ignore[misc]
    reaper._period = TICK_S  # type: ignore[misc]
    sweeps = count_sweeps()
    reaper._set_timer(TICK_S)
    gevent.sleep(seconds)
    each = watch.cpu / sweeps() * 1e3
    watch.report(sheet, f"{held} held, sweeps back to back", sweeps=sweeps(), cpu_ms_each=each)
    sheet.say(f"{'':44} {sweeps()} sweeps, {each:.1f} ms CPU each")

    sheet.tell("all time out at once")
    reaper._set_timer(None)
    object.__setattr__(timeouts, "idle", 1e-9)
    watch = Watch()
    began = time.perf_counter()
    reaper._set_timer(TICK_S)
    while server.stats.active:
        gevent.sleep(TICK_S)
    ended = time.perf_counter() - began
    watch.report(sheet, f"{held} time out at the same instant", all_ended_s=ended)
    sheet.say(f"{'':44} all ended after {ended:.2f} s")


def count_sweeps() -> Any:
    count = 0
    begin = Reaper._begin_sweep

    def counted(self: Reaper) -> None:
        nonlocal count
        count += 1
        begin(self)

    Reaper._begin_sweep = counted  # type: ignore[method-assign]
    return lambda: count


@cost("sweep-cost", lambda held, seconds: 2 * seconds + 3 + held * 4e-4)
@click.option("--held", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True)
def main(sheet: Sheet, held: int, seconds: float) -> None:
    """How long a sweep for timeouts over many connections holds the loop."""
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)  # goes to us, and is no error to print
    measure(sheet, held, seconds, sweeping=False)
    measure(sheet, held, seconds, sweeping=True)


if __name__ == "__main__":
    main()
