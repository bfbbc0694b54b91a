"""MQTT: ``CONNACK`` with "server unavailable" (3.1.1) or "server busy" (5).

MQTT 3.1.1 section 3.2.2.3: return code 3, service unavailable. MQTT 5.0 section 3.2.2.2: reason
code 0x89, server busy, with the text as Reason String (3.2.2.3.9), which must be left out when the
packet would be larger than the client's Maximum Packet Size (3.1.2.11.4). In both, nothing may be
sent before the client's CONNECT (3.1), and the version is known only from it.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import HANG_UP, WAIT, Dialogue, Turn

__all__ = ["BUSY"]

_CONNECT: Final = 0x10
_NAMES: Final = (b"\0\x04MQTT", b"\0\x06MQIsdp")  # MQIsdp: version 3.1, answered as 3.1.1 is

#: Set in the protocol level by a bridge of mosquitto's that has ``try_private``, its default.
_BRIDGE: Final = 0x80

_UNAVAILABLE_3: Final = b"\x20\x02\x00\x03"
_BUSY_5: Final = b"\x20\x03\x00\x89\x00"
_TEXT: Final = b"Too many connections, try again later"
_REASON: Final = b"\x1f" + len(_TEXT).to_bytes(2, "big") + _TEXT
_BUSY_5_REASON: Final = bytes([0x20, 3 + len(_REASON), 0, 0x89, len(_REASON)]) + _REASON

# CONNECT's properties (5.0 table 2-4): the size of the value, or how many strings it is made of.
_MAXIMUM_PACKET_SIZE: Final = 0x27
_FIXED: Final = {0x11: 4, 0x17: 1, 0x19: 1, 0x21: 2, 0x22: 2, _MAXIMUM_PACKET_SIZE: 4}
_STRINGS: Final = {0x15: 1, 0x16: 1, 0x26: 2}
#: Longer properties are not looked into: the answer is the short one, which always fits.
_MAX_PROPERTIES: Final = 512


class _Incomplete(Exception):
    """The number has not fully arrived."""


class _Malformed(Exception):
    """Not what MQTT allows here."""


def _variable_integer(data: bytes, at: int) -> tuple[int, int]:
    """Section 1.5.5: a number in one to four bytes, and where it ends."""
    value = 0
    for place in range(4):
        if at + place >= len(data):
            raise _Incomplete
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise _Malformed


def _maximum_packet_size(properties: bytes) -> int | None:
    """The client's Maximum Packet Size in bytes, None when it names none."""
    at, found = 0, None
    while at < len(properties):
        kind, at = properties[at], at + 1
        if kind in _FIXED:
            end = at + _FIXED[kind]
        elif kind in _STRINGS:
            end = at
            for _ in range(_STRINGS[kind]):
                end += 2 + int.from_bytes(properties[end : end + 2], "big")
        else:
            raise _Malformed
        if end > len(properties):
            raise _Malformed
        if kind == _MAXIMUM_PACKET_SIZE:
            found = int.from_bytes(properties[at:end], "big")
        at = end
    return found


def _answer_5(received: bytes, at: int) -> Turn:
    length, at = _variable_integer(received, at)
    if length > _MAX_PROPERTIES:
        return Turn(_BUSY_5, True)
    if len(received) < at + length:
        return WAIT
    limit = _maximum_packet_size(received[at : at + length])
    fits = limit is None or len(_BUSY_5_REASON) <= limit
    return Turn(_BUSY_5_REASON if fits else _BUSY_5, True)


def _answer(received: bytes) -> Turn:
    if not received:
        return WAIT
    if received[0] != _CONNECT:
        return HANG_UP
    try:
        _, start = _variable_integer(received, 1)
        for name in _NAMES:
            level_at = start + len(name)
            if not name.startswith(received[start:level_at]):
                continue
            if len(received) <= level_at:
                return WAIT
            if (received[level_at] & ~_BRIDGE) < 5:
                return Turn(_UNAVAILABLE_3, True)
            flags_and_keep_alive = 3
            return _answer_5(received, level_at + 1 + flags_and_keep_alive)
    except _Incomplete:
        return WAIT
    except _Malformed:
        pass
    return HANG_UP


# The fixed header, the name, level, flags, keep-alive, the properties' length, the properties.
BUSY: Final = Dialogue(_answer, max_received=5 + 6 + 1 + 3 + 4 + _MAX_PROPERTIES)
