"""TLS: a fatal alert in the clear, before any handshake.

RFC 8446 section 6 (alert protocol; an alert before keys are agreed on is not encrypted) and 5.1
(record layer). The description is internal_error (80): section 6.2 gives as its example a lack of
memory, which is what a full server is to a client; no description says "busy". The record's
version is 0x0303 as section 5.1 has it for every record but the first ClientHello's.

It carries no text: a client reports the alert's name.
"""

from __future__ import annotations

import struct
from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

_ALERT: Final = 21
_VERSION: Final = 0x0303
_FATAL: Final = 2
_INTERNAL_ERROR: Final = 80

BUSY: Final = Reply(
    struct.pack("!BHHBB", _ALERT, _VERSION, 2, _FATAL, _INTERNAL_ERROR),
    tls=True,
)
