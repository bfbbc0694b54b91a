"""PostgreSQL: ``FATAL 53300`` in answer to the startup packet.

PostgreSQL documentation, "Message Flow" (start-up, SSL and GSSAPI session encryption, canceling
requests) and "Message Formats" (StartupMessage, SSLRequest, GSSENCRequest, CancelRequest,
ErrorResponse); 53300 is too_many_connections of "Error Codes". The text is the server's own.

The error has to wait for the startup packet. libpq asks for encryption first (``sslmode=prefer``
is its default) and since CVE-2024-10977 hides the text of an error sent in answer to that; so both
requests for encryption are answered ``N``, unwilling, and libpq goes on in the clear. A client
that insists on encryption (``sslmode=require``) says so itself and never sees the error.
"""

from __future__ import annotations

import struct
from typing import Final

from gserver.replies.script import Dialogue, Turn

__all__ = ["BUSY"]

_OPENING: Final = struct.Struct("!II")  # length of the packet, itself included; request code
_SSL_REQUEST: Final = 80877103
_GSSENC_REQUEST: Final = 80877104
_UNWILLING: Final = b"N"
_MAX_REQUESTS: Final = 2  # each kind of encryption is asked for at most once
_MAJOR_VERSION: Final = 3
_MAX_STARTUP_PACKET: Final = 10000  # MAX_STARTUP_PACKET_LENGTH in libpq/pqcomm.h


def _error_response(**fields: str) -> bytes:
    body = b"".join(key.encode() + text.encode() + b"\0" for key, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!I", 4 + len(body)) + body


# Severity, the same not localized, SQLSTATE, message.
_TOO_MANY: Final = _error_response(
    S="FATAL", V="FATAL", C="53300", M="sorry, too many clients already"
)


def _answer(received: bytes) -> Turn:
    due = b""
    for start in range(0, (_MAX_REQUESTS + 1) * _OPENING.size, _OPENING.size):
        if len(received) < start + _OPENING.size:
            return Turn(due, False)
        length, code = _OPENING.unpack_from(received, start)
        if code in (_SSL_REQUEST, _GSSENC_REQUEST) and length == _OPENING.size:
            due += _UNWILLING
        elif code >> 16 == _MAJOR_VERSION and length <= _MAX_STARTUP_PACKET:
            return Turn(due + _TOO_MANY, True)
        else:
            break  # a CancelRequest, which the server answers by closing, or no client of ours
    return Turn(due, True)


BUSY: Final = Dialogue(_answer, max_received=(_MAX_REQUESTS + 1) * _OPENING.size)
