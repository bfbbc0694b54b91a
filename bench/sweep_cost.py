"""How long the reaper's sweep over many held connections holds the loop, in ms.

    python -m bench sweep-cost [--held 10000] [--seconds 10] [--json FILE]

A server in this process, its clients in another one (bench/holder.py). A repeating timer of 1 ms
measures how late the loop is: without any timeout, which is the machine's own noise; with a sweep
every 10 ms in which nobody's time is over, and eviction remembers the longest idle; and while
every connection times out at the same instant. Printed besides: the most CPU time of one turn of
the loop, and the CPU time of a whole sweep.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import click
import gevent
from gevent.fileobject import FileObject

from bench.costs import Sheet, cost
from bench.processes import module, start
from gserver import Ending, StreamServer, Timeouts
from gserver.handlers.echo import echo
from gserver.reaper import Reaper

__all__ = ["main"]

TICK_S = 0.001
NEVER_S = 3600.0
#: An age of which Reaper makes a sweep every 10 ms, its shortest period.
SOON_S = 0.05
#: The loop is to be at most so late while 10,000 are swept.
TARGET_MS = 5.0


class Watch:
    """The latest tick of a timer that should come each millisecond, and the longest turn.

    :ivar late: seconds.
    :ivar turn: the most CPU time of this thread in one turn of the loop, in seconds.
    """

    def __init__(self) -> None:
        self.late = self.turn = 0.0
        self.began, self._cpu = time.perf_counter(), time.thread_time()
        self._last, self._turned = self.began, self._cpu
        loop = gevent.get_hub().loop
        self._timer: Any = loop.timer(TICK_S, TICK_S)
        self._timer.start(self._tick)
        self._prepare: Any = loop.prepare()  # once a turn, before the poll
        self._prepare.start(self._turn_over)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.late = max(self.late, now - self._last - TICK_S)
        self._last = now

    def _turn_over(self) -> None:
        cpu = time.thread_time()
        self.turn = max(self.turn, cpu - self._turned)
        self._turned = cpu

    def report(self, sheet: Sheet, what: str, **more: float) -> None:
        for watcher in (self._timer, self._prepare):
            watcher.stop()
            watcher.close()
        sheet.row(
            f"{what:44} loop late at most {self.late * 1e3:6.2f} ms; longest turn "
            f"{self.turn * 1e3:5.2f} ms CPU",
            what=what,
            late_ms=self.late * 1e3,
            longest_cpu_ms=self.turn * 1e3,
            **more,
        )

    def cpu(self) -> float:
        """This thread's CPU time since the beginning, in seconds."""
        return time.thread_time() - self._cpu


class Counted:
    """A connection among them that nobody can tell anything of: counts the sweeps."""

    admitted_at = 0.0
    deferred = ended = reading = False
    header_bytes = 0
    address = None
    on_end: Any = None

    def __init__(self) -> None:
        self.sweeps = 0

    def tcp_info(self) -> None:
        self.sweeps += 1

    def nudge(self, cause: Ending | None = None) -> None: ...

    def kill(self) -> None: ...

    def cut(self) -> None: ...


def measure(sheet: Sheet, held: int, seconds: float) -> None:
    server = StreamServer(("127.0.0.1", 0), echo, max_connections=held)
    server.start()
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
        assert server.limiter is not None  # it has a cap
        connections = list(server.limiter.connections)

        sheet.tell("no timeout set")
        watch = Watch()
        gevent.sleep(seconds)
        quiet = watch.cpu()
        watch.report(sheet, f"{held} held, no timeout set")

        sheet.tell("sweeps every 10 ms")
        sweep(sheet, connections, seconds, quiet)

        sheet.tell("all time out at once")
        reaper = Reaper(Timeouts(idle=SOON_S))
        for connection in connections:
            reaper.watch(connection)
        watch = Watch()
        while server.stats.active:
            gevent.sleep(TICK_S)
        ended = time.perf_counter() - watch.began
        watch.report(sheet, f"{held} time out at the same instant", all_ended_s=ended)
        sheet.say(f"{'':44} all ended after {ended:.2f} s")


def sweep(sheet: Sheet, connections: list[Any], seconds: float, quiet: float) -> None:
    """Measure sweeps that end nobody. ``quiet``: the CPU time of as many seconds without any."""
    counted = Counted()
    # Nobody's time is over, and everybody is idle for long enough to be remembered for eviction.
    reaper = Reaper(Timeouts(idle=NEVER_S), evict_idle=SOON_S)
    everybody = [*connections, counted]
    for connection in everybody:
        reaper.watch(connection)
    watch = Watch()
    gevent.sleep(seconds)
    each = max(0.0, watch.cpu() - quiet) / max(1, counted.sweeps) * 1e3
    sweeps = counted.sweeps
    what = f"{len(connections)} held, a sweep every 10 ms"
    watch.report(sheet, what, sweeps=sweeps, cpu_ms_each=each)
    sheet.say(f"{'':44} {sweeps} sweeps, {each:.1f} ms CPU each")
    for connection in everybody:
        connection.on_end(connection)  # it forgets them: the last sweep


def verdicts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Whether the loop was held longer than it may be, by each kind of sweep."""
    quiet, *swept = rows
    for row in swept:
        late = row["late_ms"]
        yield (
            f"{row['what']}: the loop {late:.1f} ms late of {TARGET_MS:g} "
            f"({quiet['late_ms']:.1f} without timeouts): {'met' if late <= TARGET_MS else 'missed'}"
        )


@cost("sweep-cost", lambda held, seconds: 2 * seconds + 3 + held * 4e-4)
@click.option("--held", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True)
def main(sheet: Sheet, held: int, seconds: float) -> None:
    """How long a sweep for timeouts over many connections holds the loop."""
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)  # goes to us, and is no error to print
    measure(sheet, held, seconds)
    for text in verdicts(sheet.rows):
        sheet.verdict(text)


if __name__ == "__main__":
    main()
