"""SMTP: ``421`` in place of the greeting.

RFC 5321 section 4.2.3: 421, "service not available, closing transmission channel", may answer
anything when the server must close. RFC 2034 section 4 keeps enhanced status codes out of the
greeting, so there is none here.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"421 Too many connections, try again later\r\n")
