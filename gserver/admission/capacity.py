"""The cap on all slots, the last of which can be kept for some networks."""

from __future__ import annotations

__all__ = ["has_room"]


def has_room(
    in_use: int,
    cap: int,
    *,
    reserve: int,
    reserved: bool,
    waiting: int,
    waiting_reserved: int,
) -> bool:
    """Whether there is a slot for one more client, which nobody waits for already.

    The reserve is the *last* slots (PostgreSQL's ``superuser_reserved_connections``): clients it
    is for take any slot, the others leave that many free. A newcomer never takes a slot that one
    of the waiting could have; a slot that only the reserve's clients can have isn't taken from
    those who cannot.

    :param in_use: slots taken.
    :param cap: all slots.
    :param reserve: how many of them only clients with ``reserved`` may take.
    :param waiting: clients waiting that may not take those.
    :param waiting_reserved: clients waiting that may.
    """
    open_to_all = cap - reserve - in_use
    if open_to_all < 0:
        open_to_all = 0
    if reserved:
        return in_use + waiting_reserved + min(waiting, open_to_all) < cap
    return waiting + waiting_reserved < open_to_all
