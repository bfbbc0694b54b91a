"""Redis: the error of Redis itself at its ``maxclients``.

A RESP simple error (Redis serialization protocol, "Simple errors"), sent at once as in Redis's
``networking.c``, ``acceptCommonHandler``. The text is that function's, word for word: redis-py
(``_parsers/base.py``) and others know this error by its text.
"""

from __future__ import annotations

from typing import Final

from gserver.replies.script import Reply

__all__ = ["BUSY"]

BUSY: Final = Reply(b"-ERR max number of clients reached\r\n")
