"""Busy replies to clients behind a proxy, where the PROXY protocol's header comes first.

Whoever is turned away before its header was read has it lie before its own words. A reply that
waits for those has to skip it.
"""

from __future__ import annotations

from gserver.net.proxy_header import MAX_HEADER, Header, parse
from gserver.replies.script import WAIT, Script, Turn

__all__ = ["SkipHeader"]


class SkipHeader:
    """``script``, with a PROXY header before the client's words, or without.

    Without: its header has been read. No protocol's first words are the beginning of a header
    (that is what they were chosen for: section 2.2 of the specification).
    """

    __slots__ = ("_script", "max_received", "tls")

    def __init__(self, script: Script) -> None:
        self._script = script
        self.tls = script.tls
        self.max_received = script.max_received + MAX_HEADER

    def turn(self, received: bytes) -> Turn:
        found = parse(received)
        if found is None:
            return WAIT
        size = found.size if isinstance(found, Header) else 0
        return self._script.turn(received[size:])
