"""One connection attempt: its times, what it came to, and its socket while it has one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gserver.probe.outcomes import REJECTIONS, Outcome

__all__ = ["Attempt", "Batches", "Patience", "too_many_at_once"]

_MOST_AT_ONCE: Final = 128
_LONG_S: Final = 0.5

_RETRY_S: Final = 0.9  # a SYN that was dropped is sent again after 1 s (RFC 6298, 2.1)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an attempt listens before it speaks, and until it gives up. Seconds."""

    quiet_s: float = 0.010
    deadline_s: float = 2.0


class Attempt:
    """One connection. Times are :func:`time.monotonic_ns`; 0 means: not yet.

    After an outcome that leaves the connection open, an attempt started with ``keep`` goes on
    being watched: :attr:`served` is when its turn came after all, :attr:`ended` when the server
    ended it, :attr:`ended_by` how. :attr:`received` is what came until the outcome, and where only
    silence admits the first of what came after it. :attr:`source` is our end, ``address << 16 |
    port``: 0 when the engine was not to note it, address 0 when the kernel chose it.
    """

    __slots__ = (
        "ended",
        "ended_by",
        "finished",
        "heard",
        "index",
        "intended",
        "keep",
        "outcome",
        "probed",
        "quiet_at",
        "received",
        "served",
        "sock",
        "source",
        "started",
        "timed",
        "watcher",
    )

    def __init__(self, index: int, intended: int, keep: bool) -> None:
        self.index = index
        self.intended = intended
        self.keep = keep
        self.source = 0
        self.started = 0
        self.finished = 0
        self.outcome: Outcome | None = None
        self.probed = False
        self.received = b""
        self.heard = 0  # when the last of it came, or the oracle said accepted
        self.quiet_at = 0  # when it will have been quiet for quiet-time
        self.timed = False  # stands in the engine's deadline queue
        self.served = 0
        self.ended = 0
        self.ended_by: Outcome | None = None
        self.sock: Any = None  # _socket.socket, which has no public name for the type checker
        self.watcher: Any = None

    @property
    def is_held(self) -> bool:
        """Proven served, not closed by us, and not ended by the server."""
        return self.sock is not None and self.served != 0 and self.ended == 0

    @property
    def is_waiting(self) -> bool:
        """Connected or connecting, without a verdict that says yes or no."""
        return self.sock is not None and self.served == 0 and self.ended == 0


def too_many_at_once(batch: Iterable[Attempt], usual_s: float) -> bool:
    """Whether some of *batch* had to knock again, or got no answer: its backlog is too short.

    :param usual_s: how long admission takes, seconds.
    """
    for attempt in batch:
        if attempt.served:
            if attempt.served - attempt.started > (usual_s + _RETRY_S) * 1e9:
                return True
        elif attempt.outcome not in (*REJECTIONS, Outcome.LOCAL):
            return True
    return False


class Batches:
    """How many to open at once: as many as are held already, until a backlog is too short for them.

    :param usual_s: how long admission takes, seconds. Where it is long, feeling the way would be.
    """

    def __init__(self, usual_s: float) -> None:
        self._usual_s = usual_s
        self._most = _MOST_AT_ONCE
        self._first = 1 if usual_s < _LONG_S else self._most

    def size(self, held: int, wanted: int) -> int:
        """Of the next batch: at least 1 while fewer are held than are wanted."""
        return min(max(self._first, held), self._most, wanted - held)

    def came_to(self, batch: Sequence[Attempt]) -> None:
        """Told of a batch that has its outcomes: never more than half of one that was too big."""
        if len(batch) > 1 and too_many_at_once(batch, self._usual_s):
            self._most = len(batch) // 2
