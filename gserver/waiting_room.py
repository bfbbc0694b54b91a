"""The waiting room: drives the gate's queue of clients that wait, bounded, for a slot.

The queue itself, its order and its bounds are the gate's (``gserver/admission/waiting.py``); here
are the clock, the descriptors, and the eye on who has left meanwhile.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from gevent.monkey import get_original

from gserver.admission.gate import Gate
from gserver.admission.waiting import Waiter
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.front import Front
from gserver.one_shot import OneShot

__all__ = ["WaitingRoom"]

#: Seconds between two looks at who has left. Whoever waits less is only looked at when its turn
#: or its time has come.
_LOOK_EVERY_S: Final = 0.1
_poll: Final = get_original("select", "poll")


class WaitingRoom:
    """Clients that wait. ``Waiter.client`` is a descriptor, its address and its front.

    :param admit: called with a waiter whose turn it is and who is still there.
    :param reject: called with one whose time is over; its place in the queue is gone.
    :param abandon: called with one that has left; its receipt is given back already.
    """

    def __init__(
        self,
        gate: Gate,
        in_use: Callable[[], int],
        admit: Callable[[Waiter], None],
        reject: Callable[[Waiter], None],
        abandon: Callable[[Waiter], None],
    ) -> None:
        self._gate = gate
        self._in_use = in_use
        self._admit = admit
        self._reject = reject
        self._abandon = abandon
        self._expired: deque[Waiter] = deque()  # to be told, a share a turn of the loop (G5)
        self._looked = 0.0
        self._timer = OneShot(self._tick)

    def __len__(self) -> int:
        return self._gate.waiting + len(self._expired)

    def descriptors(self) -> list[int]:
        """Those that the waiters hold."""
        return [waiter.client[0] for waiter in (*self._gate.waiters(), *self._expired)]

    def joined(self) -> None:
        """One more waits."""
        self._set_timer(monotonic())

    def slot_came_back(self) -> None:
        """Admit those whose turn it is. Before any newcomer's verdict."""
        gate = self._gate
        while (waiter := gate.next_waiter(in_use=self._in_use())) is not None:
            if _left(waiter.client[0]):
                gate.give_back(waiter.receipt, monotonic())
                self._abandon(waiter)
            else:
                self._admit(waiter)

    def leave(self, front: Front) -> list[Waiter]:
        """A listener closes: take out those that came by it, and return them."""
        leaving = [w for w in self._expired if w.client[2] is front]
        self._expired = deque(w for w in self._expired if w.client[2] is not front)
        for waiter in self._gate.waiters():
            if waiter.client[2] is front and self._gate.leave(waiter):
                leaving.append(waiter)
        if not len(self):
            self._timer.close()
        return leaving

    def _tick(self) -> None:
        now = monotonic()
        self._expired.extend(self._gate.expire(now))
        for _ in range(min(MAX_REJECTIONS_PER_TURN, len(self._expired))):
            waiter = self._expired.popleft()
            if _left(waiter.client[0]):
                self._abandon(waiter)
            else:
                self._reject(waiter)
        if now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            for waiter in self._gate.waiters():
                if _left(waiter.client[0]) and self._gate.leave(waiter):
                    self._abandon(waiter)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if self._expired:
            self._timer.after(0.0)
            return
        deadline = self._gate.next_deadline
        if deadline is None:
            self._timer.close()
        else:
            # The timer may fire a little early by this clock: never set it to less than 1 ms.
            self._timer.after(max(0.001, min(deadline - now, _LOOK_EVERY_S)))


def _left(fd: int) -> bool:
    """Whether a client has closed, also only its sending side, without reading from it: poll(2),
    POLLRDHUP. Where that is not known (macOS), only a connection closed both ways is seen."""
    poll = _poll()
    poll.register(fd, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))
