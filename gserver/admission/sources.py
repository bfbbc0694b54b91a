"""From a client's address to its source: the client as the rules count it.

What a prefix can and cannot tell apart:

* IPv4, /32: a household or an office behind one address translator is one source, and so is
  everyone behind one address of a carrier's (CGNAT, RFC 6598) or of a NAT64 gateway (RFC 6146:
  its IPv6 clients reach an IPv4 server from the gateway's addresses): set the cap for a source
  with them in mind, or exempt the gateway's network.
* IPv6, /64: one site's network is one source, since a single host may use any address in it
  (RFC 8981). Sites often get a /56 or a /48: a smaller prefix length counts those as one.
* IPv4 clients that an IPv6-only server sees through a stateless translator (RFC 7755) all come
  from one /96, so all of them are one source at /64: count IPv6 by /128 there.
* Link-local addresses (``fe80::/10``) keep their scope (RFC 4007), and at /64 a whole link is
  one source.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

from gserver.admission.networks import UNIX

__all__ = ["ANY", "PROXY", "UNCLASSIFIED", "Judge", "Source", "Sources", "Standing"]

#: What the lists of networks say about an address: (denied, reserved, exempt).
Standing = tuple[bool, bool, bool]
#: Asked with (4 or 6, the address as a number), or (0, 0) for unix sockets, or (-1, 0) for an
#: address that is neither.
Judge = Callable[[int, int], Standing]

_V4_MAPPED: Final = "::ffff:"
_HEX8: Final = "%4s%4s%4s%4s%4s%4s%4s%4s"
#: Sources remembered, so that a client that comes often is parsed once (0.1 µs instead of 0.2 for
#: IPv4 and 1.7 for IPv6: bench/rules_cost.py). Simply cleared when full.
_REMEMBERED: Final = 1024


class Source:
    """A client as the rules count it.

    :ivar name: ``192.0.2.7``, ``192.0.2.0/24``, ``2001:db8::/64``, ``fe80::%2/64``, ``unix``: what
        is counted, logged and shown.
    :ivar denied: the access lists turn it away.
    :ivar reserved: the reserved slots are its too.
    :ivar exempt: the rules for single sources leave it alone.
    """

    __slots__ = ("denied", "exempt", "name", "reserved")

    def __init__(
        self, name: str, denied: bool = False, reserved: bool = False, exempt: bool = False
    ) -> None:
        self.name = name
        self.denied = denied
        self.reserved = reserved
        self.exempt = exempt

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        flags = [flag for flag in ("denied", "reserved", "exempt") if getattr(self, flag)]
        return f"<Source {' '.join([self.name, *flags])}>"


#: Stands for whoever it is where no rule asks (``Gate.needs_source`` is false).
ANY: Final = Source("any")

#: Stands for a trusted proxy that fails to say for whom it speaks. Exempt: a penalty would shut
#: out nobody but the proxy's own checks, for what is a fault of its set-up, or of one client's of
#: the many behind it; and with its checks refused it would send nobody any more.
PROXY: Final = Source("proxy", exempt=True)

#: Who has not said yet whom it speaks for (PROXY protocol): until it has, any slot is open to it,
#: and nobody's count is raised for it.
UNCLASSIFIED: Final = Source("unclassified", reserved=True, exempt=True)


class Sources:
    """Makes sources of addresses.

    :param prefix_v4: leading bits of an IPv4 address that make a source, 0 to 32.
    :param prefix_v6: the same for IPv6, 0 to 128.
    :param judge: says how an address stands with the lists of networks; None: there are none.
    :param first_octets: how the IPv4 addresses in those networks begin, where that is known:
        others need not be looked for in them.
    """

    __slots__ = (
        *("_first_octets", "_judge", "_known", "_mask_v4", "_mask_v6", "_prefix_v4", "_prefix_v6"),
        *("_unix", "_unlisted"),
    )

    def __init__(
        self,
        prefix_v4: int = 32,
        prefix_v6: int = 64,
        judge: Judge | None = None,
        first_octets: Set[str] | None = None,
    ) -> None:
        self._prefix_v4 = prefix_v4
        self._prefix_v6 = prefix_v6
        self._mask_v4 = (1 << 32) - (1 << (32 - prefix_v4))
        self._mask_v6 = (1 << 128) - (1 << (128 - prefix_v6))
        self._judge = judge
        self._known: dict[str, Source] = {}
        self._first_octets = first_octets
        self._unix = Source(UNIX, *judge(0, 0)) if judge is not None else Source(UNIX)
        self._unlisted = judge(-1, 0) if judge is not None else (False, False, False)

    def of(self, address: object) -> Source:
        """The source of an address.

        :param address: as :mod:`socket` gives a peer's: ``(host, port)``, ``(host, port, flowinfo,
            scope_id)``, or for a unix socket a ``str`` or ``bytes``. The host is a number in the
            kernel's spelling, not a name; text that is none is a source of that name, in no
            network.
        """
        if type(address) is not tuple:
            return self._unix
        host: str = address[0]
        if len(address) == 4 and address[3]:
            host = f"{host}%{address[3]}"
        source = self._known.get(host)
        if source is None:
            source = self._make(host)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[host] = source
        return source

    def _make(self, host: str) -> Source:
        try:
            if ":" not in host:
                return self._make_v4(host)
            bare, _, scope = host.partition("%")
            if "." in bare:  # the last 32 bits written as an IPv4 address (RFC 4291, 2.2)
                if bare.startswith(_V4_MAPPED):
                    return self._make_v4(bare[7:])
                bits = _bits_of_dotted(bare)
            else:
                bits = _bits_v6(bare)
            if bits >> 32 == 0xFFFF:
                return self._make_v4(_text_v4(bits & 0xFFFF_FFFF))
            return self._make_v6(bits, scope)
        except ValueError:
            return Source(host, *self._unlisted)

    def _make_v4(self, host: str) -> Source:
        judge, prefix = self._judge, self._prefix_v4
        if prefix == 32:
            if judge is None:
                return Source(host)
            octets = self._first_octets
            if octets is not None and host.partition(".")[0] not in octets:
                return Source(host, *self._unlisted)
        bits = _bits_v4(host)
        if prefix != 32:
            host = f"{_text_v4(bits & self._mask_v4)}/{prefix}"
        return Source(host, *judge(4, bits)) if judge is not None else Source(host)

    def _make_v6(self, bits: int, scope: str) -> Source:
        name = _text_v6(bits & self._mask_v6, self._prefix_v6, scope)
        judge = self._judge
        return Source(name, *judge(6, bits)) if judge is not None else Source(name)


def _bits_v4(host: str) -> int:
    a, b, c, d = host.split(".")
    bits = int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
    if not 0 <= bits < 1 << 32:
        raise ValueError(host)
    return bits


def _text_v4(bits: int) -> str:
    return f"{bits >> 24}.{bits >> 16 & 255}.{bits >> 8 & 255}.{bits & 255}"


def _bits_v6(host: str) -> int:
    head, gap, tail = host.partition("::")
    groups = head.split(":") if head else []
    if gap:
        last = tail.split(":") if tail else []
        groups += ["0"] * (8 - len(groups) - len(last)) + last
    if len(groups) != 8:
        raise ValueError(host)
    # One conversion of 32 digits is faster than eight of four (0.8 µs against 1.2).
    bits = int((_HEX8 % tuple(groups)).replace(" ", "0"), 16)
    if not 0 <= bits < 1 << 128:
        raise ValueError(host)
    return bits


def _bits_of_dotted(host: str) -> int:
    head, _, dotted = host.rpartition(":")
    low = _bits_v4(dotted)
    return _bits_v6(f"{head}:{low >> 16:x}:{low & 0xFFFF:x}")


def _text_v6(bits: int, prefix: int, scope: str) -> str:
    """A network as RFC 4291 (2.3) writes it, the scope as RFC 4007 (11.7) does."""
    if prefix == 64 and bits >> 64 & 0xFFFF and not scope:
        # By far the most frequent: 0.4 µs instead of 1.5.
        high = bits >> 64
        return "%x:%x:%x:%x::/64" % (  # noqa: UP031  (an f-string takes 0.6 µs)
            high >> 48,
            high >> 32 & 0xFFFF,
            high >> 16 & 0xFFFF,
            high & 0xFFFF,
        )
    groups = [f"{bits >> shift & 0xFFFF:x}" for shift in range(112, -16, -16)]
    while groups and groups[-1] == "0":
        groups.pop()
    text = ":".join(groups) + ("::" if len(groups) < 7 else ":0" if len(groups) == 7 else "")
    return text + (f"%{scope}" if scope else "") + ("" if prefix == 128 else f"/{prefix}")
