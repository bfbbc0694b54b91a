"""Several processes that accept on one listener: each counts for itself, which is told once."""

from __future__ import annotations

import logging
import mmap
import os
from typing import Any

from gserver.net.listeners import describe

__all__ = ["Prefork"]

log = logging.getLogger("gserver")


class Prefork:
    """Of one listener in this process, and after a fork of the child."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._parent = 0
        self._told: mmap.mmap | None = None  # one byte, shared with the parent
        self._tells = mmap.mmap(-1, 1)  # and one with each child

    @property
    def children_accept(self) -> bool:
        """Whether a child of this process accepts on the listener."""
        return bool(self._tells[0])

    def forked(self) -> None:
        """In a forked child."""
        # Not getppid(): the parent may have left by now, and have been replaced.
        self._parent, self._process = self._process, os.getpid()
        self._told, self._tells = self._tells, mmap.mmap(-1, 1)

    def accepts(self, address: Any, cap: int) -> None:
        """This process, forked with the listener in its hands, accepts on it for the first time."""
        # A parent that has left, as when a program goes to the background, accepts nothing.
        if self._told is None or self._told[0] or os.getppid() != self._parent:
            return
        self._told[0] = 1
        log.warning(
            "several processes share the listener %s (this is %d, forked by %d): each has the cap "
            "of %d for itself, and together they serve as many times more clients as they are",
            describe(address),
            os.getpid(),
            self._parent,
            cap,
        )
