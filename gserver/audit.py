"""The audit: slots compared with open sockets. It finds leaks; nothing depends on it."""

from __future__ import annotations

import _socket
import logging
import os
import stat
from collections.abc import Callable
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

    def audit(self, *listeners: Any, pause: Callable[[], object] | None = None) -> Audit:
        """Compare, log a leak that is new, and leave the result in the limiter's counters.

        :param listeners: the listening sockets whose clients count.
        :param pause: called every few hundred descriptors, to let the loop turn.
        """
        limiter = self._limiter
        addresses = {sock.getsockname() for sock in listeners if sock is not None}
        owned = set(limiter.descriptors())
        for connection in limiter.connections:
            owned.update(connection.descriptors())
        inodes = _connected_to(addresses, owned, pause)
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


def _connected_to(
    addresses: set[Any], owned: set[int], pause: Callable[[], object] | None
) -> set[int]:
    """Inodes of this process's sockets that were accepted from a listener at one of
    ``addresses`` and are not in ``owned``."""
    ports = {address[1] for address in addresses if isinstance(address, tuple)}
    paths = {address for address in addresses if not isinstance(address, tuple)}
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
            local = sock.getsockname()
        except OSError:
            continue
        finally:
            sock.detach()
        # A client in this process has the port as its peer's, not as its own.
        if (local[1] in ports) if isinstance(local, tuple) else (local in paths):
            found.add(status.st_ino)
    return found
