"""What the gate should do, said as simply as possible: lists, and everything counted anew."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from gserver.admission.limits import Limits

OPERATORS = ipaddress.ip_network("10.0.0.0/8")
EXEMPT = ipaddress.ip_network("198.51.100.0/24")
DENIED = ipaddress.ip_network("203.0.113.0/24")
ALLOWED_OF_THEM = ipaddress.ip_network("203.0.113.128/25")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


network_of = cache(ipaddress.ip_network)


@cache
def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


@cache
def name_of(host: str, prefix_v4: int, prefix_v6: int) -> str:
    address = address_of(host)
    prefix = prefix_v4 if address.version == 4 else prefix_v6
    network = ipaddress.ip_network((address, prefix), strict=False)
    return str(address if network.num_addresses == 1 else network)


class Tokens:
    """A token bucket: the rate said the other way round, in exact numbers."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate, self.burst = Fraction(rate), burst
        self.tokens, self.at = Fraction(burst), now

    def take(self, now: float) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + Fraction(now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(eq=False)
class Client:
    """One client, from its arrival on."""

    host: str
    counted_as: str | None = None
    arrived: float = 0.0
    handle: Any = None  # the receipt, or the waiter
    # While it waits, whatever other rules call it by then:
    stands_with_operators: bool = False
    excused_as: str | None = None

    def is_in(self, network: Network) -> bool:
        return address_of(self.host) in network


@dataclass
class Model:
    """The clients that hold something, and the verdict on the next."""

    limits: Limits
    now: float = 0.0
    active: list[Client] = field(default_factory=list)
    pending: list[Client] = field(default_factory=list)  # have a slot, haven't said who they are
    waiting: list[Client] = field(default_factory=list)
    unclassified: set[Client] = field(default_factory=set)  # of those that wait
    rate: Tokens | None = None
    source_rates: dict[str, Tokens] = field(default_factory=dict)
    debts: dict[str, tuple[float, bool]] = field(default_factory=dict)  # until when, shut out
    would: dict[str, int] = field(default_factory=dict)
    offences: int = 0
    excused: dict[str, float] = field(default_factory=dict)  # until when
    everybody_excused: float = float("-inf")

    def __post_init__(self) -> None:
        self.replace(self.limits)

    def replace(self, limits: Limits) -> None:
        old, self.limits = self.limits, limits
        self.cap = limits.max_connections
        if not (
            self.excuses(old)
            and self.excuses(limits)
            and _of(old, "source_") == _of(limits, "source_")
        ):
            self.excused, self.everybody_excused = {}, float("-inf")
        if self.rate is None or _of(old, "rate") != _of(limits, "rate"):
            self.rate = limits.rate and Tokens(limits.rate, limits.burst_of("rate"), self.now)
        if _of(old, "source_") != _of(limits, "source_"):
            self.source_rates = {}
        if _of(old, "penalty", "source_prefix") != _of(limits, "penalty", "source_prefix"):
            self.debts = {}

    # -- who is who

    def name(self, client: Client) -> str:
        limits = self.limits
        return name_of(client.host, limits.source_prefix_v4, limits.source_prefix_v6)

    def is_denied(self, client: Client) -> bool:
        """The longest network that it is in says so; in none: if there is a list of the allowed."""
        lists = [(net, False) for net in self.limits.allow]
        lists += [(net, True) for net in self.limits.deny]
        longest = (-1, bool(self.limits.allow))
        for text, denied in lists:
            network = network_of(text)
            if client.is_in(network):
                longest = max(longest, (network.prefixlen, denied))
        return longest[1]

    def is_operator(self, client: Client) -> bool:
        if client in self.waiting:
            return client.stands_with_operators
        if client in self.unclassified:
            return True
        return bool(self.limits.reserved_for) and client.is_in(OPERATORS)

    def is_exempt(self, client: Client) -> bool:
        return bool(self.limits.source_exempt) and client.is_in(EXEMPT)

    def count(self, name: str) -> int:
        return sum(client.counted_as == name for client in self.active + self.waiting)

    @property
    def in_use(self) -> int:
        return len(self.active) + len(self.pending)

    # -- verdicts

    def verdict(
        self, client: Client, drawn: float, *, own_slot: bool = False, ahead: int = 0
    ) -> str:
        """All rules in order. ``own_slot``: it has one, and only asks whether it may keep it.
        ``ahead``: so many others have none yet, and come before it."""
        limits = self.limits
        name, exempt = self.name(client), self.is_exempt(client)
        if self.is_denied(client) and self.really("denied"):
            return "denied"
        if not exempt and self.is_shut_out(name) and self.really("penalty"):
            return "penalty"
        if not exempt and limits.source_rate:
            burst = limits.burst_of("source_rate")
            tokens = self.source_rates.setdefault(name, Tokens(limits.source_rate, burst, self.now))
            if not tokens.take(self.now) and self.really("source_rate"):
                if self.now > max(self.everybody_excused, self.excused.get(name, float("-inf"))):
                    self.offend(client)
                return "source_rate"
        exceeded = self.rate and not self.is_operator(client) and not self.rate.take(self.now)
        if exceeded and self.really("rate"):
            self.excuse(self.excusable(client))
            return "rate"
        if self.is_over(client) and self.really("source"):
            return "source"
        in_use = self.in_use - own_slot
        line = [] if own_slot else self.waiting
        pending = len(self.pending) - own_slot
        if not self.is_served_behind(line, client, in_use + ahead, pending):
            self.excuse(self.excusable(client))
            return "capacity"
        if limits.early_drop and not self.is_operator(client):
            start, rate, full = limits.early_drop_points() or (0, 0, 0)
            chance = Fraction(rate, 100) + (1 - Fraction(rate, 100)) * Fraction(
                in_use - start, full - start
            )
            if in_use >= start and drawn < chance and self.really("early_drop"):
                self.excuse(self.excusable(client))
                return "early_drop"
        return "admitted"

    def verdict_again(self, client: Client) -> str:
        if self.is_over(client) and "source" not in self.limits.dry_run:
            return "source"
        if not self.is_served_behind(self.waiting, client, self.in_use, len(self.pending)):
            self.excuse(self.excusable(client))
            return "capacity"
        return "admitted"

    def is_over(self, client: Client) -> bool:
        cap = self.limits.per_source
        return (
            cap is not None and not self.is_exempt(client) and self.count(self.name(client)) >= cap
        )

    def is_served_behind(
        self, line: list[Client], client: Client, in_use: int, pending: int
    ) -> bool:
        """Whether a slot is left for it when all of a line that can have one have one."""
        # Those who can have fewer slots first: the others can have what is left besides.
        for other in [*sorted(line, key=self.is_operator), client]:
            is_open = self.is_open_to(other, in_use, pending)
            if is_open:
                in_use += 1
        return is_open

    def is_open_to(self, client: Client, in_use: int, pending: int) -> bool:
        """The reserve is kept from those who have said who they are."""
        others_share = self.cap - self.limits.reserved
        return in_use < self.cap and (self.is_operator(client) or in_use - pending < others_share)

    def really(self, reason: str) -> bool:
        if reason not in self.limits.dry_run:
            return True
        self.would[reason] = self.would.get(reason, 0) + 1
        return False

    # -- what they lead to

    @staticmethod
    def excuses(limits: Limits) -> bool:
        return bool(limits.penalty and limits.source_rate)

    def excusable(self, client: Client) -> str | None:
        """As what it is excused; None: not at all."""
        return None if self.is_exempt(client) else self.name(client)

    def excuse(self, name: str | None) -> None:
        """It has been turned away for what others did. Nameless: nobody knows who it was."""
        if self.excuses(self.limits) and name is not None:
            rate = self.limits.source_rate or 0.0
            until = self.now + self.limits.burst_of("source_rate") / rate
            if name:
                self.excused[name] = until
            else:
                self.everybody_excused = until

    def hold(self, client: Client) -> None:
        over = self.is_over(client)
        counts = self.limits.per_source is not None and not self.is_exempt(client) and not over
        client.counted_as = self.name(client) if counts else None

    def next_waiter(self) -> Client | None:
        in_use, pending = self.in_use, len(self.pending)
        entitled = [c for c in self.waiting if self.is_open_to(c, in_use, pending)]
        return None if not entitled else entitled[-1 if self.limits.wait_order == "lifo" else 0]

    def is_shut_out(self, name: str) -> bool:
        until, shut = self.debts.get(name, (0.0, False))
        return shut and until > self.now

    def offend(self, client: Client) -> None:
        limits = self.limits
        self.offences += 1
        if not limits.penalty or self.is_exempt(client):
            return
        name = self.name(client)
        until, shut = self.debts.get(name, (0.0, False))
        if until <= self.now:
            until, shut = self.now, False
        until = min(until + limits.penalty, self.now + limits.penalty_max)
        self.debts[name] = (until, shut or until - self.now >= limits.penalty_threshold)


def _of(limits: Limits, *starts: str) -> list[object]:
    names = [name for name in Limits.__dataclass_fields__ if name.startswith(starts)]
    return [getattr(limits, name) for name in names if name != "source_exempt"]
