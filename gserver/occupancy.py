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

    :param ours: how many slots are held by those who say so. In a pool that is ``shared`` with
        other work more may be taken.
    """

    def __init__(
        self,
        pool: Pool,
        gate: Gate,
        counters: Counters,
        candidates: Candidates,
        waiting: WaitingRoom,
        ours: Callable[[], int],
        *,
        shared: bool,
    ) -> None:
        self._pool = pool
        self._gate = gate
        self._counters = counters
        self._candidates = candidates
        self._waiting = waiting
        self._ours = ours
        self._shared = shared
        self._awaits_others = False
        self._on_full: list[Callable[[bool], object]] = []
        self._was_full = False

    @property
    def watched(self) -> bool:
        """Whether somebody wants to know of a full cap."""
        return bool(self._on_full)

    def now(self) -> tuple[int, int, bool]:
        """Slots taken, the cap, and whether none is free."""
        in_use = len(self._pool)
        return in_use, self._gate.max_connections, self._gate.full(in_use)

    def note(self) -> None:
        """There may be a free slot fewer, or more."""
        in_use = len(self._pool)
        full = self._gate.full(in_use)
        self._counters.occupancy(in_use, full, monotonic())
        if full is not self._was_full:
            self._was_full = full
            for callback in tuple(self._on_full):
                callback(full)
            if full and self._on_full:
                self.await_others()  # a shut door hears of no slot that other work gives back

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
            self.await_others()

    def off_full(self, callback: Callable[[bool], object]) -> None:
        """Call it no more. Nothing happens if it never was."""
        if callback in self._on_full:
            self._on_full.remove(callback)

    def await_others(self) -> None:
        """Somebody is to have the next slot: also one that other work in the pool gives back."""
        if (
            self._shared
            and not self._awaits_others
            and self._ours() < len(self._pool)
            and self._pool.full()
        ):
            self._awaits_others = True
            slots.when_free(self._pool, self._slot_is_free)

    def _slot_is_free(self, _semaphore: Any) -> None:
        self._awaits_others = False
        self.changed()
        if len(self._candidates) or len(self._waiting) or self._on_full:
            self.await_others()
