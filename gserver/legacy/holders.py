"""Whose descriptor is whose: the slot of an accepted connection lives with its descriptor.

A program that was never written for a cap hands its sockets around: wraps them in TLS, detaches
and rewraps them, duplicates them, forgets them, closes their number behind their back. The one
thing that lasts as long as the connection is its open file in the kernel, known by its inode. So
a :class:`Held` counts the descriptors that lead to that file, and a slot comes back when there
is none left in this process or, after a fork, in its children.
"""

from __future__ import annotations

import _socket
import os
import stat
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Final

from gserver import slots
from gserver.admission.verdict import Receipt
from gserver.legacy.children import Children
from gserver.limiter import Limiter
from gserver.stats import Ending

__all__ = ["Followed", "Holders", "Slot"]

#: Seconds between two sweeps for descriptors that were closed where nobody could see it, and at
#: least this many times as long as the last one took (10,000 descriptors: about 15 ms).
SWEEP_S: Final = 0.25
_SWEEP_SHARE: Final = 20

_CLOSE_TURNS: Final = 10  # of the loop; later, a sweep finds it

_accept: Final = _socket.socket._accept  # type: ignore[attr-defined]  # not in the stubs


class Followed:
    """A socket in the kernel, and the descriptors of this process that lead to it.

    :ivar inode: of the socket: what tells it from a later one with the same number.
    :ivar owners: for each descriptor the number of socket objects that own it; 0 is an open
        descriptor without one (after ``detach()`` or ``os.dup()``).
    """

    __slots__ = ("inode", "owners")

    def __init__(self) -> None:
        self.inode = 0
        self.owners: dict[int, int] = {}

    def adopted(self, fd: int) -> None:
        """One more socket object owns ``fd``."""
        self.owners[fd] = self.owners.get(fd, 0) + 1

    def detached(self, fd: int) -> None:
        """A socket object let go of ``fd`` without closing it."""
        if self.owners.get(fd, 0) > 0:
            self.owners[fd] -= 1

    def closing(self) -> None:
        """A descriptor is about to be closed."""

    def closed(self, fd: int) -> None:
        """The descriptor ``fd`` is closed, whoever else thought to own it."""
        if self.owners.pop(fd, None) is not None and not self.owners:
            self.gone()

    def gone(self) -> None:
        """The last descriptor is closed."""

    def accept(self, raw: Any) -> tuple[int, Any]:
        """``raw._accept()``, as the program calls it on a listener."""
        found: tuple[int, Any] = _accept(raw)
        return found

    def open_descriptors(self) -> list[int]:
        """Those of :attr:`owners` that still lead here; the others are forgotten."""
        for fd in list(self.owners):
            if _inode(fd) != self.inode:
                del self.owners[fd]
        return list(self.owners)


class Slot(Followed):
    """One of the cap's places, held by an accepted connection until it is closed everywhere.

    :ivar ending: what the books will say of it.
    """

    __slots__ = ("_holders", "address", "ending", "receipt")
    server: Final = None  # none of ours, and no greenlet: the program serves it
    greenlet: Final = None

    def __init__(self, holders: Holders, address: Any, receipt: Receipt) -> None:
        self.inode = 0
        self.owners = {}
        self._holders: Holders | None = holders
        self.address = address
        self.receipt = receipt
        self.ending = Ending.RETURNED

    # gserver.slots.Holder: this ends when its descriptors do, and calls no links
    def rawlink(self, callback: Any, /) -> None: ...

    def unlink(self, callback: Any, /) -> None: ...

    # what the limiter's other users ask of a connection
    @property
    def socket(self) -> Slot:
        """Something with the ``fileno()`` of the connection."""
        return self

    def fileno(self) -> int:
        return next(iter(self.owners), -1)

    def descriptors(self) -> tuple[int, ...]:
        return tuple(self.owners)

    def gone(self) -> None:
        holders = self._holders
        if holders is not None and not (holders.children and holders.children.keep(self)):
            self.give_back()

    def give_back(self) -> None:
        """The slot comes back, once."""
        holders, self._holders = self._holders, None
        if holders is not None:
            holders.released(self)


