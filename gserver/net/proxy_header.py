"""The PROXY protocol's header, versions 1 and 2, as a pure function of the bytes received.

"The PROXY protocol", HAProxy's doc/proxy-protocol.txt: section 2.1 (version 1, one line of text)
and 2.2 (version 2, binary). Strict, as its section 2.1 asks: what does not match exactly is a
fault. The destination's address is checked and dropped; TLVs (section 2.2) are skipped unread.
"""

from __future__ import annotations

import enum
import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["MAX_HEADER", "Address", "Fault", "Header", "parse"]

#: A peer's address in the shape that ``accept()`` gives: IPv4, IPv6, or a unix socket's path.
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str

#: Bytes of a header at most. Section 2 has every header fit in 536; the rest is for TLVs that
#: carry a client's certificate.
MAX_HEADER: Final = 4096


class Fault(enum.StrEnum):
    """Why there is no header. The peer's fault, except for the last. Closed: a metric's label."""

    NO_HEADER = "no_header"  # the first bytes are not the beginning of any header
    MALFORMED = "malformed"
    TOO_LONG = "too_long"  # announced longer than MAX_HEADER, or a line without an end
    TIMEOUT = "timeout"  # not complete at the deadline
    CLOSED = "closed"  # the peer closed or reset before it was complete
    CANCELLED = "cancelled"  # the server gave up waiting, to stop


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header."""

    size: int
    """Its length in bytes: the connection's own data begin there."""
    source: Address | None
    """The client's address. None (LOCAL, UNKNOWN, an unspecified family): the connection is the
    proxy's own or of a kind it cannot describe, and the socket's address stands. An unnamed unix
    socket is the empty string."""


_V1_START: Final = b"PROXY "
_V1_MAX: Final = 107  # section 2.1: the worst case, CRLF included
_OCTET: Final = rb"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4: Final = rb"(?:%b\.){3}%b" % (_OCTET, _OCTET)
_IPV6: Final = rb"[0-9A-Fa-f:.]{2,39}"  # the characters and the length; inet_pton does the rest
_PORT: Final = rb"(?:0|[1-9]\d{0,4})"
_V1: Final = re.compile(
    rb"PROXY (?:"
    rb"TCP4 (?P<source4>%b) %b (?P<port4>%b) (?P<to_port4>%b)"
    rb"|TCP6 (?P<source6>%b) (?P<to6>%b) (?P<port6>%b) (?P<to_port6>%b)"
    rb"|UNKNOWN(?: .*)?)" % (_IPV4, _IPV4, _PORT, _PORT, _IPV6, _IPV6, _PORT, _PORT),
    re.DOTALL,
)

_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = struct.Struct("!12sBBH")  # signature, version and command, family, length
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_IN: Final = struct.Struct("!4s4sHH")
_IN6: Final = struct.Struct("!16s16sHH")
_UN: Final = struct.Struct("!108s108s")
#: By family and transport: STREAM (1) or DGRAM (2), that of the connection at the proxy.
_ADDRESSES: Final = {0x11: _IN, 0x12: _IN, 0x21: _IN6, 0x22: _IN6, 0x31: _UN, 0x32: _UN}
#: AF_UNSPEC, or a transport left unspecified: the address is to be ignored.
_UNSPECIFIED: Final = frozenset({0x00, 0x01, 0x02, 0x10, 0x20, 0x30})


def parse(data: bytes) -> Header | Fault | None:
    """The header at the beginning of ``data``, all that the peer has sent so far.

    :return: the header; or the fault, which more data would not mend; or None when more is
        needed, in which case every byte of ``data`` belongs to the header. Never None for
        :data:`MAX_HEADER` bytes or more. Never raises.
    """
    if _V2_START.startswith(data[: len(_V2_START)]):
        return _parse_v2(data)
    if _V1_START.startswith(data[: len(_V1_START)]):
        return _parse_v1(data)
    return Fault.NO_HEADER


def _parse_v1(data: bytes) -> Header | Fault | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    line = data[:end] if end >= 0 else data[:_V1_MAX]
    if b"\n" in line:  # section 2.1: a lone LF must not be taken for the end
        return Fault.MALFORMED
    if end < 0:
        return Fault.TOO_LONG if len(data) >= _V1_MAX else None
    size = end + 2
    match = _V1.fullmatch(line)
    if match is None:
        return Fault.MALFORMED
    source: Address | None = None
    if match["source4"]:
        ports = int(match["port4"]), int(match["to_port4"])
        source = (match["source4"].decode(), ports[0])
    elif match["source6"]:
        ports = int(match["port6"]), int(match["to_port6"])
        try:
            host = socket.inet_pton(socket.AF_INET6, match["source6"].decode())
            socket.inet_pton(socket.AF_INET6, match["to6"].decode())
        except OSError:
            return Fault.MALFORMED
        source = (socket.inet_ntop(socket.AF_INET6, host), ports[0], 0, 0)
    else:
        return Header(size, None)
    return Header(size, source) if max(ports) <= 65535 else Fault.MALFORMED


def _parse_v2(data: bytes) -> Header | Fault | None:
    if len(data) < _V2_FIXED.size:
        return None
    _, command, family, length = _V2_FIXED.unpack_from(data)
    size = _V2_FIXED.size + length
    if command == _LOCAL or (command == _PROXY and family in _UNSPECIFIED):
        addresses = None
    elif command == _PROXY and family in _ADDRESSES:
        addresses = _ADDRESSES[family]
        if length < addresses.size:
            return Fault.MALFORMED
    else:
        return Fault.MALFORMED
    if size > MAX_HEADER:
        return Fault.TOO_LONG
    if len(data) < size:
        return None
    if addresses is None:
        return Header(size, None)
    source, _, *ports = addresses.unpack_from(data, _V2_FIXED.size)
    if addresses is _IN:
        return Header(size, (socket.inet_ntop(socket.AF_INET, source), ports[0]))
    if addresses is _IN6:
        return Header(size, (socket.inet_ntop(socket.AF_INET6, source), ports[0], 0, 0))
    return Header(size, _unix_path(source))


def _unix_path(field: bytes) -> str:
    """A path ends at its first NUL; an abstract name begins with one (unix(7))."""
    abstract = field[:1] == b"\0"
    return os.fsdecode(field.rstrip(b"\0") if abstract else field.split(b"\0", 1)[0])
