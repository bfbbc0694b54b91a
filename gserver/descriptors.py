"""How many descriptors a server's clients may take at once, besides those admitted or waiting, and
candidates."""

from __future__ import annotations

from collections.abc import Iterable

from gserver.candidates import MAX_CANDIDATES
from gserver.net.rejection import Rejection
from gserver.net.reply import Reply

__all__ = ["named_first", "taking_replies"]


def taking_replies(rejections: Iterable[Rejection], listeners: int = 1) -> int:
    """The most that are taking a busy reply, each reply's for all its reasons, on so many
    listeners."""
    replies = {id(how): how for how in rejections if isinstance(how, Reply)}
    return listeners * sum(reply.max_lingering for reply in replies.values())


def named_first(*, behind_proxies: bool, evicts: bool) -> int:
    """The most whose proxy's header is read without a slot, to know for whom somebody is ended."""
    return MAX_CANDIDATES if behind_proxies and evicts else 0
