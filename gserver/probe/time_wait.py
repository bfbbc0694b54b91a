"""How many sockets in TIME_WAIT rejections leave on the server's side. Pure.

Their number in the kernel's table does not say: a client that is given the port of one before it
takes over that one's TIME_WAIT (RFC 6191), and leaves the table as it was. Linux moves on by eight
ports a connection on average, so one address comes round after some 3,500: of 4,000 rejections
177 seemed to have left nothing. So each attempt is looked up by its own end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from gserver.probe.outcomes import REJECTIONS, Outcome

__all__ = ["Left", "left_in_time_wait"]

#: Whose connections can be in TIME_WAIT on the server: it has ended them, and not with a reset.
_ENDED_IN_ORDER: Final = (Outcome.FIN, Outcome.MESSAGE)
_STAYS_NS: Final = 50 * 1_000_000_000  # TCP_TIMEWAIT_LEN is 60 s (include/net/tcp.h)


@dataclass(frozen=True, slots=True)
class Left:
    """:param made: found in the table, or taken over by who is found there; *thrown_away*: at most
    so many more were made, that a full table did not keep; *rejected*: those that were looked at.
    """

    made: int
    thrown_away: int
    rejected: int

    @property
    def each(self) -> float:
        """Made a rejection, those that were thrown away included."""
        return (self.made + self.thrown_away) / self.rejected if self.rejected else 0.0


def left_in_time_wait(
    attempts: Iterable[tuple[int, Outcome, int]],
    waiting: Collection[int],
    now: int,
    *,
    overflow: int,
    client_resets: bool,
) -> Left:
    """Look the rejected of *attempts* (finished, outcome, our end) up in *waiting*.

    :param waiting: our ends of the server's sockets in TIME_WAIT at *now* (monotonic ns). Attempts
        that ended more than 50 s before are left out: their sockets may be gone.
    :param overflow: how many the machine's table has thrown away meanwhile, of whomever.
    :param client_resets: our side ended all of them with RST, so there can be none.
    """
    in_order: Counter[int] = Counter()
    rejected = 0
    for finished, outcome, source in attempts:
        if outcome in REJECTIONS and finished >= now - _STAYS_NS:
            rejected += 1
            if outcome in _ENDED_IN_ORDER:
                in_order[source] += 1
    if not any(source >> 16 for source in in_order):  # the kernel chose one address for all
        waiting = {end & 0xFFFF for end in waiting}
    made = sum(count for source, count in in_order.items() if source in waiting)
    could = 0 if client_resets else in_order.total()
    return Left(made, max(0, min(overflow, could - made)), rejected)
