"""Turning a client away: the only code that does. On the raw descriptor, before any work.

What the client sees is a rejection's :attr:`~Rejection.name`; a rejection gives, for a listener's
family and loop, the function that does it. For :class:`Close` that is close(2) itself, with no
Python in between: at the cap it is called once for every client of a flood.

Four of them: :class:`Close`, :class:`Reset`, :class:`Refuse`, and ``Reply`` in ``reply.py``.
"""

from __future__ import annotations

import _socket
import struct
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gserver.admission.verdict import Reason
from gserver.errors import SettingError
from gserver.net.loop import Loop
from gserver.net.reply import Reply

__all__ = ["UNEXPLAINED", "Close", "Refuse", "Rejection", "Reset", "by_reason"]

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class Rejection(Protocol):
    """What a client that is turned away sees."""

    @property
    def name(self) -> str: ...

    def on(self, family: int, loop: Loop) -> Callable[[int], object]:
        """The function that turns away the client on a descriptor, a connected stream socket of
        ``family``. It owns the descriptor from then on, whether it returns or raises
        :class:`OSError`."""
        ...


class Close:
    """Close: the client reads end-of-file (FIN).

    Where the client's data lies unread the kernel makes it a reset (RFC 2525 section 2.17).
    Leaves a TIME_WAIT each on this side: above about 2,000 rejections a second use
    :class:`Reset`.
    """

    name: Final = "close"
    __slots__ = ()

    def on(self, family: int, loop: Loop) -> Callable[[int], object]:
        return _socket.close

    def __repr__(self) -> str:
        return "Close()"


class Reset:
    """Reset: the client gets ECONNRESET (RST), and this side keeps no TIME_WAIT.

    SO_LINGER with a time of zero makes close(2) abort the connection (socket(7)); on a unix
    socket it is a plain close.
    """

    name: Final = "reset"
    __slots__ = ()

    def on(self, family: int, loop: Loop) -> Callable[[int], object]:
        def reset(
            fd: int,
            raw_socket: type[_socket.socket] = _socket.socket,
            stream: int = _socket.SOCK_STREAM,
            level: int = _socket.SOL_SOCKET,
            option: int = _socket.SO_LINGER,
            linger: bytes = _LINGER_ZERO,
        ) -> None:
            # Family, type and protocol given, the constructor only checks with getsockname(2)
            # that the descriptor is a socket.
            try:
                raw = raw_socket(family, stream, 0, fd)
            except OSError:
                _socket.close(fd)
                raise
            try:
                raw.setsockopt(level, option, linger)
            finally:
                raw.close()

        return reset

    def __repr__(self) -> str:
        return "Reset()"


class Refuse:
    """Refuse: while all slots are taken the kernel refuses connections (ECONNREFUSED), and that
    costs the server nothing at all. Linux, TCP. See ``gserver/net/door.py``.

    It is a state of the listener, not something done to a client: nobody can count or log who was
    refused, only for how long (``Snapshot.time_refusing``). Whom other rules turn away, or who
    comes in the moment before the door shuts, gets a reset.

    It cannot promise that who closes and connects again is admitted at a full cap (G3): the kernel
    refuses whoever comes while a slot is just coming back, before anybody here hears of it.

    Not for processes that share a listener after a fork: whichever fills shuts it for all, and
    one that has room opens it as soon as it hears of that; until then clients are refused, and
    those in the queue get a reset. The time is counted by each for itself.
    """

    name: Final = "refuse"
    __slots__ = ()

    def on(self, family: int, loop: Loop) -> Callable[[int], object]:
        return Reset().on(family, loop)

    def __repr__(self) -> str:
        return "Refuse()"


#: Those who get no explanation unless one is given for them: whom the operator keeps out, who
#: speaks another protocol; and for whom there is no descriptor to spend on one.
UNEXPLAINED: Final = (Reason.DENIED, Reason.PENALTY, Reason.HEADER, Reason.DESCRIPTORS)


def by_reason(rejection: Rejection | Mapping[str, Rejection] | None) -> dict[Reason, Rejection]:
    """How each reason's clients are turned away.

    :param rejection: for ``capacity``; or a mapping from reasons. What it leaves out is done as
        ``capacity`` is (:class:`Close` by default); but who is denied, penalised, a proxy without
        a header, or came when there was no descriptor left (:data:`UNEXPLAINED`) gets no reply:
        :class:`Close` where ``capacity`` does, else :class:`Reset`.
    :raises SettingError: not a rejection, or not a reason; or not one for that reason.
    """
    given = rejection if isinstance(rejection, Mapping) else {"capacity": rejection or Close()}
    known = set(Reason)
    for reason, chosen in given.items():
        if reason not in known:
            raise SettingError(
                "rejection", reason, f"is no reason; accepted: {', '.join(sorted(known))}"
            )
        is_class = isinstance(chosen, type)  # Reset for Reset(): it has all of the attributes
        if is_class or not hasattr(chosen, "on") or not hasattr(chosen, "name"):
            raise SettingError(
                "rejection", chosen, "must be Close(), Reset(), Refuse(), Reply(…) or a mapping"
            )
        if reason != Reason.CAPACITY and isinstance(chosen, Refuse):
            raise SettingError("rejection", chosen, "is for the reason capacity only")
        if reason == Reason.DESCRIPTORS and isinstance(chosen, Reply):
            raise SettingError(
                "rejection",
                chosen,
                "is not for the reason descriptors: who takes a reply keeps the one descriptor "
                "that all others are turned away with",
            )
    default = given.get(Reason.CAPACITY, Close())
    plain: Rejection = default if isinstance(default, Close) else Reset()
    return {
        reason: given.get(reason, plain if reason in UNEXPLAINED else default) for reason in Reason
    }
