"""SSH: the version line, then ``SSH_MSG_DISCONNECT`` with reason 12, too many connections.

RFC 4253 section 4.2 (version exchange: both sides speak at once), 6 (binary packet: before key
exchange neither cipher nor MAC), 11.1 (SSH_MSG_DISCONNECT; reason 12 is
SSH_DISCONNECT_TOO_MANY_CONNECTIONS). A line of text before the version would be allowed but
OpenSSH shows it only when asked to be verbose.
"""

from __future__ import annotations

import struct
from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

_MSG_DISCONNECT: Final = 1
_TOO_MANY_CONNECTIONS: Final = 12
_BLOCK: Final = 8  # section 6: the size that the whole packet is a multiple of, without a cipher
_MIN_PADDING: Final = 4


def _string(value: bytes) -> bytes:
    return struct.pack("!I", len(value)) + value


def _packet(payload: bytes) -> bytes:
    unpadded = 4 + 1 + len(payload)  # the length field, the padding's length, the payload
    padding = _MIN_PADDING + -(unpadded + _MIN_PADDING) % _BLOCK
    return struct.pack("!IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


def _disconnect(reason: int, description: bytes) -> bytes:
    language = b""
    return _packet(
        struct.pack("!BI", _MSG_DISCONNECT, reason) + _string(description) + _string(language)
    )


BUSY: Final = Reply(
    b"SSH-2.0-gserver\r\n"
    + _disconnect(_TOO_MANY_CONNECTIONS, b"Too many connections, try again later")
)
