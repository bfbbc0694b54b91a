"""The waiting room: drives the gate's queue of clients that wait, bounded, for a slot.

The queue itself, its order and its bounds are the gate's (``gserver/admission/waiting.py``); here
are the clock, the descriptors, and the eye on who has left meanwhile.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from gevent.monkey import get_original

from gserver.admission.gate import Gate
from gserver.admission.waiting import Waiter
from gserver.candidates import TurnShare, iteration
from gserver.front import Front
from gserver.one_shot import OneShot

__all__ = ["WaitingRoom"]

#: Seconds between two looks at who has left. Whoever waits less is only looked at when its turn
#: or its time has come.
_LOOK_EVERY_S: Final = 0.1
#: How many are looked at, and may be dropped, in one turn of the loop (G5).
_LOOKS_PER_TURN: Final = 200
_POLLRDHUP: Final = getattr(select, "POLLRDHUP", 0)
_poll: Final = get_original("select", "poll")


class WaitingRoom:
    """Clients that wait. ``Waiter.client`` is a descriptor, its address and its front.

    :param next_waiter: whose turn it is: ``gate.next_waiter`` with the slots as they are.
    :param share: how many may be rejected in a turn of the loop.
    :param admit: called with a waiter whose turn it is and who is still there.
    :param reject: called with one whose time is over; its place in the queue is gone.
    :param abandon: called with one that has left; its receipt is given back already.
    """

    def __init__(
        self,
        next_waiter: Callable[[], Waiter | None],
        gate: Gate,
        share: TurnShare,
        admit: Callable[[Waiter], None],
        reject: Callable[[Waiter], None],
        abandon: Callable[[Waiter], None],
    ) -> None:
        self._gate = gate
        self._next_waiter = next_waiter
        self._share = share
        self._admit = admit
        self._reject = reject
        self._abandon = abandon
        self._looked = 0.0  # when the last look at them all began
        self._to_look_at: list[Waiter] = []  # what is left of it
        self._timer = OneShot(self._tick)

    def __len__(self) -> int:
        return self._gate.waiting

    def descriptors(self) -> list[int]:
        """Those that the waiters hold."""
        return [waiter.client[0] for waiter in self._gate.waiters()]

    def joined(self) -> None:
        """One more waits."""
        if len(self) == 1:
            self._looked = monotonic()
        self._set_timer(monotonic())

    def rules_changed(self) -> None:
        """They may wait less long now, or their queue be shorter."""
        self._set_timer(monotonic())

    def slot_came_back(self) -> None:
        """Admit those whose turn it is. Before any newcomer's verdict."""
        gate = self._gate
        while (waiter := self._next_waiter()) is not None:
            if _left(waiter.client[0]):
                gate.give_back(waiter.receipt, monotonic())
                self._abandon(waiter)
            else:
                self._admit(waiter)

    def leave(self, front: Front) -> list[Waiter]:
        """A listener closes: take out those that came by it, and return them."""
        leaving = []
        for waiter in self._gate.waiters():
            if waiter.client[2] is front and self._gate.leave(waiter):
                leaving.append(waiter)
        if not len(self):
            self._to_look_at = []
            self._timer.close()
        return leaving

    def _tick(self) -> None:
        now = monotonic()
        try:
            # A share a turn of the loop (G5). The others keep their places in the queue until they
            # are told, so that its bound is the bound on their descriptors. One at a time: no
            # error can lose those behind it.
            for _ in range(self._share.left(iteration())):
                expired = self._gate.expire(now, 1)
                if not expired:
                    break
                self._share.spend(1)
                if _left(expired[0].client[0]):
                    self._abandon(expired[0])
                else:
                    self._reject(expired[0])
            if not self._to_look_at and now - self._looked >= _LOOK_EVERY_S:
                self._looked = now
                self._to_look_at = self._gate.waiters()
            if self._to_look_at:
                self._look_at_some()
        finally:
            self._set_timer(now)

    def _look_at_some(self) -> None:
        some = self._to_look_at[-_LOOKS_PER_TURN:]
        del self._to_look_at[-_LOOKS_PER_TURN:]
        # Some may wait no more, and their descriptors be closed or another's by now. The gate
        # knows who waits, and who waits has a descriptor of its own.
        of_fd = {waiter.client[0]: waiter for waiter in some}
        for fd in _those_who_left(of_fd):
            if self._gate.leave(of_fd[fd]):
                self._abandon(of_fd[fd])

    def _set_timer(self, now: float) -> None:
        deadline = self._gate.next_deadline
        if deadline is None:
            self._timer.close()
        elif deadline <= now or self._to_look_at:
            self._timer.after(0.0)
        else:
            # By when the last look was, not by now: else whoever comes would put the next one off.
            # The timer may fire a little early by this clock: never set it to less than 1 ms.
            due = min(deadline, self._looked + _LOOK_EVERY_S)
            self._timer.after(max(0.001, due - now))


def _left(fd: int) -> bool:
    """Whether a client has left."""
    return bool(_those_who_left([fd]))


def _those_who_left(fds: Iterable[int]) -> list[int]:
    """Of clients' descriptors, those whose client has closed, also only its sending side, without
    reading from them: poll(2), POLLRDHUP. Where that is not known (macOS), only a connection
    closed both ways is seen."""
    poll = _poll()
    for fd in fds:
        poll.register(fd, _POLLRDHUP)
    return [fd for fd, _ in poll.poll(0)]