class Holders:
    """What is followed in this process.

    :param loop: gevent's, of the thread that serves.
    :param make_slot: makes the slot of a connection.
    :param taken: called with each.
    """

    def __init__(
        self,
        limiter: Limiter,
        loop: Any,
        make_slot: Callable[[Holders, Any, Receipt], Slot] = Slot,
        taken: Callable[[Any], object] | None = None,
    ) -> None:
        self.limiter = limiter
        self._make_slot = make_slot
        self._taken = taken
        self.children = Children()
        self._loop = loop
        self._fresh: dict[int, Slot] = {}  # accepted, with no socket object yet
        self._by_inode: dict[int, Followed] = {}
        self._next_sweep = 0.0

    # ---- beginnings ------------------------------------------------------------------------

    def accepted(self, fd: int, address: Any, receipt: Receipt) -> Slot:
        """Take a slot for ``fd``, accepted just now. When it raises no slot is held."""
        slot = self._make_slot(self, address, receipt)
        slots.take(self.limiter.pool, slot)
        self.limiter.connections.add(slot)
        if self._taken is not None:
            self._taken(slot)
        slot.owners[fd] = 0
        self._fresh[fd] = slot
        return slot

    def follow(self, followed: Followed, fd: int) -> None:
        """Follow a listener that a socket object owns as ``fd``."""
        followed.inode = _inode(fd)
        followed.owners[fd] = 1
        self._by_inode[followed.inode] = followed

    def adopt(self, fd: int) -> Followed | None:
        """A socket object was made of ``fd``: what it belongs to, if it is followed."""
        slot = self._fresh.pop(fd, None)
        if slot is not None:
            inode = slot.inode = os.fstat(fd).st_ino
            slot.owners[fd] = 1
            self._by_inode[inode] = slot
            return slot
        followed = self.at(fd)
        if followed is not None:
            followed.adopted(fd)
        return followed

    def at(self, fd: int) -> Followed | None:
        """What the open descriptor ``fd`` leads to, if it is followed."""
        if fd in self._fresh:
            return self._fresh[fd]
        return self._by_inode.get(_inode(fd)) if self._by_inode else None

    # ---- endings ---------------------------------------------------------------------------

    def finalized(self, followed: Followed, fd: int) -> None:
        """A socket object was collected, and ``fd`` closed with it. The collector may run
        anywhere, in any thread: what follows from it happens in the loop."""
        self._loop.run_callback_threadsafe(followed.closed, fd)

    def unserved(self, fd: int) -> None:
        """Close ``fd``, accepted and with no socket object yet: nobody will make one."""
        _socket.close(fd)
        slot = self._fresh.pop(fd, None)
        if slot is not None:  # it may have been reaped
            slot.ending = Ending.KILLED
            slot.closed(fd)

    def closed_soon(self, followed: Followed, fd: int) -> None:
        """``fd`` was closed with gevent's ``os.close``, which closes only after the loop's next
        poll: then, and not before, is the connection closed."""
        timer = self._loop.timer(0.0)
        turns = 0

        def look() -> None:
            nonlocal turns
            turns += 1
            if (open_still := _inode(fd) == followed.inode) and turns < _CLOSE_TURNS:
                timer.start(look)
                return
            timer.stop()
            timer.close()
            if not open_still:
                followed.closed(fd)

        look()

    def forget(self, followed: Followed) -> None:
        """A listener is gone."""
        self._by_inode.pop(followed.inode, None)

    def released(self, slot: Slot) -> None:
        """A slot comes back."""
        self._by_inode.pop(slot.inode, None)
        for fd in slot.owners:  # given back while it is open
            self._fresh.pop(fd, None)
        limiter = self.limiter
        limiter.ended(slot, slot, slot.receipt, slot.ending)

    def sweep(self) -> int:
        """Give back the slots whose descriptors were closed where nobody could see it, by a C
        library or with ``os.close`` under another name. Returns how many. Not more often than
        :data:`SWEEP_S`."""
        now = monotonic()
        if now < self._next_sweep:
            return 0
        lost = [slot for slot in self.slots() if slot.inode and not slot.open_descriptors()]
        if lost:
            inodes = {_inode(int(name)): int(name) for name in os.listdir("/dev/fd")}
            for slot in lost:
                if slot.inode in inodes:  # duplicated where nobody could see it
                    slot.owners[inodes[slot.inode]] = 0
                else:
                    slot.gone()
        self.children.look()
        took = monotonic() - now
        self._next_sweep = now + max(SWEEP_S, _SWEEP_SHARE * took)
        return len(lost)

    def slots(self) -> Iterator[Slot]:
        """The slots held, at this instant."""
        yield from list(self._fresh.values())
        yield from [held for held in self._by_inode.values() if isinstance(held, Slot)]

    def forked(self) -> None:
        """In a forked child: what is held is the parent's, this process counts its own."""
        self.children.forget()
        for slot in self.slots():
            slot.give_back()

    def listeners(self) -> Iterator[Followed]:
        """What is followed besides slots."""
        yield from [held for held in self._by_inode.values() if not isinstance(held, Slot)]


def _inode(fd: int) -> int:
    """The inode of the socket at ``fd``; 0 when there is no socket."""
    try:
        status = os.fstat(fd)
    except OSError:
        return 0
    return status.st_ino if stat.S_ISSOCK(status.st_mode) else 0
