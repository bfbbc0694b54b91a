"""Who is trusted to be a proxy, and to say for whom it speaks (the PROXY protocol).

A listener for proxies is for proxies alone. "The PROXY protocol", section 2, has the receiver be
configured to expect the header on every connection, and forbids it to guess from the first bytes:
whoever may choose between sending a header and not could claim to be anybody. Nor could a server
guess: a client of a protocol in which the server speaks first sends nothing until it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gserver.admission.networks import NetworkTable, parse_networks
from gserver.admission.sources import Sources, Standing
from gserver.errors import SettingError

__all__ = ["DEFAULT_TIMEOUT_S", "Proxies"]

#: Section 2 asks for at least 3, to outlast a retransmission.
DEFAULT_TIMEOUT_S: Final = 5.0
_LONGEST_S: Final = 3600.0


class Proxies:
    """The trusted ones.

    :param networks: as in :class:`gserver.Limits`: ``10.0.0.0/8``, addresses, ``unix`` (peers of
        a unix socket) or ``all``. At least one.
    :param timeout: seconds each has for its header, more than 0.
    :raises SettingError: a value that cannot be used.
    """

    __slots__ = ("_sources", "networks", "timeout")

    def __init__(self, networks: Iterable[str], timeout: float = DEFAULT_TIMEOUT_S) -> None:
        setting = "proxy_protocol_from"
        if not isinstance(networks, str):
            try:
                networks = tuple(networks)
            except TypeError:
                raise SettingError(setting, networks, "must be a list of networks") from None
        entries = parse_networks(setting, networks)
        if not entries:
            raise SettingError(setting, networks, "names nobody, so nobody could connect")
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not number or not 0 < timeout <= _LONGEST_S:
            raise SettingError(
                "proxy_timeout", timeout, f"must be more than 0 and at most {_LONGEST_S:g} seconds"
            )
        self.networks: Final = tuple(networks)
        self.timeout: Final = float(timeout)
        table = NetworkTable((entry, True) for entry in entries)

        def judge(version: int, bits: int) -> Standing:
            return table.find(version, bits) is None, False, False

        # For what it knows of addresses: IPv4-mapped ones, scopes, those seen before.
        self._sources = Sources(judge=judge)

    def trust(self, address: Any) -> bool:
        """Whether the peer at ``address``, as ``accept()`` gives it, is one of them."""
        return not self._sources.of(address).denied

    def __repr__(self) -> str:
        return f"Proxies({list(self.networks)!r}, {self.timeout:g})"
