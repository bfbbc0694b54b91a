"""A slot whose connection can be ended for its time: what the reaper asks of a connection.

Only where there is a timeout to keep: it takes some 150 bytes more than a plain slot.
"""

from __future__ import annotations

import _socket
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gserver.admission.verdict import Receipt
from gserver.legacy.holders import Holders, Slot
from gserver.net.tcp_info import TcpInfo, read_descriptor
from gserver.stats import Ending

__all__ = ["TimedSlot", "patch"]


class TimedSlot(Slot):
    """``gserver.reaper.Reaped``.

    :ivar header_bytes: of the bytes received, how many were of the TLS listener's handshake. One
        that the program does by itself may come after words in plain text (STARTTLS), and counts
        as the client's own.
    :ivar waiter: the gevent socket made on the connection last: who reads from it waits there.
    """

    __slots__ = ("_cause", "admitted_at", "header_bytes", "on_end", "waiter")
    deferred: Final = False

    def __init__(self, holders: Holders, address: Any, receipt: Receipt) -> None:
        super().__init__(holders, address, receipt)
        self._cause: Ending | None = None
        self.admitted_at = monotonic()
        self.header_bytes = 0
        self.on_end: Callable[[Any], object] | None = None
        self.waiter: Callable[[], Any] | None = None

    @property
    def ended(self) -> bool:
        return self._holders is None

    @property
    def reading(self) -> bool:
        """Whether a thread of the program's waits in ``recv()`` at this moment. One that waits in
        select, poll or asyncio for this and for others may be working meanwhile: it does not
        count."""
        sock = None if self.waiter is None else self.waiter()
        watcher = getattr(sock, "_read_event", None)
        return watcher is not None and watcher.active

    def tcp_info(self) -> TcpInfo | None:
        for fd in self._descriptors():
            return read_descriptor(fd, _socket.AF_INET)
        return None

    def nudge(self, cause: Ending | None = None) -> None:
        """Let the program see an end-of-file after what has come so far.

        :param cause: what the ending counts as, whatever the program makes of it.
        """
        if self._cause is None:
            self._cause = cause
        self._shut(_socket.SHUT_RD)

    def kill(self) -> None:
        """Nothing to kill: who serves it is the program's business."""

    def cut(self) -> None:
        """Shut the connection down both ways. Its slot comes back when the program closes it."""
        self._shut(_socket.SHUT_RDWR)

    def give_back(self) -> None:
        if self._holders is None:
            return
        if self._cause is not None:
            self.ending = self._cause
        super().give_back()
        if self.on_end is not None:
            self.on_end(self)

    def _shut(self, how: int) -> None:
        for fd in self._descriptors()[:1]:  # they all lead to the one connection
            view = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fd)
            try:
                view.shutdown(how)
            except OSError:
                pass  # the client was first
            finally:
                view.detach()

    def _descriptors(self) -> list[int]:
        """Those that certainly lead here: a number that was closed may be another's by now."""
        return self.open_descriptors() if self.inode else list(self.owners)


def patch(plain: Any) -> None:
    """Have every socket of gevent's class ``plain`` tell its slot that it is there. Once in a
    process, for good."""
    init = plain.__init__

    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        init(self, *arguments, **keywords)
        slot = getattr(self._sock, "followed", None)
        if slot.__class__ is TimedSlot:
            slot.waiter = weakref.ref(self)

    plain.__init__ = __init__
