"""The rejection that says something: a busy message in the client's own protocol."""

from __future__ import annotations

from typing import Final

from gserver import replies
from gserver.errors import SettingError
from gserver.net.linger import Linger
from gserver.net.loop import Loop
from gserver.net.skip_header import SkipHeader
from gserver.replies import Script
from gserver.timeouts import check_seconds

__all__ = ["Reply", "Teller"]


class Reply:
    """Reply: the client reads that the server is busy, then end-of-file.

    :param what: a protocol's name (``gserver.replies.BY_NAME``: "http", "redis", "postgres" …),
        or the bytes of a message of your own.
    :param timeout: seconds a client has to take it.
    :param max_lingering: clients that may be taking theirs at once; the next ones are closed
        without a word. Of each listener.
    :raises SettingError: no such name, not bytes, or a number that cannot be used.
    """

    name: Final = "reply"

    def __init__(
        self, what: str | bytes, *, timeout: float = 2.0, max_lingering: int = 256
    ) -> None:
        self.script: Script = replies.named(what) if isinstance(what, str) else replies.Reply(what)
        self._timeout: Final = check_seconds(timeout, "timeout")
        if (
            isinstance(max_lingering, bool)
            or not isinstance(max_lingering, int)
            or max_lingering < 1
        ):
            raise SettingError("max_lingering", max_lingering, "must be a whole number, 1 or more")
        self._what: Final = what
        self.max_lingering: Final = max_lingering

    def on(self, family: int, loop: Loop) -> Teller:
        script = self.script
        if script.max_received:  # it answers to the client's words, and a proxy's may come first
            script = SkipHeader(script)
        linger = Linger(loop, timeout=self._timeout, max_lingering=self.max_lingering)
        return Teller(linger, family, script)

    def __repr__(self) -> str:
        return f"Reply({self._what!r})"


class Teller:
    """What turns the clients of one listener away with a reply.

    :ivar linger: those who are taking it: whoever made this closes them in the end.
    """

    __slots__ = ("_family", "_script", "linger")

    def __init__(self, linger: Linger, family: int, script: Script) -> None:
        self.linger: Final = linger
        self._family = family
        self._script = script

    def __call__(self, fd: int) -> None:
        self.linger.start(fd, self._family, self._script)
