"""IRC: ``ERROR``, the message with which a server ends a connection.

RFC 2812 section 3.7.4 (RFC 1459 section 4.6.4): ERROR may be sent to a client before its
connection is terminated. "Closing Link" opens it by custom of the servers, and clients look for
it.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"ERROR :Closing Link: Too many connections, try again later\r\n")
