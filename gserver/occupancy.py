"""Occupancy: what a change of how many slots are taken leads to.

The count is the pool's and what it means is the gate's; here it is noted in the books, told to
those who want to know whether there is a free slot, and, where there is one, whoever is to have
it is looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent.pool import Pool

from gserver import slots
from gserver.admission.gate import Gate
from gserver.candidates import Candidates
from gserver.stats import Counters
from gserver.waiting_room import WaitingRoom

__all__ = ["Occupancy"]


class Occupancy:
    """Of one cap's slots. Whoever takes a slot or gives one back says so here.

    :param ours: how many slots are held by those who say so. Other work in the pool does not:
        that it has taken one is seen at the next :meth:`note` or :meth:`look`; that it gives one
        back, at once where none was seen to be free.
    """

    def __init__(
        self,
        pool: Pool,
        gate: Gate,
        counters: Counters,
        candidates: Candidates,
        waiting: WaitingRoom,
        ours: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._gate = gate
        self._counters = counters
        self._candidates = candidates
        self._waiting = waiting
        self._ours = ours
        self._awaits_others = False
        self._on_full: list[Callable[[bool], object]] = []
        self._was_full = False

    @property
    def watched(self) -> bool:
        """Whether somebody wants to know of a full cap."""
        return bool(self._on_full)

    def look(self) -> tuple[int, int, bool]:
        """Slots taken, the cap, and whether none is free: as it is now, whoever has taken them,
        and so it is noted. Called for the log, when the first client is turned away and each
        second from then on: a flood at a cap that other work has filled is noticed by this."""
        self.note()
        return len(self._pool), self._gate.max_connections, self._was_full

    def note(self) -> None:
        """There may be a free slot fewer, or more."""
        in_use = len(self._pool)
        full = self._gate.full(in_use)
        self._counters.occupancy(in_use, full, monotonic())
        if full is not self._was_full:
            self._was_full = full
            for callback in tuple(self._on_full):
                if self._was_full is not full:  # one of them has led to a change: all know by now
                    return
                callback(full)
            if full:
                self.await_others()  # for the books, and for a door that is shut

    def changed(self) -> None:
        """A slot may have become free: also for somebody who is to have it."""
        self.note()
        if not self._was_full:
            self._candidates.slot_came_back()
            self._waiting.slot_came_back()

    def on_full(self, callback: Callable[[bool], object]) -> None:
        """Call ``callback`` with True whenever the last slot is taken, with False whenever one
        is free again; at once, if it is taken now."""
        self.note()  # other work in the pool does not tell
        self._on_full.append(callback)
        if self._was_full:
            callback(True)

    def off_full(self, callback: Callable[[bool], object]) -> None:
        """Call it no more. Nothing happens if it never was."""
        if callback in self._on_full:
            self._on_full.remove(callback)

    def await_others(self) -> None:
        """Hear of the next slot that is free, also when other work in the pool gives it back."""
        if not self._awaits_others and self._ours() < len(self._pool) and self._pool.full():
            self._awaits_others = True
            slots.when_free(self._pool, self._slot_is_free)

    def _slot_is_free(self, _semaphore: Any) -> None:
        self._awaits_others = False
        self.changed()
        self.await_others()  # if none is free again
