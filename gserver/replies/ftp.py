"""FTP: ``421`` in place of the greeting.

RFC 959 section 5.4: 421, "service not available, closing control connection", is one of the three
replies to a new connection (120, 220, 421).
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"421 Too many connections, try again later\r\n")
