"""The reserve, against what the slots still free would be given to."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gserver.admission.capacity import has_room

few = st.integers(0, 12)


def served(
    in_use: int, cap: int, reserve: int, line: list[bool], unclassified: int = 0
) -> list[int]:
    """Who of a line, in its order, gets a slot; ``True``: may have a reserved one. The reserve is
    kept from those who have said who they are."""
    got = []
    for place, reserved in enumerate(line):
        if in_use < cap and (reserved or in_use - unclassified < cap - reserve):
            in_use += 1
            got.append(place)
    return got


def test_newcomer_has_room_exactly_if_it_would_be_served_behind_all_who_wait():
    few_of_each = range(6), range(1, 6), range(6), (False, True), range(4), range(4), range(4)
    for case in itertools.product(*few_of_each):
        in_use, cap, reserve, reserved, waiting, waiting_reserved, unclassified = case
        if unclassified > in_use:
            continue
        room = has_room(
            in_use,
            cap,
            reserve,
            reserved=reserved,
            waiting=waiting,
            waiting_reserved=waiting_reserved,
            unclassified=unclassified,
        )
        # Whatever the order of those who wait.
        ordinary, operators = [False] * waiting, [True] * waiting_reserved
        served_behind = all(
            len(line) - 1 in served(in_use, cap, reserve, line, unclassified)
            for line in ([*ordinary, *operators, reserved], [*operators, *ordinary, reserved])
        )
        assert room == served_behind, case


@given(few, st.integers(1, 12), few)
def test_last_slots_are_for_the_reserve_alone(in_use, cap, reserve):
    nobody = {"waiting": 0, "waiting_reserved": 0}
    assert has_room(in_use, cap, reserve, reserved=True, **nobody) == (in_use < cap)
    assert has_room(in_use, cap, reserve, reserved=False, **nobody) == (in_use < cap - reserve)
