"""What a server costs: CPU and memory of its processes, and the sockets it leaves behind."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench import kernel

__all__ = ["Leftovers", "Memory", "cpu_seconds", "leftovers", "machine_cpu_seconds", "memory"]

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def process_tree(pid: int) -> list[int]:
    """Return ``pid`` and all its descendants that are alive (/proc/PID/task/TID/children)."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in children.read_text().split())
            except OSError:
                continue  # the thread has ended
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds, user and system, used so far by the process tree of ``pid``.

    By each process's CPU-time clock (clock_getcpuclockid(3)): in nanoseconds, of all its threads,
    those that have ended among them. The sum over /proc/PID/task/*/schedstat is as fine but forgets
    a thread when it ends, and with it most of the cost of a server with a thread a connection.
    """
    return sum(_process_cpu_seconds(member) for member in process_tree(pid))


def _process_cpu_seconds(pid: int) -> float:
    clock = ctypes.c_int()
    error = _libc().clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise ProcessLookupError(error, os.strerror(error), f"pid {pid}")
    return time.clock_gettime(clock.value)


def machine_cpu_seconds() -> float:
    """Return the CPU seconds that the whole machine has used since boot, interrupts included.

    Loopback charges much of a handshake to the client, and what no process is charged for still
    happened: printed beside a server's own. In steps of a clock tick (10 ms).
    """
    names = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(name) for name in names)
    return (user + nice + system + irq + softirq) / TICKS


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. ``pss`` counts a page shared by n processes as 1/n in each; ``sockets`` is the
    kernel's TCP buffer memory, of the whole machine and of both ends on loopback."""

    pss: int
    sockets: int

    def __sub__(self, before: Memory) -> Memory:
        return Memory(self.pss - before.pss, self.sockets - before.sockets)


def memory(pid: int) -> Memory:
    """Return the memory of the process tree of ``pid`` (PSS), and of the machine's TCP sockets."""
    return Memory(sum(map(_pss, process_tree(pid))), _tcp_buffers())


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise ValueError(f"no Pss in /proc/{pid}/smaps_rollup")


def _tcp_buffers() -> int:
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * PAGE
    raise ValueError("no TCP line in /proc/net/sockstat")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """``time_wait``: the server's sockets in TIME_WAIT on its port; ``overflow``: those the whole
    machine was spared because the table was full (TCPTimeWaitOverflow, since boot)."""

    time_wait: int
    overflow: int

    def __sub__(self, before: Leftovers) -> Leftovers:
        return Leftovers(self.time_wait - before.time_wait, self.overflow - before.overflow)


def leftovers(port: int) -> Leftovers:
    """Count what the server on ``port`` has left in TIME_WAIT. They stay for 60 s."""
    waiting = sum(row.state == kernel.State.TIME_WAIT for row in kernel.rows(port))
    return Leftovers(waiting, kernel.counter("TCPTimeWaitOverflow"))
