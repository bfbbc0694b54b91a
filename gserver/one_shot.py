"""A timer of the loop that can be set again to another time, which gevent's own cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent

__all__ = ["SETTLE_PRIORITY", "OneShot"]

#: Below the connections' watchers (0), above the listeners' (accept.py): endings first, then
#: whoever waits for one, then newcomers.
SETTLE_PRIORITY: Final = -1


class OneShot:
    """Calls ``callback`` once, after a time set by :meth:`after`.

    A timer, also for no time at all, and not a callback: libev runs timers after its poll, in
    order of priority, so the endings that this poll reported are handled first. A timer of zero
    never blocks the poll.
    """

    __slots__ = ("_callback", "_later", "_turn")

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._turn: Any = None  # the one of zero, which is needed most, is kept
        self._later: Any = None

    def after(self, seconds: float) -> None:
        """Call back after so many seconds, 0: in the next turn of the loop; not before."""
        loop = gevent.get_hub().loop
        if self._later is not None:
            self._later.stop()
            self._later.close()
            self._later = None
        if seconds > 0.0:
            self._later = loop.timer(seconds, 0.0, True, SETTLE_PRIORITY)
            self._later.start(self._callback)
        else:
            if self._turn is None:
                self._turn = loop.timer(0.0, 0.0, True, SETTLE_PRIORITY)
            self._turn.start(self._callback)

    def close(self) -> None:
        """Call back no more, and give the timers back. It may be set again."""
        for timer in (self._turn, self._later):
            if timer is not None:
                timer.stop()
                timer.close()
        self._turn = self._later = None
