"""memcached (text protocol): ``SERVER_ERROR``.

``doc/protocol.txt``, "Error strings": SERVER_ERROR is the one error after which the server closes
the connection. memcached itself says ``ERROR Too many open connections`` here, but ``ERROR``
stands for an unknown command in that document, and pymemcache raises it without its text.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"SERVER_ERROR Too many connections, try again later\r\n")
