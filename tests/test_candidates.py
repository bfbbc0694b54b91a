"""Candidates: how many descriptors they have at once, whoever brings them, and who is first."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from support import eventually

import gserver.candidates
from gserver.candidates import MAX_CANDIDATES, MOST_HELD, Candidates


def test_who_was_promised_a_slot_first_has_the_first_that_is_free() -> None:
    """The one evicted for the first has a handler that takes its time, the second's has none."""
    free: list[str] = []
    admitted: list[int] = []

    def decide(fd: int, _address: Any, _front: Any, over: bool, _now: float) -> bool | None:
        if free:
            free.pop()
            admitted.append(fd)
            return True
        return over or None

    def make_room(fd: int, _address: Any, _front: Any) -> bool:
        if fd == 2:
            free.append("the second's")
        return True

    candidates = Candidates(decide, make_room, lambda: None, 0.0)
    front: Any = object()
    candidates.hold(deque([(1, None), (2, None)]), front, quiet=False)
    eventually(lambda: admitted)
    assert admitted == [1]
    assert candidates.descriptors() == [2]
    free.append("the first's")
    candidates.slot_came_back()
    eventually(lambda: not candidates)
    assert admitted == [1, 2]


@pytest.mark.parametrize("listeners", [1, 2, 8, 20])
def test_descriptors_of_candidates_are_within_their_bound_however_many_listeners(
    listeners: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(7)
    turn = 0
    monkeypatch.setattr(gserver.candidates, "iteration", lambda: turn)
    candidates = Candidates(
        lambda *given: given[3] or None, lambda *_client: False, lambda: None, 3600.0
    )
    fronts: list[Any] = [object() for _ in range(listeners)]
    most = 0
    busy = 1.0
    try:
        for _ in range(2000):
            turn += dice.choice((1, 1, 1, 2))  # now and then a turn in which nobody comes
            for front in fronts:
                if dice.random() > busy:
                    continue
                # As AcceptLoop does at the cap, and with rules that are asked one by one.
                room = dice.choice((candidates.may_take, candidates.may_turn_away))()
                assert room >= 1
                came = min(room, dice.choice((1, 3, 40)))
                most = max(most, len(candidates) + came)
                candidates.hold(deque([(-1, None)] * came), front, quiet=False)
                assert len(candidates) <= MAX_CANDIDATES
            if dice.random() < 0.01:
                busy = dice.random()
            if dice.random() < 0.005:
                candidates.leave(dice.choice(fronts))
    finally:
        for front in fronts:
            candidates.leave(front)
    assert most == MOST_HELD  # and it is reached
