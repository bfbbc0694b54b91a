"""The audit: slots compared with open sockets. It finds leaks; nothing depends on it."""

from __future__ import annotations

import _socket
import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any

from gserver import slots
from gserver.limiter import Limiter
from gserver.stats import Audit

__all__ = ["Auditor"]

log = logging.getLogger("gserver")

_BATCH = 256  # descriptors looked at between two pauses: about 0.5 ms


class Auditor:
    """Audits one limiter. A suspect is a leak when two audits in a row find it: a connection
    that is just ending can look like one."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._suspect_inodes: set[int] = set()
        self._suspect_slots: set[int] = set()

    def audit(
        self,
        *listeners: Any,
        lingering: Iterable[int] = (),
        pause: Callable[[], object] | None = None,
    ) -> Audit:
        """Compare, log a leak that is new, and leave the result in the limiter's counters.

        :param listeners: the listening sockets whose clients count.
        :param lingering: descriptors of clients that are being told that the server is busy.
        :param pause: called every few hundred descriptors, to let the loop turn.
        :raises OSError: the process's descriptors cannot be listed: that takes a free one.
        """
        limiter = self._limiter
        addresses = {_key(sock.getsockname()) for sock in listeners if sock is not None}
        owned = {*limiter.descriptors(), *lingering}
        for connection in limiter.connections:
            owned.update(connection.descriptors())
        inodes = _connected_to(addresses, owned, pause)
        if inodes:  # a handler may have a descriptor of its own for its connection: dup(2)
            inodes -= _inodes_of(owned, pause)
        leaked_sockets = len(inodes & self._suspect_inodes)
        self._suspect_inodes = inodes

        dead = {id(g) for g in limiter.pool.greenlets if getattr(g, "dead", False)}
        leaked_slots = len(dead & self._suspect_slots)
        self._suspect_slots = dead

        result = Audit(leaked_slots, leaked_sockets, slots.semaphore_error(limiter.pool))
        if result != limiter.counters.audit and not result.clean:
            log.error(
                "leak: %d slots held by nothing, %d sockets open without a slot, "
                "semaphore off by %d",
                result.leaked_slots,
                result.leaked_sockets,
                result.semaphore_error,
            )
        limiter.counters.audit = result
        return result


def _inodes_of(descriptors: Iterable[int], pause: Callable[[], object] | None) -> set[int]:
    """Of those that are still open."""
    found = set()
    for index, fd in enumerate(descriptors):
        if pause is not None and index % _BATCH == _BATCH - 1:
            pause()
        with contextlib.suppress(OSError):
            found.add(os.fstat(fd).st_ino)
    return found


def _connected_to(
    addresses: set[Any], owned: set[int], pause: Callable[[], object] | None
) -> set[int]:
    """Inodes of this process's sockets that were accepted from a listener at one of
    ``addresses`` and are not in ``owned``."""
    found = set()
    for index, name in enumerate(os.listdir("/dev/fd")):
        if pause is not None and index % _BATCH == _BATCH - 1:
            pause()
        fd = int(name)
        if fd in owned:
            continue
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            sock = _socket.socket(fileno=fd)
        except OSError:
            continue  # closed meanwhile: the listing's own descriptor, for one
        try:
            sock.getpeername()  # a listener has none
            local = _key(sock.getsockname())
        except OSError:
            continue
        finally:
            sock.detach()
        # A client in this process has the address as its peer's, not as its own.
        if local in addresses or (isinstance(local, tuple) and _wildcard(local) in addresses):
            found.add(status.st_ino)
    return found


def _key(address: Any) -> Any:
    """An address to compare: family (by its length), host, port and scope; or a path."""
    if not isinstance(address, tuple):
        return address
    host, port, *rest = address
    return len(address), host, port, rest[1] if rest else 0


def _wildcard(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return key[0], "0.0.0.0" if key[0] == 2 else "::", key[2], 0
