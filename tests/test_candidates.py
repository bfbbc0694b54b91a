"""The bound on candidates: how many descriptors they have at once, whoever brings them."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

import gserver.candidates
from gserver.candidates import MAX_CANDIDATES, MOST_HELD, Candidates


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
