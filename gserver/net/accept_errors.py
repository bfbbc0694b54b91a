"""What to do about an error of ``accept()``: one of four fates, as data.

Sources: accept(2), which says of Linux that it passes pending network errors of the new socket
and that they are to be treated like EAGAIN; POSIX accept(); ``inet_csk_accept`` in the kernel's
net/ipv4/inet_connection_sock.c.
"""

from __future__ import annotations

import enum
import errno
from typing import Final

__all__ = ["Fate", "fate_of"]


class Fate(enum.Enum):
    """What an accept loop does next."""

    SKIP = enum.auto()  # that client is gone already: take the next one, never pause
    NO_DESCRIPTORS = enum.auto()  # answer with the reserved descriptor (G6)
    BACK_OFF = enum.auto()  # the kernel is short of memory, or unknown: wait, bounded, then again
    FATAL = enum.auto()  # the listener is no listener any more


_SKIP: Final = (
    "ECONNABORTED",  # the client was reset while it waited in the queue
    "EINTR",
    "EPROTO",
    # accept(2): "already-pending network errors on the new socket"
    "ENETDOWN",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "EOPNOTSUPP",
    "ENETUNREACH",
    "ETIMEDOUT",
    "EPERM",  # accept(2): firewall rules forbid the connection
)

_FATES: Final = (
    {getattr(errno, name): Fate.SKIP for name in _SKIP if hasattr(errno, name)}
    | {errno.EMFILE: Fate.NO_DESCRIPTORS, errno.ENFILE: Fate.NO_DESCRIPTORS}
    | {errno.ENOBUFS: Fate.BACK_OFF, errno.ENOMEM: Fate.BACK_OFF}
    | {errno.EBADF: Fate.FATAL, errno.EINVAL: Fate.FATAL, errno.ENOTSOCK: Fate.FATAL}
)


def fate_of(error: OSError) -> Fate:
    """The fate of an error that ``accept()`` raised, EAGAIN excepted. Unknown ones back off."""
    return _FATES.get(error.errno or 0, Fate.BACK_OFF)
