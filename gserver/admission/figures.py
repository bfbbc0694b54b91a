"""What the gate counts besides its verdicts, and one snapshot of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gserver.admission.limits import DRY_RUNNABLE
from gserver.admission.penalties import Offence
from gserver.admission.verdict import Reason

__all__ = ["GateFigures", "Tallies"]


class Tallies:
    """Counters that outlive the rules that raise them.

    :ivar would_reject: what rules in dry run would have rejected, by reason.
    :ivar offences: offences committed, by kind, whether or not penalties are on.
    :ivar source_rate_overflow: see :class:`GateFigures`; of rules that have been replaced.
    :ivar penalty_overflow: the same.
    """

    __slots__ = ("offences", "penalty_overflow", "source_rate_overflow", "would_reject")

    def __init__(self) -> None:
        self.would_reject = dict.fromkeys(DRY_RUNNABLE, 0)
        self.offences = dict.fromkeys(Offence, 0)
        self.source_rate_overflow = 0
        self.penalty_overflow = 0


@dataclass(frozen=True, slots=True)
class GateFigures:
    """The gate at one instant.

    :param waiting: clients that wait for a slot.
    :param sources_counted: sources that hold slots or places to wait, as ``per_source`` counts.
    :param sources_remembered: sources in the table of ``source_rate``.
    :param sources_penalised: sources that are shut out, or were until lately.
    :param source_rate_overflow: attempts, since the start, counted in the one bucket that sources
        share while the table of ``source_rate`` has no room.
    :param penalty_overflow: offences, since the start, not noted for want of room.
    :param would_reject: since the start, what rules in dry run would have rejected, by reason.
    :param offences: since the start, by kind.
    """

    waiting: int
    sources_counted: int
    sources_remembered: int
    sources_penalised: int
    source_rate_overflow: int
    penalty_overflow: int
    would_reject: Mapping[Reason, int]
    offences: Mapping[Offence, int]
