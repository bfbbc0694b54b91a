"""Putting a program that was not written for it under a cap."""

from __future__ import annotations

import _socket
import logging
import os
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, Final

import gevent
import gevent.monkey

from gserver import slots
from gserver.admission.limits import Limits
from gserver.admission.verdict import Reason
from gserver.errors import SettingError
from gserver.idleness import warn_of_no_effect, without_effect
from gserver.legacy import readiness, signals, sockets, watch
from gserver.legacy.children import listen_for_ends
from gserver.legacy.holders import Holders
from gserver.legacy.listener import Listener
from gserver.legacy.service import Service
from gserver.legacy.timed import TimedSlot
from gserver.limiter import Limiter
from gserver.net.keepalive import set_inherited
from gserver.net.listeners import describe
from gserver.net.rejection import Refuse, Rejection, by_reason
from gserver.reaper import Reaper
from gserver.timeouts import Timeouts, check_seconds

__all__ = ["SETTLE_S", "Installed", "install"]

log = logging.getLogger("gserver")

#: How long a candidate at the cap may wait for a connection that is ending. Programs with a
#: thread a connection need nothing, asyncio 1 ms, a select loop nothing; one that forks, up to
#: 20 ms on a busy machine: give it 0.05 (bench/legacy_settle.py).
SETTLE_S: Final = 0.005

_installed: Installed | None = None


class Installed:
    """The cap of this process.

    :ivar limiter: its slots and books; ``limiter.max_connections`` may be set at any time.
    """

    def __init__(
        self,
        limiter: Limiter,
        rejections: Mapping[Reason, Rejection],
        service: Service,
        handshake_timeout: float | None,
        reap_after: float | None,
        timeouts: Timeouts,
        evict_idle: float | None,
    ) -> None:
        self.limiter = limiter
        self._timeouts = timeouts
        self._reaper = Reaper(timeouts, evict_idle)
        timed = self._reaper.wanted
        loop = gevent.get_hub().loop
        self.holders = (
            Holders(limiter, loop, TimedSlot, self._reaper.watch)
            if timed
            else Holders(limiter, loop)
        )
        if self._reaper.evicts:
            limiter.evictors.append(self._reaper)
        self._rejections = rejections
        self._service = service
        self._handshake_timeout = handshake_timeout
        sockets.patch(self.holders, self._listening, handshake_timeout, timed=timed)
        readiness.patch(self.holders)
        watch.name_unpatched_accepts()
        self._watch = watch.Watch(self.holders, service.uncapped, reap_after)

    def forked(self) -> None:
        """In a forked child: it has the same cap and books of its own."""
        self.holders.forked()
        for listener in self.holders.listeners():
            if isinstance(listener, Listener):
                listener.forked()
        self.limiter.forked()

    def _listening(self, raw: Any, frame: FrameType | None) -> Listener | None:
        if not self._service.includes(raw, frame):
            return None
        listener = Listener(
            raw.fileno(), self.holders, self._rejections, self._handshake_timeout, self._timeouts
        )
        unseen = without_effect(
            raw.family, self._timeouts, self._reaper.evict_idle, deferred_start=False
        )
        warn_of_no_effect(describe(listener.address), unseen)
        return listener


def install(
    max_connections: int | None = None,
    *,
    limits: Limits | None = None,
    limiter: Limiter | None = None,
    settle: float | None = None,
    rejection: Rejection | Mapping[str, Rejection] | None = None,
    only: Iterable[str] = (),
    handshake_timeout: float | None = 10.0,
    reap_after: float | None = None,
    timeouts: Timeouts | None = None,
    evict_idle: float | None = None,
) -> Installed:
    """Cap every connection that this process accepts on its service, from now on and for good.

    Call it after ``gevent.monkey.patch_all()`` and before the program is imported. What Python
    functions the program sets as signal handlers then run beside its connections, and what they
    raise is raised in its main greenlet (gserver/legacy/signals.py).

    :param max_connections: the cap, or
    :param limits: the cap and all the other rules, or
    :param limiter: one made by the caller, perhaps shared with a server of ours.
    :param settle: see :class:`gserver.Limiter`; :data:`SETTLE_S` by default, since a program
        with a thread a connection ends one some turns after its client has left.
    :param rejection: how the excess is turned away, as for :class:`gserver.StreamServer`, but
        for ``Refuse()``: the program's own select would see its listener shut, and spin.
    :param only: the listeners that count (``:8999``, ``127.0.0.1:8999``, ``unix:/path``); by
        default the first that is not internal, and others with its port.
    :param handshake_timeout: seconds a TLS client has for its handshake; None: for ever.
    :param reap_after: seconds after which a connection whose client has left, and that the
        program has not closed, is shut down for it; None: never.
    :param timeouts: when to end the admitted, as for :class:`gserver.StreamServer`; by default
        only vanished peers are found. The program sees an end-of-file, and a ``grace`` later its
        connection is cut off; the slot comes back when it closes it, as always.
    :param evict_idle: at the cap, the connection idle longest makes room for a newcomer, if idle
        for so many seconds; None: never.
    :raises SettingError: a value that cannot be used; sockets or threads that are not patched;
        a second call.
    """
    global _installed
    if _installed is not None:
        raise SettingError("max_connections", max_connections, "this process has a cap already")
    for module in ("socket", "threading", "select"):
        if not gevent.monkey.is_module_patched(module):
            raise SettingError(
                "max_connections",
                max_connections,
                f"the program's {module} is not patched: gevent.monkey.patch_all() comes first",
            )
    rejections = by_reason(rejection)
    if isinstance(rejections[Reason.CAPACITY], Refuse):
        raise SettingError(
            "rejection",
            rejections[Reason.CAPACITY],
            "the program's own select would see its listener shut, and spin; "
            "give close, reset or reply",
        )
    given = [it for it in (max_connections, limits, limiter) if it is not None]
    if len(given) != 1:
        raise SettingError("max_connections", max_connections, "give it, or limits, or a limiter")
    if limiter is None:
        if settle is None:
            settle = 0.0 if limits is not None and limits.wait else SETTLE_S
        limiter = Limiter(limits or slots.check_cap(max_connections), settle=settle)
    elif settle is not None:
        raise SettingError("settle", settle, "the limiter has its own")
    if reap_after is not None:
        check_seconds(reap_after, "reap_after")
    if handshake_timeout is not None:
        check_seconds(handshake_timeout, "handshake_timeout")
    timeouts = Timeouts() if timeouts is None else timeouts
    tried = _socket.socket()
    try:
        set_inherited(tried, timeouts)  # what the system has not is found here, not in listen()
    finally:
        tried.close()
    if evict_idle is not None and limiter.limits.wait:
        raise SettingError("evict_idle", evict_idle, "goes without wait")
    _installed = Installed(
        limiter, rejections, Service(only), handshake_timeout, reap_after, timeouts, evict_idle
    )
    for name in watch.early_imports():
        log.warning("%s is the socket class of before the patching: it escapes the cap", name)
    os.register_at_fork(before=listen_for_ends, after_in_child=_installed.forked)
    signals.deliver_to_main()
    return _installed
