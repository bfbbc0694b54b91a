"""One timer for any number of equal timeouts.

All entries wait equally long, so they expire in the order in which they came, and a queue with a
timer for its head does what a timer each would do: adding and removing cost a dictionary entry.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, Generic, TypeVar

from gserver.net.loop import Loop, Watcher

__all__ = ["Deadlines"]

T = TypeVar("T")

#: The timer fires at most this many times in one timeout, however many entries expire one by one.
_TICKS: Final = 8
#: Entries that expire in one turn of the loop. Each may close a connection, some 10 µs: a burst
#: that came together would otherwise hold the loop when it expires together.
_BATCH: Final = 64


class Deadlines(Generic[T]):
    """Entries that are handed to ``expired`` when they have stayed ``timeout`` seconds.

    :param loop: whose timer is used.
    :param timeout: seconds, above 0. An entry never expires earlier, and at most about an eighth
        of ``timeout`` later.
    :param expired: called in the hub with each expired entry, which has been removed by then.
        Must not raise.

    Entries are told apart by ``==`` and must be hashable. Nothing is running while it is empty.
    """

    def __init__(self, loop: Loop, timeout: float, expired: Callable[[T], None]) -> None:
        self.timeout: Final = timeout
        self._loop = loop
        self._expired = expired
        # Not a plain dict, in which the first key is slow to find after removals at its front.
        self._entries: OrderedDict[T, float] = OrderedDict()
        self._timer: Watcher | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        """Oldest first. Neither add nor remove while iterating."""
        return iter(self._entries)

    def add(self, entry: T) -> None:
        """Start ``entry``'s time. It must not be in here already."""
        self._entries[entry] = monotonic() + self.timeout
        if self._timer is None:
            self._arm(self.timeout)

    def discard(self, entry: T) -> None:
        """Forget ``entry``, if it is in here."""
        self._entries.pop(entry, None)
        if not self._entries:
            self._disarm()

    def _arm(self, seconds: float) -> None:
        self._disarm()  # what expired may have added entries, and with the first a timer
        self._timer = self._loop.timer(seconds)
        self._timer.start(self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _fire(self) -> None:
        self._disarm()
        now = monotonic()
        for _ in range(_BATCH):
            if not self._entries:
                return
            entry, deadline = next(iter(self._entries.items()))
            if deadline > now:
                self._arm(max(deadline - now, self.timeout / _TICKS))
                return
            del self._entries[entry]
            self._expired(entry)
        self._arm(0.0)
