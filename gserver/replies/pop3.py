"""POP3: ``-ERR`` in place of the greeting.

RFC 1939 section 3 gives the two status indicators, section 4 the greeting; the extended response
code SYS/TEMP, a problem that is likely to be temporary, is RFC 3206 section 4's.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"-ERR [SYS/TEMP] Too many connections, try again later\r\n")
