"""`gserver serve`: one cap, its listeners, a handler, until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.socket import socket as GeventSocket

from gserver.audit import Auditor
from gserver.daemon.descriptors import ensure_descriptors
from gserver.daemon.output import BackgroundWriter
from gserver.daemon.signals import StopSignals
from gserver.limiter import Limiter
from gserver.net.listeners import Listener, describe, open_listeners
from gserver.net.rejection import Rejection
from gserver.server import StreamServer

__all__ = ["ServeSettings", "serve"]

log = logging.getLogger("gserver")

_READ: Final = 1  # gevent's number for it
_AUDIT_EVERY_S: Final = 60.0
_KILL_S: Final = 1.0  # for the killed to end, once the drain's time is over


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What to serve. Times in seconds."""

    listen: Sequence[str]
    max_connections: int
    rejection: Rejection
    settle: float
    backlog: int
    drain_timeout: float


def serve(
    settings: ServeSettings,
    handler: Callable[[Any, Any], object],
    stop: StopSignals,
    out: BackgroundWriter,
) -> None:
    """Serve until a signal, then drain; returns when nothing is left.

    :raises SettingError: it cannot start; nothing is left open.
    """
    gevent.config.track_greenlet_tree = False  # a third off the cost of a connection's greenlet
    ensure_descriptors(settings.max_connections)
    limiter = Limiter(settings.max_connections, settle=settings.settle)
    with contextlib.ExitStack() as stack:
        listeners = stack.enter_context(_listening(settings))
        servers = [_AdoptingServer(listener, handler, settings, limiter) for listener in listeners]
        stopping = stack.enter_context(_event_of(stop))
        auditing = gevent.spawn(_audit_for_ever, limiter, servers)
        try:
            for server in servers:
                server.start()
            where = ", ".join(describe(server.address) for server in servers)
            out.write(
                f"gserver: listening on {where}; cap {settings.max_connections}; "
                f"the excess is turned away by {settings.rejection.name}\n"
            )
            stopping.wait()
            _drain(servers, limiter, settings.drain_timeout, stop)
        finally:
            auditing.kill()
            # Not stop(): for each server that would wait once more for the killed to end.
            for server in servers:
                server.close()


class _AdoptingServer(StreamServer):
    """Serves on a listener that was opened beforehand, so that all are opened or none. The
    descriptor is the server's from then on; the unix socket's file stays the listener's."""

    def __init__(
        self,
        listener: Listener,
        handler: Callable[[Any, Any], object],
        settings: ServeSettings,
        limiter: Limiter,
    ) -> None:
        raw = listener.socket
        self.backlog = settings.backlog
        super().__init__(
            GeventSocket(raw.family, raw.type, raw.proto, fileno=raw.detach()),
            handler,
            rejection=settings.rejection,
            limiter=limiter,
        )


@contextlib.contextmanager
def _event_of(stop: StopSignals) -> Iterator[Event]:
    """An event that the first signal sets.

    When a signal comes the interpreter only notes it, and runs its handler at the next bytecode.
    Noted just before the loop enters its poll, that is after the poll's next event: 1 SIGTERM in
    100 was so lost to a server without clients (tests/test_signals.py). The interpreter's wakeup
    descriptor, written to along with the note, is such an event.
    """
    event = Event()
    loop = gevent.get_hub().loop
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    watcher = loop.io(reader, _READ)
    watcher.start(lambda: os.read(reader, 4096))
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stop.notify(lambda: loop.run_callback_threadsafe(event.set))
    try:
        yield event
    finally:
        signal.set_wakeup_fd(previous)
        watcher.stop()
        watcher.close()
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def _listening(settings: ServeSettings) -> Iterator[list[Listener]]:
    with contextlib.ExitStack() as stack:
        listeners = []
        for text in settings.listen:
            for listener in open_listeners(text, settings.backlog):
                stack.callback(listener.close)
                listeners.append(listener)
        yield listeners


def _drain(
    servers: Sequence[StreamServer], limiter: Limiter, timeout: float, stop: StopSignals
) -> None:
    """Stop admitting, let the admitted finish, kill those that have not when time is over."""
    began = monotonic()
    active = len(limiter.pool)
    log.info(
        "%s: no longer admitting; %d active, %g s to finish",
        stop.received.name if stop.received else "stop",
        active,
        timeout,
    )
    for server in servers:
        server.close()
    limiter.pool.join(timeout=timeout)
    left = len(limiter.pool)
    if left:
        limiter.pool.kill(timeout=_KILL_S)
    log.info("drained in %.1f s: %d finished, %d killed", monotonic() - began, active - left, left)


def _audit_for_ever(limiter: Limiter, servers: Sequence[StreamServer]) -> None:
    auditor = Auditor(limiter)
    while True:
        gevent.sleep(_AUDIT_EVERY_S)
        listeners = [getattr(server, "socket", None) for server in servers]
        auditor.audit(*listeners, pause=partial(gevent.sleep, 0))
