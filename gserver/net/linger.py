"""Busy replies on raw descriptors: send, say so with FIN, wait for the client, close.

Closing right after the reply could destroy it: where the client's data lies unread, or arrives
later, ``close`` makes a reset (RFC 2525 section 2.17; RFC 9112 section 9.6 describes the remedy),
and a client that gets the reset before it has read the reply never sees it. So: the reply,
``shutdown(SHUT_WR)``, then read and throw away what the client sends until it closes. Bounded in
time, in bytes and in number, on callbacks of the loop, without a greenlet.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Final

from gserver.net.deadlines import Deadlines
from gserver.net.loop import BACKGROUND_PRIORITY, READ, WRITE, Loop, Watcher
from gserver.replies.script import Script
from gserver.stats import Telling

__all__ = ["Linger"]

_RAW_SOCKET: Final = _socket.socket
# A client that is gone must be an error here, not a SIGPIPE: a host program may have the signal's
# default action, which ends the process. macOS has no such flag; Python ignores the signal there
# as elsewhere, unless the program changed that.
_NO_SIGNAL: Final = getattr(_socket, "MSG_NOSIGNAL", 0)
# Where all that is thrown away goes. 16 KiB: a thousand clients that upload at once cost a turn of
# the loop some milliseconds, not tens.
_SCRAP: Final = bytearray(16384)


class Linger:
    """Drives replies, at most ``max_lingering`` at a time.

    :param loop: the loop whose callbacks do the work.
    :param timeout: seconds from the rejection in which the client has to take the reply and
        close. Then the connection is closed as it is, up to an eighth of the time later. 2 s
        cover a lost segment and its retransmission (the initial RTO is 1 s, RFC 6298 section 2).
    :param max_lingering: connections, and so descriptors, held at once. A client that comes at
        the bound gets a plain close, counted as degraded.
    :param max_drained: bytes of one client's thrown away; at more it is closed. Python's urllib,
        for one, reads no reply before its upload is all sent, so this is the largest upload that
        still ends in the reply there, if the time suffices.

    :ivar counts: each client handed to :meth:`start` is in exactly one of them, or in
        ``lingering``. May be replaced before the first comes, to count together with others.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        timeout: float = 2.0,
        max_lingering: int = 1024,
        max_drained: int = 16 << 20,
    ) -> None:
        self.max_lingering = max_lingering
        self.max_drained: Final = max_drained
        self.counts: dict[Telling, int] = dict.fromkeys(Telling, 0)
        self._loop = loop
        self._deadlines: Deadlines[_Conversation] = Deadlines(loop, timeout, self._expire)

    @property
    def lingering(self) -> int:
        """Connections held now."""
        return len(self._deadlines)

    def descriptors(self) -> list[int]:
        """Those of the connections held now."""
        return [conversation.fd for conversation in self._deadlines]

    def start(self, fd: int, family: int, script: Script) -> None:
        """Take over ``fd``, a connected stream socket of ``family``, reply on it and close it.

        Returns at once. The descriptor is this object's from the call on, whatever happens.
        Raises nothing but what closing at the bound may raise (:class:`OSError`).
        """
        if len(self._deadlines) >= self.max_lingering:
            self.counts[Telling.DEGRADED] += 1
            _socket.close(fd)
            return
        conversation = _Conversation(self, fd, family, script)
        self._deadlines.add(conversation)
        conversation.speak()

    def close_all(self) -> int:
        """Close every connection as it is, and return how many there were. May be used again."""
        conversations = list(self._deadlines)
        for conversation in conversations:
            self._end(conversation)
        self.counts[Telling.DROPPED] += len(conversations)
        return len(conversations)

    def _expire(self, conversation: _Conversation) -> None:
        self.counts[Telling.EXPIRED] += 1
        self._end(conversation)

    def _end(self, conversation: _Conversation) -> None:
        self._deadlines.discard(conversation)
        conversation.close()


class _Conversation:
    """One client that is being told. Its states: speaking (more is due, or the script waits for
    the client's words), then draining (all said, FIN sent), then closed."""

    __slots__ = (
        "drained",
        "events",
        "fd",
        "linger",
        "received",
        "script",
        "sent",
        "sock",
        "watcher",
    )

    def __init__(self, linger: Linger, fd: int, family: int, script: Script) -> None:
        self.linger = linger
        self.fd = fd
        self.sock = _RAW_SOCKET(family, _socket.SOCK_STREAM, 0, fd)
        # Also where the program has set a default timeout, with which the calls below would wait.
        self.sock.setblocking(False)
        self.script = script
        self.received = b""
        self.sent = 0
        self.drained = 0
        self.events = 0
        self.watcher: Watcher | None = None

    def speak(self) -> None:
        """Send what is due and not yet sent; then wait for room, for words, or for the end."""
        due, finished = self.script.turn(self.received)
        if self.sent < len(due):
            try:
                self.sent += self.sock.send(memoryview(due)[self.sent :], _NO_SIGNAL)
            except BlockingIOError:
                pass
            except OSError:
                self._break()
                return
            if self.sent < len(due):
                self._watch(WRITE, self.speak)
                return
        if not finished:
            self._watch(READ, self._listen)
            return
        try:
            self.sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self._break()
            return
        self._watch(READ, self._drain)

    def _listen(self) -> None:
        try:
            words = self.sock.recv(self.script.max_received - len(self.received))
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:  # left before it had the reply
            self._break()
            return
        self.received += words
        self.speak()

    def _drain(self) -> None:
        try:
            size = self.sock.recv_into(_SCRAP)
        except BlockingIOError:
            return
        except OSError:
            self._break()
            return
        if not size:
            self.linger.counts[Telling.REPLIED] += 1
            self.linger._end(self)
            return
        self.drained += size
        if self.drained > self.linger.max_drained:
            self.linger._expire(self)

    def _break(self) -> None:
        self.linger.counts[Telling.BROKEN] += 1
        self.linger._end(self)

    def _watch(self, events: int, step: Callable[[], None]) -> None:
        """Call ``step`` whenever the descriptor is ready for ``events``."""
        if self.watcher is not None and self.events == events:
            self.watcher.stop()
        else:
            if self.watcher is not None:
                self.watcher.close()
            self.watcher = self.linger._loop.io(self.fd, events, priority=BACKGROUND_PRIORITY)
            self.events = events
        self.watcher.start(step)

    def close(self) -> None:
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None
        self.sock.close()
