"""`gserver serve`: one cap, its listeners, a handler, until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
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
from gserver.net.proxies import DEFAULT_TIMEOUT_S, Proxies
from gserver.net.rejection import Rejection
from gserver.server import StreamServer

__all__ = ["ServeSettings", "serve"]

log = logging.getLogger("gserver")

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
    proxies: Proxies | None


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
    limiter = Limiter(settings.max_connections, settle=settings.settle)
    ensure_descriptors(settings.max_connections)
    with _listening(settings) as listeners:
        servers = [_AdoptingServer(listener, handler, settings, limiter) for listener in listeners]
        stopping = Event()
        loop = gevent.get_hub().loop
        stop.notify(lambda: loop.run_callback_threadsafe(stopping.set))
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
            for server in servers:
                server.stop(timeout=0)


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
        raw, proxies = listener.socket, settings.proxies
        self.backlog = settings.backlog
        super().__init__(
            GeventSocket(raw.family, raw.type, raw.proto, fileno=raw.detach()),
            handler,
            rejection=settings.rejection,
            limiter=limiter,
            proxy_protocol_from=proxies.networks if proxies else None,
            proxy_timeout=proxies.timeout if proxies else DEFAULT_TIMEOUT_S,
        )


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
