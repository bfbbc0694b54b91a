"""NNTP: ``400`` in place of the greeting.

RFC 3977 section 5.1: 400, service temporarily unavailable, is one of the four replies to a new
connection (200, 201, 400, 502), after which the server must close.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"400 Too many connections, try again later\r\n")
