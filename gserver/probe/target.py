"""The target: one resolved TCP address, and the source addresses to come from."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from gserver.errors import SettingError

__all__ = ["PORTS_PER_SOURCE", "Target", "parse_target", "source_addresses"]

#: Connections planned per source address before another is taken. The usual range of ephemeral
#: ports holds 28,232 (``net.ipv4.ip_local_port_range``), some of them in use by others.
PORTS_PER_SOURCE = 20_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: resolved once, so that no resolver is in any figure.

    :param others: further addresses of the same name, which are not tried: what is measured is one
        listener.
    :param scope: the interface that a link-local address is of, by index; 0: none.
    """

    text: str
    family: int
    address: tuple[str, int]
    others: tuple[str, ...] = ()
    scope: int = 0

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """What ``connect`` takes: with the scope of an address that has one."""
        return (*self.address, 0, self.scope) if self.scope else self.address

    @property
    def numeric(self) -> str:
        """For :func:`parse_target` of another process: nothing in it must be looked up again."""
        host, port = self.address
        if self.family == socket.AF_INET:
            return f"{host}:{port}"
        return f"[{host}%{self.scope}]:{port}" if self.scope else f"[{host}]:{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the address is of 127.0.0.0/8 or ::1."""
        return ipaddress.ip_address(self.address[0].partition("%")[0]).is_loopback

    @property
    def tried(self) -> str:
        """The text, and where a name has several addresses, which of them was taken."""
        if not self.others:
            return self.text
        return f"{self.text} ({self.address[0]}; the name is {', '.join(self.others)}, too)"


def parse_target(text: str) -> Target:
    """Resolve ``HOST:PORT``, ``[V6]:PORT`` or ``:PORT`` (this host).

    :raises SettingError: not of that form, or the name does not resolve.
    """
    if text.startswith("unix:"):
        raise SettingError("TARGET", text, "only TCP can be measured; give HOST:PORT")
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdecimal():
        raise SettingError("TARGET", text, "give HOST:PORT, such as 127.0.0.1:6379")
    port = int(port_text)
    if not 0 < port < 65536:
        raise SettingError("TARGET", text, "the port must be 1 to 65535")
    host = host.strip("[]") or "127.0.0.1"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingError("TARGET", text, f"the name does not resolve: {error}") from None
    family, _, _, _, address = found[0]
    hosts = dict.fromkeys(str(row[4][0]) for row in found)
    scope = int(address[3]) if len(address) > 3 else 0  # (host, port, flowinfo, scope) of IPv6
    return Target(text, family, (str(address[0]), port), tuple(hosts)[1:], scope)


def source_addresses(target: Target, count: int) -> list[str]:
    """*count* source addresses for connections to *target*; empty: leave it to the kernel.

    Only 127.0.0.0/8 has addresses to spare. One address holds about 28,000 connections to one
    target (``net.ipv4.ip_local_port_range``), those in TIME_WAIT included.

    :raises SettingError: more than one asked for, and the target is not of 127.0.0.0/8.
    """
    if count <= 1:
        return []
    if target.family != socket.AF_INET or not target.is_loopback:
        raise SettingError("--sources", count, "only for targets in 127.0.0.0/8; use 1")
    if count > 60_000:
        raise SettingError("--sources", count, "at most 60000")
    first = int(ipaddress.IPv4Address("127.1.0.1"))
    return [str(ipaddress.IPv4Address(first + i)) for i in range(count)]
