"""What Linux tells of its sockets, from /proc/net: the listener, its queue, who is accepted.

Reading the whole table takes tens of milliseconds at a thousand connections (the kernel walks
every hash bucket): for before and after a measurement, not for inside one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "State", "counter", "listener", "rows"]


class State(enum.IntEnum):
    """The TCP states asked for here (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    TIME_WAIT = 6
    CLOSE_WAIT = 8
    LISTEN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One line of /proc/net/tcp (proc(5)).

    ``receive_queue`` is bytes unread, or for a listener the connections not yet accepted. An
    ``inode`` of 0 on an established row: not accepted yet (or closed by its process).
    """

    state: int
    local_port: int
    remote_port: int
    receive_queue: int
    inode: int


def rows(port: int) -> Iterator[Row]:
    """Yield the IPv4 rows whose local end is ``port``: the server's side of each connection."""
    ending = f":{port:04X}"
    with open("/proc/net/tcp") as table:
        next(table)  # the header
        for line in table:
            fields = line.split()
            if not fields[1].endswith(ending):
                continue
            yield Row(
                state=int(fields[3], 16),
                local_port=port,
                remote_port=int(fields[2].rpartition(":")[2], 16),
                receive_queue=int(fields[4].partition(":")[2], 16),
                inode=int(fields[9]),
            )


def listener(port: int) -> Row | None:
    """Return the row of the listener on ``port``, or None while there is none."""
    return next((row for row in rows(port) if row.state == State.LISTEN), None)


def counter(name: str) -> int:
    """Return a counter of the TcpExt line of /proc/net/netstat, such as ``TCPTimeWaitOverflow``.

    Raises :class:`KeyError` for a name this kernel doesn't have. Counted since boot, for the
    whole network namespace: take differences.
    """
    lines = Path("/proc/net/netstat").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if names.startswith("TcpExt:"):
            return int(dict(zip(names.split(), values.split(), strict=True))[name])
    raise KeyError(name)
