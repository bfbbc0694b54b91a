"""HTTP/1.x: ``503 Service Unavailable`` with ``Retry-After``.

RFC 9110 section 15.6.4 (503: temporarily overloaded) and 10.2.3 (``Retry-After``); RFC 9112
section 9.6 (``Connection: close``). No ``Date``: RFC 9110 section 6.6.1 requires it of 2xx to 4xx
responses only, and a script knows no clock.

Nothing is said before the client's first byte: a response to no request is unsolicited, and Go's
client treated 2 of 200 of them as a broken idle connection; after the first byte, none.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import WAIT, Dialogue, Turn

__all__ = ["BUSY"]

_CONTENT: Final = b"Too many connections. Try again shortly.\n"
_HEAD: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: 1\r\n"
    b"Connection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"\r\n" % len(_CONTENT)
)
_HEAD_METHOD: Final = b"HEAD "


def _answer(received: bytes) -> Turn:
    if not received.startswith(_HEAD_METHOD[: len(received)]):
        return Turn(_HEAD + _CONTENT, True)
    if len(received) < len(_HEAD_METHOD):  # nothing yet, or it may still become HEAD
        return WAIT
    return Turn(_HEAD, True)  # RFC 9110 section 9.3.2: no content in answer to HEAD


BUSY: Final = Dialogue(_answer, max_received=len(_HEAD_METHOD))
