"""Penalties: a source that misbehaves is shut out for a while (as sshd's PerSourcePenalties)."""

from __future__ import annotations

import enum
from typing import Final

from gserver.admission.recovering import Recovering

__all__ = ["Offence", "Penalties"]

_SLOTS: Final = 64


class Offence(enum.StrEnum):
    """What a source is penalised for. Closed, and short on purpose.

    An honest client that tries again at a full server commits none of these: being turned away
    for the cap, while waiting, while draining or for want of descriptors is never an offence.
    """

    # A TLS handshake that failed or took too long; not of who left without a word.
    HANDSHAKE = "handshake"
    HEADER = "header"  # a proxy's header was none, or late: counted, held against nobody
    RATE = "rate"  # attempts beyond its rate


class Penalties:
    """Each offence puts a source in debt by some seconds, and a second pays for itself.

    A source whose debt reaches the threshold is shut out until it is paid; offences meanwhile
    (of connections it already has) add to it. The debt never exceeds the longest penalty.

    Two tables, both bounded: while one is full of sources that have not paid, offences of others
    are not noted (counted by :attr:`overflowed`): a flood frees nobody, and shuts out nobody else.

    :param penalty: seconds for one offence, more than 0.
    :param threshold: seconds of debt from which on a source is shut out: with ``penalty`` or
        less, the first offence does it.
    :param longest: the most debt, in seconds, at least ``threshold``.
    :param bound: the most sources in each table.
    """

    __slots__ = ("_debts", "_longest", "_penalty", "_shut", "_threshold", "overflowed")

    def __init__(self, penalty: float, threshold: float, longest: float, bound: int) -> None:
        self._penalty = penalty
        self._threshold = threshold
        self._longest = longest
        self._debts = Recovering(bound, longest / _SLOTS)
        self._shut = Recovering(bound, longest / _SLOTS)
        #: Offences that were not noted because a table was full.
        self.overflowed = 0

    def __len__(self) -> int:
        """How many sources are shut out, or were until lately."""
        return len(self._shut)

    def shuts_out(self, source: str, now: float) -> bool:
        """Whether the source is shut out at this moment."""
        until = self._shut.until(source)
        return until is not None and until > now

    def note(self, source: str, now: float) -> None:
        """The source has committed an offence."""
        shut_until = self._shut.until(source)
        if shut_until is not None and shut_until > now:
            debt = min(shut_until - now + self._penalty, self._longest)
            self._shut.put(source, now + debt, now)
            return
        owed_until = self._debts.until(source) or now
        debt = min(max(owed_until - now, 0.0) + self._penalty, self._longest)
        table = self._debts if debt < self._threshold else self._shut
        if not table.put(source, now + debt, now):
            self.overflowed += 1
