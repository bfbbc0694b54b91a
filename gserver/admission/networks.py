"""Lists of networks: read once, with :mod:`ipaddress`; asked often, with shifts and dicts.

``ipaddress`` takes 1.7 µs to parse an IPv4 address and 5 µs an IPv6 one (``bench/rules_cost.py``),
as much as all of a decision may cost: it is used on the settings only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from gserver.errors import SettingError

__all__ = ["ALL", "UNIX", "Entry", "NetworkTable", "parse_networks"]

T = TypeVar("T")

#: An entry of a list: (4 or 6, network address, prefix length), or (0, 0, 0) for unix sockets.
Entry = tuple[int, int, int]

UNIX: Final = "unix"
ALL: Final = "all"

_ACCEPTED: Final = (
    "networks like 192.0.2.0/24 or 2001:db8::/32, addresses, 'unix' (clients of a unix "
    "socket) and 'all' are accepted"
)
_UNIX_ENTRY: Final[Entry] = (0, 0, 0)
_EVERYTHING: Final[tuple[Entry, ...]] = ((4, 0, 0), (6, 0, 0), _UNIX_ENTRY)


def parse_networks(setting: str, texts: Iterable[str]) -> list[Entry]:
    """Read a list of networks.

    IPv4-mapped networks (``::ffff:192.0.2.0/120``) are read as the IPv4 networks they are, as
    clients' addresses are.

    :raises SettingError: naming ``setting`` and the entry that cannot be used.
    """
    if isinstance(texts, str):
        raise SettingError(setting, texts, f"must be a list; {_ACCEPTED}")
    entries: list[Entry] = []
    for text in texts:
        if text == ALL:
            entries.extend(_EVERYTHING)
        elif text == UNIX:
            entries.append(_UNIX_ENTRY)
        else:
            entries.append(_parse(setting, text))
    return entries


def _parse(setting: str, text: object) -> Entry:
    if not isinstance(text, str) or "%" in text:
        raise SettingError(setting, text, f"is not a network; {_ACCEPTED}")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingError(setting, text, f"{_why(text, error)}; {_ACCEPTED}") from None
    bits, length = int(network.network_address), network.prefixlen
    if network.version == 6 and bits >> 32 == 0xFFFF:
        return 4, bits & 0xFFFF_FFFF, length - 96
    return network.version, bits, length


def _why(text: str, error: ValueError) -> str:
    if "host bits set" in str(error):
        return f"has bits set beyond its prefix, {ipaddress.ip_network(text, strict=False)} has not"
    return "is not a network"


class NetworkTable(Generic[T]):
    """Finds the most specific network an address is in, and what was filed under it.

    One dict lookup for each *different* prefix length in the list, however many networks.

    :param filed: entries of :func:`parse_networks` with their values; a value may not be None,
        and of two for the same network the later counts.
    :ivar unix: what was filed under ``unix``, or None.
    """

    __slots__ = ("_v4", "_v6", "unix")

    def __init__(self, filed: Iterable[tuple[Entry, T]]) -> None:
        by_length: dict[int, dict[int, dict[int, T]]] = {4: {}, 6: {}}
        self.unix: T | None = None
        for (version, bits, length), value in filed:
            if version == 0:
                self.unix = value
                continue
            shift = (32 if version == 4 else 128) - length
            by_length[version].setdefault(shift, {})[bits >> shift] = value
        self._v4 = sorted(by_length[4].items())
        self._v6 = sorted(by_length[6].items())

    def first_octets(self) -> set[str]:
        """The texts that IPv4 addresses in any of the networks begin with, up to the first dot."""
        found: set[int] = set()
        for shift, networks in self._v4:
            for bits in networks:
                first = bits << shift
                found.update(range(first >> 24, (first + (1 << shift) - 1 >> 24) + 1))
        return {str(octet) for octet in found}

    def find(self, version: int, bits: int) -> T | None:
        """What the most specific network with this address has, or None.

        :param version: 4 or 6; 0: a client of a unix socket; less: of no network.
        :param bits: the whole address as a number.
        """
        if version <= 0:
            return self.unix if version == 0 else None
        for shift, networks in self._v4 if version == 4 else self._v6:
            value = networks.get(bits >> shift)
            if value is not None:
                return value
        return None
