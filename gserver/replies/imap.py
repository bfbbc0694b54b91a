"""IMAP: a ``BYE`` greeting.

RFC 9051 (and RFC 3501) section 7.1.5: BYE as one of the three greetings means the server is not
willing to accept a connection. The response code UNAVAILABLE, a temporary failure, is RFC 5530
section 3's.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n")
