"""MySQL and MariaDB: error 1040 in place of the initial handshake.

"MySQL Internals", ERR_Packet: header 0xff, error code, text. No SQL state: it belongs to clients
that announced CLIENT_PROTOCOL_41, and nothing was announced yet (MySQL bug 26426, where the
server's own "Too many connections" is documented so). 1040 is ER_CON_COUNT_ERROR of MySQL's error
reference, and the text is its text.
"""

from __future__ import annotations

import struct
from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

_ER_CON_COUNT_ERROR: Final = 1040


def _error_packet(code: int, text: bytes) -> bytes:
    payload = struct.pack("<BH", 0xFF, code) + text
    sequence_id = 0  # the connection's first packet
    return len(payload).to_bytes(3, "little") + bytes([sequence_id]) + payload


BUSY: Final = Reply(_error_packet(_ER_CON_COUNT_ERROR, b"Too many connections"))
