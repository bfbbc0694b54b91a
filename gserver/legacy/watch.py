"""What a program does that its cap cannot see or cannot help, told in the log.

- Connections whose client has left and that the program has not closed (CLOSE_WAIT). Their slots
  stay taken, rightly: a client may shut its sending side and go on reading. But a loop variable
  that keeps the last connection alive makes a cap of N one of N-1, and one of 1 a closed door.
- Sockets that escape: made by the unpatched class that a module imported too early, or accepted
  by a C extension.
"""

from __future__ import annotations

import _socket
import logging
import os
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Final

import gevent
import gevent.monkey

from gserver.audit import Auditor
from gserver.legacy.holders import Holders, Slot
from gserver.legacy.listener import Listener
from gserver.net.listeners import describe
from gserver.stats import Ending

__all__ = ["Watch", "early_imports", "name_unpatched_accepts"]

log = logging.getLogger("gserver")

_TICK_S: Final = 5.0
_ESCAPES_EVERY: Final = 6  # ticks: the look at all descriptors takes 15 ms at 10,000
_CLOSE_WAIT: Final = 8  # TCP_CLOSE_WAIT in the kernel's include/net/tcp_states.h
#: Extensions that accept connections by themselves.
_NATIVE: Final = ("uvloop", "grpc", "zmq", "bjoern", "pyuv")


class Watch:
    """Looks now and then, in a greenlet of its own that keeps no program alive.

    :param uncapped: the addresses of listeners that are known and not capped, as written.
    :param reap_after: seconds after which a connection in CLOSE_WAIT is shut down and its slot
        given back; None: never. The check comes every five seconds, or that often.
    """

    def __init__(
        self,
        holders: Holders,
        uncapped: Callable[[], frozenset[str]],
        reap_after: float | None = None,
    ) -> None:
        self._holders = holders
        self._uncapped = uncapped
        self._reap_after = reap_after
        self._auditor = Auditor(holders.limiter)
        self._since: dict[Slot, float] = {}
        self._told: set[str] = set()
        self._ticks = 0
        self._timer: Any = None
        self.start()

    def start(self) -> None:
        period = _TICK_S if self._reap_after is None else min(_TICK_S, self._reap_after)
        self._timer = gevent.get_hub().loop.timer(period, period, False)
        self._timer.start(gevent.spawn_raw, self._tick)

    def _tick(self) -> None:
        self._ticks += 1
        if self._holders.limiter.full:
            self.look_for_left_clients(monotonic())
        else:
            self._since.clear()
        if self._ticks % _ESCAPES_EVERY == 1:
            self.look_for_escapes()

    # ---- CLOSE_WAIT ------------------------------------------------------------------------

    def look_for_left_clients(self, now: float) -> None:
        """Note the slots in CLOSE_WAIT; tell of those found twice, reap those found for long."""
        left = {slot for slot in self._holders.slots() if _state(slot.fileno()) == _CLOSE_WAIT}
        self._since = {slot: self._since.get(slot, now) for slot in left}
        staying = [slot for slot, since in self._since.items() if since < now]
        if staying:
            limiter = self._holders.limiter
            self._tell(
                f"{len(staying)} of {limiter.max_connections} slots are held by connections whose "
                "client has left and that the program has not closed (CLOSE_WAIT); a variable "
                "that keeps the last connection, as in `while True: conn, addr = accept()`, is "
                "enough"
            )
        if self._reap_after is not None:
            for slot in staying:
                if now - self._since[slot] >= self._reap_after:
                    self._reap(slot)

    def _reap(self, slot: Slot) -> None:
        view = _view(slot.fileno())  # in CLOSE_WAIT just now
        try:
            view.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass  # it ends just now
        finally:
            view.detach()
        slot.ending = Ending.PEER_GONE
        slot.give_back()

    # ---- escapes ---------------------------------------------------------------------------

    def look_for_escapes(self) -> None:
        """Tell of listeners and connections that are not counted."""
        listeners = [it for it in self._holders.listeners() if isinstance(it, Listener)]
        known = self._uncapped() | {describe(it.address) for it in listeners}
        for address in _listening_addresses():
            if address not in known:
                self._tell(f"{address} is not capped: no socket of Python's listens there")
        audit = self._auditor.audit(
            *(it.view for it in listeners),
            lingering={fd for it in listeners for fd in it.lingering_descriptors()},
        )
        if audit.leaked_sockets:
            native = [name for name in _NATIVE if name in sys.modules]
            self._tell(
                "connections that were accepted elsewhere than in Python's sockets are not counted"
                + (f"; {', '.join(native)} can do that" if native else "")
            )

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.warning(line)


def _state(fd: int) -> int:
    """The TCP state of ``fd``; 0 for what is no TCP socket, or not on Linux."""
    if fd < 0 or sys.platform != "linux":
        return 0
    try:
        view = _view(fd)
    except OSError:  # closed where nobody saw it
        return 0
    try:
        return view.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 1)[0]
    except OSError:
        return 0
    finally:
        view.detach()


def _view(fd: int) -> _socket.socket:
    # Family and type given: the constructor makes no system call, and neither is looked at.
    return _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fd)


def _listening_addresses() -> Iterator[str]:
    for name in os.listdir("/dev/fd"):
        try:
            view = _socket.socket(fileno=int(name))
        except OSError:
            continue
        try:
            if view.type == _socket.SOCK_STREAM and view.getsockopt(
                _socket.SOL_SOCKET, _socket.SO_ACCEPTCONN
            ):
                yield describe(view.getsockname())
        except OSError:
            pass
        finally:
            view.detach()


# ---- the unpatched class -----------------------------------------------------------------------


def early_imports() -> list[str]:
    """Where the program has the unpatched socket class: ``module.name``, for each."""
    original = gevent.monkey.get_original("socket", "socket")
    found = []
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] in ("socket", "ssl", "gevent", "gserver"):
            continue
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if isinstance(value, type) and issubclass(value, original):
                found.append(f"{module_name}.{name}")
    return sorted(found)


def name_unpatched_accepts() -> None:
    """Have the unpatched class tell, once a module, who accepts with it."""
    original: Any = gevent.monkey.get_original("socket", "socket")
    accept = original.accept
    told = set()

    def telling_accept(self: Any) -> Any:
        module = sys._getframe(1).f_globals.get("__name__", "?")
        if module not in told:
            told.add(module)
            log.warning(
                "%s accepts with the socket class of before the patching: that escapes the cap, "
                "and stops everything while it waits",
                module,
            )
        return accept(self)

    original.accept = telling_accept
