"""The rules that settings call for, besides the cap, made ready to be asked."""

from __future__ import annotations

from typing import Final

from gserver.admission.access import Access
from gserver.admission.early_drop import EarlyDrop
from gserver.admission.excuses import Excuses
from gserver.admission.figures import Tallies
from gserver.admission.limits import Limits
from gserver.admission.networks import NetworkTable, parse_networks
from gserver.admission.penalties import Offence, Penalties
from gserver.admission.rate import Bucket, SourceRates
from gserver.admission.sources import UNCLASSIFIED, Source, Sources, Standing
from gserver.admission.verdict import REJECTED, Reason, Rejected

__all__ = ["Rules"]

_DENIED: Final = REJECTED[Reason.DENIED]
_PENALTY: Final = REJECTED[Reason.PENALTY]
_SOURCE_RATE: Final = REJECTED[Reason.SOURCE_RATE]
_RATE: Final = REJECTED[Reason.RATE]


class Rules:
    """The rules of one :class:`Limits`.

    :param old: the rules so far. Those whose settings are the same go on with what they remember;
        the others begin with nothing.
    :ivar any: there is a rule at all; without one the gate only compares with the cap.
    :ivar needs_source: there is a rule that asks who the client is.
    """

    __slots__ = (
        "_tallies",
        "any",
        "dry_run",
        "early_drop",
        "excuses",
        "limits",
        "needs_source",
        "penalties",
        "per_source",
        "rate",
        "reserve",
        "source_rates",
        "sources",
    )

    def __init__(self, limits: Limits, tallies: Tallies, old: Rules | None = None) -> None:
        self.limits = limits
        self._tallies = tallies
        self.sources = _sources(limits)
        self.reserve = limits.reserved
        self.per_source = limits.per_source
        self.dry_run = frozenset(Reason(word) for word in limits.dry_run)

        points = limits.early_drop_points()
        self.early_drop = EarlyDrop(*points) if points else None
        self.rate: Bucket | None
        if old is not None and _same(old.limits, limits, _RATE_SETTINGS):
            self.rate = old.rate
        else:
            self.rate = _rate(limits)

        self.source_rates: SourceRates | None
        if old is not None and _same(old.limits, limits, _SOURCE_RATE_SETTINGS):
            self.source_rates = old.source_rates
        else:
            self.source_rates = _source_rates(limits)
            if old is not None and old.source_rates is not None:
                tallies.source_rate_overflow += old.source_rates.overflowed

        self.penalties: Penalties | None
        if old is not None and _same(old.limits, limits, _PENALTY_SETTINGS):
            self.penalties = old.penalties
        else:
            self.penalties = _penalties(limits)
            if old is not None and old.penalties is not None:
                tallies.penalty_overflow += old.penalties.overflowed

        self.excuses: Excuses | None = None
        if self.penalties is not None and self.source_rates is not None:
            if old is not None and old.source_rates is self.source_rates:
                self.excuses = old.excuses
            if self.excuses is None:
                self.excuses = Excuses(self.source_rates.recovery, limits.source_table)

        self.needs_source = bool(
            limits.reserved
            or limits.allow
            or limits.deny
            or self.per_source
            or limits.source_rate
            or limits.penalty
        )
        self.any = self.needs_source or bool(limits.rate or limits.early_drop or limits.wait)

    def screen(self, source: Source, now: float) -> Rejected | None:
        """Ask the rules that look at the attempt alone, in order; None: it is allowed.

        Consumes the attempt where it is within a rate.
        """
        dry = self.dry_run
        if source.denied and not (dry and self.only_counts(Reason.DENIED)):
            return _DENIED
        if not source.exempt:
            penalties, rates = self.penalties, self.source_rates
            if (
                penalties is not None
                and penalties.shuts_out(source.name, now)
                and not (dry and self.only_counts(Reason.PENALTY))
            ):
                return _PENALTY
            if (
                rates is not None
                and not rates.take(source.name, now)
                and not (dry and self.only_counts(Reason.SOURCE_RATE))
            ):
                # No offence if it only shares the bucket of those that the table has no room for,
                # nor if it may have had to try again for others' sake.
                if source.name in rates and not (
                    self.excuses is not None and self.excuses.cover(source.name, now)
                ):
                    self.note_offence(source, Offence.RATE, now)
                return _SOURCE_RATE
        rate = self.rate
        if (
            rate is not None
            and not source.reserved
            and not rate.take(now)
            and not (dry and self.only_counts(Reason.RATE))
        ):
            return _RATE
        return None

    def excuse(self, source: Source, now: float) -> None:
        """The source is turned away for what others did."""
        excuses = self.excuses
        if excuses is not None:
            if source is UNCLASSIFIED:
                excuses.note_somebody(now)
            elif not source.exempt:
                excuses.note(source.name, now)

    def note_offence(self, source: Source, offence: Offence, now: float) -> None:
        """Count an offence, and hold it against the source if penalties are on."""
        self._tallies.offences[offence] += 1
        if self.penalties is not None and not source.exempt:
            self.penalties.note(source.name, now)

    def only_counts(self, reason: Reason) -> bool:
        """Whether a rule is in dry run; if so, counts what it would have rejected."""
        if reason not in self.dry_run:
            return False
        self._tallies.would_reject[reason] += 1
        return True


_RATE_SETTINGS = ("rate", "rate_burst")
_SOURCE_RATE_SETTINGS = (
    *("source_rate", "source_rate_burst", "source_table"),
    *("source_prefix_v4", "source_prefix_v6"),
)
_PENALTY_SETTINGS = (
    *("penalty", "penalty_threshold", "penalty_max", "source_table"),
    *("source_prefix_v4", "source_prefix_v6"),
)


def _same(old: Limits, new: Limits, settings: tuple[str, ...]) -> bool:
    return all(getattr(old, setting) == getattr(new, setting) for setting in settings)


def _rate(limits: Limits) -> Bucket | None:
    return None if limits.rate is None else Bucket(limits.rate, limits.burst_of("rate"))


def _source_rates(limits: Limits) -> SourceRates | None:
    if limits.source_rate is None:
        return None
    return SourceRates(limits.source_rate, limits.burst_of("source_rate"), limits.source_table)


def _penalties(limits: Limits) -> Penalties | None:
    if not limits.penalty:
        return None
    return Penalties(
        limits.penalty, limits.penalty_threshold, limits.penalty_max, limits.source_table
    )


def _sources(limits: Limits) -> Sources:
    prefixes = limits.source_prefix_v4, limits.source_prefix_v6
    if not (limits.allow or limits.deny or limits.reserved_for or limits.source_exempt):
        return Sources(*prefixes)
    # None for lists that are empty: each client of a flood from many addresses is judged anew.
    access = Access(limits.allow, limits.deny) if limits.allow or limits.deny else None
    reserved = _set_of("reserved_for", limits)
    exempt = _set_of("source_exempt", limits)

    def judge(version: int, bits: int) -> Standing:
        return (
            access is not None and access.denies(version, bits),
            reserved is not None and reserved.find(version, bits) is not None,
            exempt is not None and exempt.find(version, bits) is not None,
        )

    octets = (table.first_octets() for table in (access, reserved, exempt) if table is not None)
    return Sources(*prefixes, judge, frozenset().union(*octets))


def _set_of(setting: str, limits: Limits) -> NetworkTable[bool] | None:
    entries = parse_networks(setting, getattr(limits, setting))
    return NetworkTable((entry, True) for entry in entries) if entries else None
