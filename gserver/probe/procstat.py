"""What a server's processes use: CPU time and memory, over the whole process tree (proc(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "is_running", "listening_process", "measure", "process_tree"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """One reading. Differences of two are figures; a single one is not.

    :param server_cpu_s: of the whole tree, threads and children that have ended included, to the
        nanosecond (processes that have ended: to two clock ticks in all, of 10 ms each); 0 without
        a pid.
    :param machine_cpu_s: busy time of all processors, to a clock tick for each: on loopback the
        kernel charges the server's share of a handshake to whoever sends the packet.
    :param server_pss: proportional set size of the tree, bytes; 0 when it cannot be read.
    :param socket_memory: TCP buffers of the machine, bytes (``/proc/net/sockstat``).
    :param time_wait_overflow: sockets in TIME_WAIT that the table's limit has thrown away.
    """

    server_cpu_s: float
    machine_cpu_s: float
    server_pss: int
    socket_memory: int
    time_wait_overflow: int


def process_tree(pid: int) -> list[int]:
    """*pid* and its descendants, those that are there now."""
    tree = [pid]
    for parent in tree:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                tree += map(int, children.read_text().split())
            except OSError:
                continue
    return tree


def is_running(pid: int) -> bool:
    """Whether it is there and has not ended: one that nobody has waited for yet has, too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # proc_pid_stat(5), field 3


def listening_process(inodes: Collection[int]) -> int | None:
    """The process whose tree holds all the listening sockets with these *inodes*.

    :return: None when there is none, when they belong to unrelated processes, or when this user
        may not look.
    """
    wanted = {f"socket:[{inode}]" for inode in inodes if inode}
    owners = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _holds(p / "fd", wanted)]
    for pid in sorted(owners):
        if set(owners) <= set(process_tree(pid)):
            return pid
    return None


def _holds(descriptors: Path, wanted: Collection[str]) -> bool:
    try:
        names = os.listdir(descriptors)
    except OSError:  # gone, or another user's
        return False
    for name in names:
        try:
            if os.readlink(descriptors / name) in wanted:
                return True
        except OSError:  # closed since
            continue
    return False


def measure(pid: int | None, *, memory: bool = False) -> Usage:
    """Read the counters now.

    :param pid: the server's first process; None: the machine's counters only.
    :param memory: read the proportional set size too, which walks the page tables.
    """
    cpu, pss = 0.0, 0
    for process in process_tree(pid) if pid is not None else []:
        try:
            cpu += _process_cpu(process) + _ended_children_cpu(process)
        except OSError:  # the process has ended since
            continue
        if memory:
            pss += _pss(process)
    tcp = _fields("/proc/net/sockstat", "TCP:")
    return Usage(
        server_cpu_s=cpu,
        machine_cpu_s=_machine_cpu(),
        server_pss=pss,
        socket_memory=tcp.get("mem", 0) * _PAGE,
        time_wait_overflow=_time_wait_overflow(),
    )


def _process_cpu(pid: int) -> float:
    # The process's CPU-time clock, as clock_getcpuclockid(3) names it: ~PID in the upper bits,
    # CPUCLOCK_SCHED in the lowest two (include/linux/posix-timers.h). It counts every thread that
    # the process ever had. /proc/PID/schedstat is the main thread's alone, /proc/PID/task/* those
    # there are now: a server with a thread a connection would look free.
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9


def _ended_children_cpu(pid: int) -> float:
    # Fields 16 and 17 of proc_pid_stat(5), cutime and cstime: children it has waited for, and
    # theirs. The name in field 2 may hold spaces and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * _TICK_S


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _machine_cpu() -> float:
    # The time there was, less idle and iowait (proc_stat(5)). The kernel measures idleness where
    # the tick stops meanwhile (NO_HZ: get_cpu_idle_time_us in kernel/time/tick-sched.c), while
    # the other fields count who is found running at a tick: a server that a timer wakes is found
    # always, or never. The processors are those of the same file: os.cpu_count() is the user's to
    # set (PYTHON_CPU_COUNT), and in a container the file may be of fewer (lxcfs).
    text = Path("/proc/stat").read_text()
    now = time.monotonic()
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    total, *each = lines
    return now * len(each) - (int(total[4]) + int(total[5])) * _TICK_S


def _fields(path: str, start: str) -> dict[str, int]:
    for line in Path(path).read_text().splitlines():
        if line.startswith(start):
            words = line.split()[1:]
            return {words[i]: int(words[i + 1]) for i in range(0, len(words), 2)}
    return {}


def _time_wait_overflow() -> int:
    lines = [
        line.split()
        for line in Path("/proc/net/netstat").read_text().splitlines()
        if line.startswith("TcpExt:")
    ]
    names, values = lines[0], lines[1]
    if "TCPTimeWaitOverflow" not in names:
        return 0
    return int(values[names.index("TCPTimeWaitOverflow")])
