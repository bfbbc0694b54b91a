"""Timeouts: what may end a connection from our side, as data, and the decision. Pure.

What the kernel watches by itself (keepalive, TCP_USER_TIMEOUT) is set once, on the listener, and
inherited by each connection. What we watch (first byte, idle, lifetime) is asked of each
connection now and then (``gserver/reaper.py``): nothing is done where data flows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gserver.errors import SettingError
from gserver.stats import Ending

__all__ = [
    "A_YEAR_S",
    "MOST_USER_TIMEOUT_S",
    "Keepalive",
    "Timeouts",
    "check_seconds",
    "sweep_every",
]

#: The longest of the times that are watched here, in seconds.
A_YEAR_S: Final = 365 * 86_400.0
#: TCP_KEEPIDLE and TCP_KEEPINTVL take at most 32,767 s, TCP_KEEPCNT at most 127
#: (MAX_TCP_KEEPIDLE and its neighbours in the kernel's include/net/tcp.h).
_MOST_KEEPALIVE_S: Final = 32_767
_MOST_PROBES: Final = 127
#: TCP_USER_TIMEOUT is a C int, in milliseconds (do_tcp_setsockopt in net/ipv4/tcp.c).
MOST_USER_TIMEOUT_S: Final = 2_147_483.0
#: How often a sweep comes, as a share of the shortest timeout, and its bounds in seconds: a
#: timeout is kept to about a tenth, and no more than five seconds late.
_SHARE: Final = 0.1
_SOONEST_S: Final = 0.01
_LATEST_S: Final = 5.0


def check_seconds(value: object, setting: str, most: float = A_YEAR_S) -> float:
    """A time above 0 and up to ``most`` (a year), or :class:`SettingError` naming ``setting``."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= most  # NaN compares false with everything, and so is refused
    ):
        raise SettingError(
            setting, value, f"must be a number of seconds, above 0 and up to {most:,.0f}"
        )
    return float(value)


def _whole(value: object, most: int, setting: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise SettingError(setting, value, f"must be a whole number, 1 to {most:,}")
    return value


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The kernel's probes of a silent peer (tcp(7), TCP_KEEPIDLE and its neighbours).

    The defaults find a peer that vanished without a word (power lost, cable cut, NAT entry gone)
    within 60 + 4 x 15 s = two minutes; the kernel's own (7200 + 9 x 75 s) need over two hours,
    in which the slot is lost. A probe is one empty segment a minute for each silent connection.

    :ivar idle: seconds of silence before the first probe.
    :ivar interval: seconds between two probes.
    :ivar count: unanswered probes after which the peer is gone.
    :raises SettingError: a value that the kernel would not take.
    """

    idle: int = 60
    interval: int = 15
    count: int = 4

    def __post_init__(self) -> None:
        _whole(self.idle, _MOST_KEEPALIVE_S, "keepalive idle")
        _whole(self.interval, _MOST_KEEPALIVE_S, "keepalive interval")
        _whole(self.count, _MOST_PROBES, "keepalive count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """When to end an admitted connection. Times in seconds; None: never.

    A connection whose time is over is told by an end-of-file on its handler's side, and ended
    when it is still there ``grace`` later. Under TLS, OpenSSL 3 answers that end-of-file with a
    fatal alert, which the client reports as an error, unless the ``ssl_context`` has
    ``ssl.OP_IGNORE_UNEXPECTED_EOF`` (as that of ``--tls-cert`` has).

    :ivar first_byte: from its admission until the client's first byte. Ends who says nothing, not
        who says one byte and dawdles over the rest (slowloris): the last data is the client's, so
        that one is being answered as far as anybody can tell, and only ``lifetime``, or a timeout
        of the handler's own, ends it. Where the server greets first (SMTP, FTP, POP3, IMAP, SSH,
        MySQL) the client answers its greeting: the time must be longer than that takes, since it
        ends also one whose handler has yet to greet. Under TLS it is the first byte after the
        handshake, whose own time, bounded by ``handshake_timeout``, is included; where the handler
        does the handshake, the handshake's first byte is enough. Not for protocols in which the
        client only listens (daytime, a banner).
    :ivar idle: since the last data of either side, while nobody owes the client an answer: the
        last data was ours, or there was none. A handler that has yet to begin its answer is never
        ended by it. One that sends its answer in parts is, between two of them: once the first is
        out the last data is ours, and what is still to come nobody can know. Nor where the server
        pushes and the client may only listen (SSE, WebSocket, IRC, MQTT, database notifications):
        a connection is idle between two messages. The timeout must be longer than the longest
        pause inside an answer, and than the longest silence between messages. The protocol's own
        pings, either side's, are data and end a silence; TCP's keepalive does not.
        Where data of both sides fell into one tick (4 ms), the kernel's clocks do not tell which
        came last, and a connection is idle if its handler is seen to wait in a method of its
        socket. One that waits in ``gevent.select``, in a selector or in a ``dup()`` of the socket,
        and a thread (``serve --kind blocking``) in select, poll or TLS of its own, is not seen,
        and its client not idle then. One that reads on while the answer is computed (a relay,
        HTTP/2) is seen, and its client idle then: here too the timeout must be longer.
    :ivar lifetime: from its admission, whatever it does.
    :ivar keepalive: the kernel's probes of a silent peer; None: none.
    :ivar user_timeout: TCP_USER_TIMEOUT (tcp(7), Linux): how long what we sent may stay
        unacknowledged. Also ends a live client that merely does not read for so long, and takes
        the place of ``keepalive.count``. At most 2,147,483.
    :ivar grace: how long a handler may take to end after its end-of-file.
    :raises SettingError: a value that cannot be used.

    first_byte and idle need TCP_INFO: on a unix socket, and on systems other than Linux, only
    lifetime holds, and the others while a deferred start waits. A server logs which of them have
    no effect on it.
    """

    first_byte: float | None = None
    idle: float | None = None
    lifetime: float | None = None
    keepalive: Keepalive | None = Keepalive()
    user_timeout: float | None = None
    grace: float = 1.0

    def __post_init__(self) -> None:
        for setting in ("first_byte", "idle", "lifetime"):
            value = getattr(self, setting)
            if value is not None:
                check_seconds(value, setting)
        if self.user_timeout is not None:
            check_seconds(self.user_timeout, "user_timeout", MOST_USER_TIMEOUT_S)
        check_seconds(self.grace, "grace")
        if self.keepalive is not None and not isinstance(self.keepalive, Keepalive):
            raise SettingError("keepalive", self.keepalive, "must be Keepalive(...) or None")

    @property
    def shortest(self) -> float | None:
        """The shortest of those that a sweep watches; None: there is nothing to watch."""
        return min(filter(None, (self.first_byte, self.idle, self.lifetime)), default=None)

    def verdict(self, age: float, heard: bool | None, idle: float | None) -> Ending | None:
        """How to end a connection now; None: not at all.

        :param age: seconds since it was admitted.
        :param heard: whether any byte of the client's has come; None: the system cannot tell.
        :param idle: seconds for which it has been idle; None: it is not, or nobody can tell.
        """
        if self.lifetime is not None and age >= self.lifetime:
            return Ending.LIFETIME
        if self.first_byte is not None and heard is False and age >= self.first_byte:
            return Ending.FIRST_BYTE_TIMEOUT
        if self.idle is not None and idle is not None and idle >= self.idle:
            return Ending.IDLE_TIMEOUT
        return None


def sweep_every(shortest: float) -> float:
    """Seconds between two sweeps for timeouts of which ``shortest`` is the shortest."""
    return min(_LATEST_S, max(_SOONEST_S, shortest * _SHARE))
