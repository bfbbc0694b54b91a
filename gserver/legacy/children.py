"""Fork per connection: the parent closes its copy, and the child goes on serving.

The slot of a connection that a child still has open stays taken until the child closes it or
ends. Which descriptors a child has is in ``/proc/PID/fd`` (proc(5)); that it has ended is told
by a pidfd (pidfd_open(2), Linux 5.3), whoever reaps it.
"""

from __future__ import annotations

import _socket
import logging
import os
from typing import TYPE_CHECKING, Any

import gevent

if TYPE_CHECKING:
    from gserver.legacy.holders import Slot

__all__ = ["Children", "listen_for_ends"]

log = logging.getLogger("gserver")


class _Child:
    """A child that is alive.

    :ivar inherited: slots whose descriptors it got by the fork.
    :ivar kept: those that the parent has closed since.
    """

    __slots__ = ("inherited", "kept", "pid", "pidfd", "watcher")

    def __init__(self, pid: int, pidfd: int, inherited: set[Slot], watcher: Any) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.watcher = watcher
        self.inherited = inherited
        self.kept: set[Slot] = set()

    def open_inodes(self) -> set[str]:
        """``socket:[inode]`` of each socket it has open."""
        found: set[str] = set()
        try:
            names = os.listdir(f"/proc/{self.pid}/fd")
        except OSError:
            return found
        for name in names:
            try:
                found.add(os.readlink(f"/proc/{self.pid}/fd/{name}"))
            except OSError:
                pass  # closed meanwhile
        return found


def listen_for_ends() -> None:
    """Before a fork: hear of SIGCHLD from here on. gevent begins to when it has forked, and its
    ``waitpid`` would wait for ever for a child that had ended by then."""
    loop = gevent.get_hub().loop
    if loop.default:  # in other threads gevent watches no children
        loop.install_sigchld()


class Children:
    """The children that may have connections of this process open."""

    def __init__(self) -> None:
        self._children: dict[int, _Child] = {}
        self._warned = False

    def __bool__(self) -> bool:
        return bool(self._children)

    def forked(self, pid: int, held: set[Slot]) -> None:
        """A child was made while ``held`` were open."""
        if not held:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already, and has nothing open
            return
        except (AttributeError, OSError) as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "this system does not tell when a child ends (%s): connections that children "
                    "serve after this process has closed them do not count against the cap",
                    error,
                )
            return
        watcher = gevent.get_hub().loop.io(pidfd, 1, False)  # ref=False: keeps no program alive
        child = self._children[pid] = _Child(pid, pidfd, held, watcher)
        watcher.start(self._ended, child)

    def keep(self, slot: Slot) -> bool:
        """This process has closed ``slot``: whether a child still has it open. Then it is
        given back by :meth:`look` or when the child ends."""
        kept = False
        for child in list(self._children.values()):
            if slot in child.inherited and f"socket:[{slot.inode}]" in child.open_inodes():
                child.kept.add(slot)
                kept = True
        return kept

    def look(self) -> None:
        """Give back what children have closed since, though they are alive."""
        for child in list(self._children.values()):
            if child.kept:
                inodes = child.open_inodes()
                for slot in [s for s in child.kept if f"socket:[{s.inode}]" not in inodes]:
                    child.kept.discard(slot)
                    self._release(slot)

    def _ended(self, child: _Child) -> None:
        self._drop(child)
        for slot in child.kept:
            self._release(slot)

    def _release(self, slot: Slot) -> None:
        if not slot.owners and not any(slot in child.kept for child in self._children.values()):
            slot.give_back()

    def _drop(self, child: _Child) -> None:
        self._children.pop(child.pid, None)
        child.watcher.stop()
        child.watcher.close()
        _socket.close(child.pidfd)  # never gevent's: it may switch greenlets

    def forget(self) -> None:
        """In a child: its parent's other children are not its own."""
        for child in list(self._children.values()):
            self._drop(child)
