"""The settings of the gate, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from gserver.admission.access import Access
from gserver.admission.networks import parse_networks
from gserver.admission.verdict import Reason
from gserver.errors import SettingError

__all__ = ["DRY_RUNNABLE", "MOST_SLOTS", "Limits"]

#: Rules that can be tried out without rejecting anybody. The cap cannot: the slots are real.
DRY_RUNNABLE: Final = (
    Reason.DENIED,
    Reason.PENALTY,
    Reason.SOURCE_RATE,
    Reason.RATE,
    Reason.SOURCE,
    Reason.EARLY_DROP,
)
#: The largest cap, and count of anything else: far above what a machine can hold open.
MOST_SLOTS: Final = 10_000_000
#: Settings of rules, and the rules of which one must be on. One that differs from its default was
#: certainly given, and would be ignored.
_NEEDS: Final = {
    "rate_burst": ("rate",),
    "source_rate_burst": ("source_rate",),
    "source_exempt": ("per_source", "source_rate", "penalty"),
    "source_table": ("source_rate", "penalty"),
    "penalty_threshold": ("penalty",),
    "penalty_max": ("penalty",),
    "wait_queue": ("wait",),
    "wait_order": ("wait",),
}
_FASTEST: Final = 1_000_000.0
_SLOWEST: Final = 1 / 86_400
_LONGEST: Final = 86_400.0
_MOST_DEBT: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Who gets in. Every rule but the cap is off by default.

    Lists are given as any iterable of text and kept as tuples. Networks are ``192.0.2.0/24``,
    ``2001:db8::/32``, a single address, ``unix`` (clients of a unix socket) or ``all``.

    :param max_connections: the cap: the most clients admitted at once, 1 or more.
    :param reserved: how many of these slots, the last, are kept for ``reserved_for``, less than
        the cap.
    :param reserved_for: networks that may take any slot; the total rate and early drop leave
        them alone too, so that a full or flooded server locks no operator out.
    :param per_source: the most slots one source may hold, 1 or more; None: no limit.
    :param source_prefix_v4: leading bits of an IPv4 address that make a source, 1 to 32.
    :param source_prefix_v6: the same for IPv6, 1 to 128.
    :param source_exempt: networks to which ``per_source``, ``source_rate`` and penalties don't
        apply: load balancers, the gateways of address translators.
    :param rate: attempts per second of all clients together; None: no limit.
    :param rate_burst: attempts that may come at once after a rest; by default one second's.
    :param source_rate: attempts per second of each source; None: no limit.
    :param source_rate_burst: as ``rate_burst``, for each source.
    :param source_table: the most sources remembered for ``source_rate``, and in each of three
        tables for penalties: about 160 bytes each (``bench/rules_cost.py``).
    :param allow: networks that may connect; if there are any, all others may not.
    :param deny: networks that may not. The most specific entry of both lists wins.
    :param early_drop: ``start:rate:full``: from ``start`` slots in use on, turn away ``rate``
        percent by lot, rising to all at ``full``; who waited for a slot is not asked again.
        None: off.
    :param penalty: seconds of debt for each failed TLS handshake or attempt beyond
        ``source_rate``; 0: off. Attempts are not held against a source that was itself turned
        away for what others did (the slots, the total rate, early drop), until its rate has
        recovered: whose hurry may be a full server's fault commits no offence. Nor does a proxy
        whose header is garbage.
    :param penalty_threshold: seconds of debt from which on a source is shut out until it is paid.
    :param penalty_max: the most debt, in seconds.
    :param wait: seconds a client may wait for a slot instead of being rejected at once; 0: off.
        A proxy's client may wait as long twice: for a slot to read its PROXY protocol header in,
        and, where that was a reserved one, for a slot that is open to it.
    :param wait_queue: the most clients that wait at once.
    :param wait_order: ``fifo``, or ``lifo``: the last to come is served first.
    :param dry_run: rules, by their reason, that only count what they would have rejected.
    :raises SettingError: a value that cannot be used, by the setting's name; or a setting of a rule
        that is off, unless it is the default, which cannot be told from none.
    """

    max_connections: int
    reserved: int = 0
    reserved_for: Iterable[str] = ()
    per_source: int | None = None
    source_prefix_v4: int = 32
    source_prefix_v6: int = 64
    source_exempt: Iterable[str] = ()
    rate: float | None = None
    rate_burst: int | None = None
    source_rate: float | None = None
    source_rate_burst: int | None = None
    source_table: int = 65_536
    allow: Iterable[str] = ()
    deny: Iterable[str] = ()
    early_drop: str | None = None
    penalty: float = 0.0
    penalty_threshold: float = 15.0
    penalty_max: float = _MOST_DEBT
    wait: float = 0.0
    wait_queue: int = 100
    wait_order: str = "fifo"
    dry_run: Iterable[str] = ()

    def __post_init__(self) -> None:
        self._check_slots()
        self._check_sources()
        for setting in ("rate", "source_rate"):
            self._check_rate(setting)
        self.early_drop_points()
        self._check_penalties()
        _number("wait", self.wait, 0.0, _LONGEST, "seconds")
        _whole("wait_queue", self.wait_queue, 1, MOST_SLOTS)
        if self.wait_order not in ("fifo", "lifo"):
            raise SettingError("wait_order", self.wait_order, "'fifo' and 'lifo' are accepted")
        self._check_needs()
        self._check_most_debt()
        self._check_dry_run()

    def _check_slots(self) -> None:
        _whole("max_connections", self.max_connections, 1, MOST_SLOTS)
        _whole("reserved", self.reserved, 0, MOST_SLOTS)
        if self.reserved >= self.max_connections:
            raise SettingError(
                "reserved",
                self.reserved,
                f"leaves nothing of max_connections {self.max_connections} to everybody else: "
                "give less",
            )
        self._keep_list("reserved_for")
        if self.reserved and not self.reserved_for:
            raise SettingError(
                "reserved", self.reserved, "is for nobody: name networks in reserved_for"
            )
        if self.reserved_for and not self.reserved:
            raise SettingError(
                "reserved_for", self.reserved_for, "needs reserved: how many slots are theirs"
            )
        parse_networks("reserved_for", self.reserved_for)

    def _check_sources(self) -> None:
        if self.per_source is not None:
            _whole("per_source", self.per_source, 1, MOST_SLOTS)
        _whole("source_prefix_v4", self.source_prefix_v4, 1, 32)
        _whole("source_prefix_v6", self.source_prefix_v6, 1, 128)
        _whole("source_table", self.source_table, 1, MOST_SLOTS)
        for setting in ("source_exempt", "allow", "deny"):
            self._keep_list(setting)
        parse_networks("source_exempt", self.source_exempt)
        Access(self.allow, self.deny)

    def _check_rate(self, setting: str) -> None:
        rate, burst = getattr(self, setting), getattr(self, f"{setting}_burst")
        if rate is not None:
            _number(setting, rate, _SLOWEST, _FASTEST, "attempts per second")
        if burst is not None:
            _whole(f"{setting}_burst", burst, 1, MOST_SLOTS)

    def _check_penalties(self) -> None:
        _number("penalty", self.penalty, 0.0, _LONGEST, "seconds")
        _number("penalty_threshold", self.penalty_threshold, 0.0, _LONGEST, "seconds")
        _number("penalty_max", self.penalty_max, 1.0, _LONGEST, "seconds")

    def _check_needs(self) -> None:
        for field in fields(self):
            given, rules = getattr(self, field.name), _NEEDS.get(field.name)
            if rules and given != field.default and not any(getattr(self, it) for it in rules):
                raise SettingError(field.name, given, f"needs {' or '.join(rules)}")

    def _check_most_debt(self) -> None:
        """After what needs what: of a rule that is off nothing disagrees with a default."""
        setting = max("penalty", "penalty_threshold", key=lambda name: getattr(self, name))
        debt, most = getattr(self, setting), self.penalty_max
        if debt <= most:
            return
        if most == _MOST_DEBT:  # as good as not given: the other one is to blame
            raise SettingError(
                setting, debt, f"must be at most penalty_max, {most:g}: give less, or more there"
            )
        raise SettingError("penalty_max", most, f"must be at least {setting}, {debt:g}")

    def _check_dry_run(self) -> None:
        self._keep_list("dry_run")
        configured = {
            Reason.DENIED: self.allow or self.deny,
            Reason.PENALTY: self.penalty,
            Reason.SOURCE_RATE: self.source_rate,
            Reason.RATE: self.rate,
            Reason.SOURCE: self.per_source,
            Reason.EARLY_DROP: self.early_drop,
        }
        for word in self.dry_run:
            if word not in DRY_RUNNABLE:
                accepted = ", ".join(DRY_RUNNABLE)
                raise SettingError("dry_run", word, f"is no rule to try out; accepted: {accepted}")
            if not configured[Reason(word)]:
                raise SettingError("dry_run", word, "that rule is off: there is nothing to try out")

    def _keep_list(self, setting: str) -> None:
        given = getattr(self, setting)
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise SettingError(setting, given, "must be a list")
        object.__setattr__(self, setting, tuple(given))

    def early_drop_points(self) -> tuple[int, int, int] | None:
        """``early_drop`` as numbers: slots, percent, slots; None when off."""
        if self.early_drop is None:
            return None
        try:
            start, rate, full = (int(part) for part in self.early_drop.split(":"))
            if not (0 <= start < full <= MOST_SLOTS and 0 <= rate <= 100):
                raise ValueError
        except (ValueError, AttributeError):
            raise SettingError(
                "early_drop",
                self.early_drop,
                "start:rate:full is accepted, like 80:30:100: slots in use, percent, slots in "
                "use, with start less than full",
            ) from None
        return start, rate, full

    def check_early_drop(self) -> None:
        """Not while a cap that has been lowered is in force: it may be raised again.

        :raises SettingError: ``early_drop`` begins above the cap, and would never turn anybody
            away.
        """
        points = self.early_drop_points()
        if points is not None and points[0] > self.max_connections:
            raise SettingError(
                "early_drop",
                self.early_drop,
                f"begins above max_connections {self.max_connections}, and would never be used",
            )

    def burst_of(self, setting: str) -> int:
        """The burst of ``rate`` or ``source_rate``, given or one second's worth of attempts."""
        burst: int | None = getattr(self, f"{setting}_burst")
        return burst if burst is not None else max(1, math.ceil(getattr(self, setting)))

    @property
    def most_open(self) -> int:
        """The most clients that are admitted or waiting at once: for the bound on descriptors."""
        return self.max_connections + (self.wait_queue if self.wait else 0)


def _whole(setting: str, value: object, low: int, high: int) -> None:
    # bool is an int: max_connections=True is a mistake, not a cap of 1.
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SettingError(setting, value, f"must be a whole number, {low:,} to {high:,}")


def _number(setting: str, value: object, low: float, high: float, unit: str) -> None:
    # Not a number compares false with everything, and so is refused.
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise SettingError(setting, value, f"must be from {_text(low)} to {_text(high)} {unit}")


def _text(bound: float) -> str:
    return f"{bound:,.0f}" if bound == round(bound) else f"{bound:g}"
