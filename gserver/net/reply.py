"""The rejection that says something: a busy message in the client's own protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gserver import replies
from gserver.errors import SettingError
from gserver.net.linger import Linger
from gserver.net.loop import Loop
from gserver.net.skip_header import SkipHeader
from gserver.replies import Script
from gserver.timeouts import check_seconds

__all__ = ["Reply"]


class Reply:
    """Reply: the client reads that the server is busy, then end-of-file.

    :param what: a protocol's name (``gserver.replies.BY_NAME``: "http", "redis", "postgres" …),
        or the bytes of a message of your own.
    :param timeout: seconds a client has to take it.
    :param max_lingering: clients that may be taking theirs at once; the next ones are closed
        without a word, counted in :attr:`degraded`.
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
        self._linger: Linger | None = None

    def on(self, family: int, loop: Loop) -> Callable[[int], object]:
        if self._linger is None:
            self._linger = Linger(loop, timeout=self._timeout, max_lingering=self.max_lingering)
        start, script = self._linger.start, self.script
        if script.max_received:  # it answers to the client's words, and a proxy's may come first
            script = SkipHeader(script)
        return lambda fd: start(fd, family, script)

    @property
    def lingering(self) -> int:
        """Clients that are taking their reply now."""
        return 0 if self._linger is None else self._linger.lingering

    def descriptors(self) -> list[int]:
        """Those of the clients that are taking their reply now."""
        return [] if self._linger is None else self._linger.descriptors()

    @property
    def degraded(self) -> int:
        """Clients that were closed without a word, so far."""
        return 0 if self._linger is None else self._linger.degraded

    def close_all(self) -> int:
        """Close those that are still taking their reply; returns how many they were."""
        return 0 if self._linger is None else self._linger.close_all()

    def __repr__(self) -> str:
        return f"Reply({self._what!r})"
