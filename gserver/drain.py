"""The bounded drain (G7): nobody new, idle clients nudged, work in flight finished, then the end.

Bounded whatever handlers do between two turns of the loop; one that never lets the loop turn
holds up everything, this too. The daemon has a watchdog thread for that
(``gserver/daemon/signals.py``); in a library that is its host's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

import gevent

from gserver.connection import Connection
from gserver.idleness import BUDGET_S, idle_seconds
from gserver.limiter import Limiter

__all__ = ["KILL_S", "Drained", "drain_servers"]

#: Seconds that the killed have to end, once the drain's time is over.
KILL_S: Final = 1.0
#: Seconds between two looks at who has become idle. A look at all of 10,000 takes some 20 ms.
_LOOK_EVERY_S: Final = 0.1
#: Seconds between two looks whether one server's own connections have ended, or those that are
#: being told that it is busy: nothing tells.
_POLL_S: Final = 0.01


class _Server(Protocol):
    def close(self) -> None: ...
    def lingering_descriptors(self) -> set[int]: ...


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain went.

    :ivar active: connections at its beginning.
    :ivar nudged: of those, how many were idle at some time, and saw an end-of-file.
    :ivar killed: those that were still there when the time was over.
    :ivar left: those that survived even that: handlers that swallow GreenletExit. Their clients
        have been cut off, their slots are still taken.
    :ivar seconds: how long it took.
    """

    active: int
    nudged: int
    killed: int
    left: int
    seconds: float


def drain_servers(
    servers: Collection[_Server], limiter: Limiter, timeout: float, *, others_go_on: bool = False
) -> Drained:
    """Close ``servers``, let the admitted finish, and kill those that have not after ``timeout``.

    Clients in a server's queue or waiting for a verdict get one at once. An idle connection (the
    reaper's test) is nudged: its handler sees an end-of-file. Others go on, and are nudged once
    they have given their answer. Where the system cannot tell (unix sockets), nobody is nudged.
    Clients that are being told that a server is busy have the same time, within their own bound:
    cut off, they might not see the reply.

    :param limiter: the servers'.
    :param timeout: seconds; 0: kill at once.
    :param others_go_on: whether connections of other servers that share the limiter, and other
        work in its pool, go on; if not, all of it is drained.
    :return: within ``timeout`` plus :data:`KILL_S`. The servers are closed then.

    Must not be called from a handler: it would wait for itself.
    """
    began = monotonic()
    deadline = began + timeout
    pool = limiter.pool

    def own() -> list[Connection]:
        return [c for c in limiter.connections if not others_go_on or c.server in servers]

    def holding() -> int:
        return len(own()) if others_go_on else len(pool)

    def wait(seconds: float) -> None:
        if not others_go_on:
            pool.join(timeout=seconds)
            return
        until = monotonic() + seconds
        while own() and monotonic() < until:
            gevent.sleep(min(_POLL_S, seconds))

    active = holding()
    for server in servers:
        server.close()
    nudged = 0
    while holding() and (left := deadline - monotonic()) > 0:
        nudged += _nudge_idle(own(), deadline)
        wait(min(left, _LOOK_EVERY_S))
    while any(server.lingering_descriptors() for server in servers):
        if (left := deadline - monotonic()) <= 0:
            break
        gevent.sleep(min(_POLL_S, left))
    killed = holding()
    if killed:
        holders = [c.greenlet for c in own()] if others_go_on else list(pool)
        for holder in holders:
            holder.kill(block=False)
        wait(KILL_S)
        for connection in own():
            connection.cut()
    return Drained(active, nudged, killed, holding(), monotonic() - began)


def _nudge_idle(walk: list[Connection], deadline: float) -> int:
    """Nudge those that are idle now and have not been so before; how many."""
    nudged = 0
    turn_at = monotonic() + BUDGET_S
    while walk:
        connection = walk.pop()  # not kept until the end: it may be the last reference
        if monotonic() >= turn_at:
            gevent.sleep(0)
            if monotonic() >= deadline:
                break
            turn_at = monotonic() + BUDGET_S
        if connection.nudged or connection.ended or idle_seconds(connection) is None:
            continue
        connection.nudge()
        nudged += 1
    return nudged
