"""The cap on all slots, the last of which can be kept for some networks.

The reserve is the *last* slots (PostgreSQL's ``superuser_reserved_connections``): clients it is
for may take any slot, the others leave that many free.
"""

from __future__ import annotations

__all__ = ["has_room", "slots_open"]


def slots_open(
    in_use: int, cap: int, reserve: int, *, reserved: bool, unclassified: int = 0
) -> int:
    """How many more slots clients of a kind could take: 0 or more.

    :param in_use: slots taken.
    :param cap: all slots.
    :param reserve: how many of them only clients with ``reserved`` may take.
    :param unclassified: how many of the slots taken are of clients that have yet to say who they
        are (PROXY protocol). Each may stand on a reserved slot, until it has; then it is asked.
    """
    kept = 0 if reserved or reserve <= unclassified else reserve - unclassified
    left = cap - in_use - kept
    return left if left > 0 else 0


def has_room(
    in_use: int,
    cap: int,
    reserve: int,
    *,
    reserved: bool,
    waiting: int,
    waiting_reserved: int,
    unclassified: int = 0,
) -> bool:
    """Whether a slot is open to one more client that nobody who waits could have.

    So a newcomer overtakes nobody, and yet isn't kept from a slot that is of no use to those who
    wait: a reserved one, or one more than they are.

    :param waiting: clients waiting that may not take reserved slots.
    :param waiting_reserved: clients waiting that may.
    """
    left = slots_open(in_use, cap, reserve, reserved=reserved, unclassified=unclassified)
    if not waiting and not waiting_reserved:
        return left > 0
    ahead = waiting
    if reserved:  # of those who may not, only so many can have a slot
        ahead = min(
            waiting, slots_open(in_use, cap, reserve, reserved=False, unclassified=unclassified)
        )
    return left > ahead + waiting_reserved
