"""`gserver serve`: one cap, its listeners, a handler, until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.socket import socket as GeventSocket

from gserver.audit import Auditor
from gserver.daemon.descriptors import ensure_descriptors
from gserver.daemon.output import BackgroundWriter
from gserver.daemon.reload import reload_on_hangup
from gserver.daemon.signals import StopSignals
from gserver.drain import drain_servers
from gserver.limiter import Limiter
from gserver.net.listeners import Listener, describe, open_listeners
from gserver.net.rejection import Rejection
from gserver.server import StreamServer
from gserver.timeouts import Timeouts
from gserver.tls_files import TlsFiles

__all__ = ["ServeSettings", "serve"]

log = logging.getLogger("gserver")

_AUDIT_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What to serve. Times in seconds."""

    listen: Sequence[str]
    max_connections: int
    rejection: Rejection
    settle: float
    backlog: int
    drain_timeout: float
    timeouts: Timeouts
    evict_idle: float | None
    deferred_start: bool
    tls: TlsFiles | None
    handshake_timeout: float


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
    tls = {} if settings.tls is None else {"ssl_context": settings.tls.context()}
    with _listening(settings) as listeners:
        servers = [
            _AdoptingServer(listener, handler, settings, limiter, tls) for listener in listeners
        ]
        stopping = Event()
        loop = gevent.get_hub().loop
        stop.notify(lambda: loop.run_callback_threadsafe(stopping.set))
        if settings.tls is not None:
            reload_on_hangup(settings.tls, servers)
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
        except BaseException:
            drain_servers(servers, limiter, 0.0)
            raise
        finally:
            auditing.kill()


class _AdoptingServer(StreamServer):
    """Serves on a listener that was opened beforehand, so that all are opened or none. The
    descriptor is the server's from then on; the unix socket's file stays the listener's."""

    def __init__(
        self,
        listener: Listener,
        handler: Callable[[Any, Any], object],
        settings: ServeSettings,
        limiter: Limiter,
        tls: dict[str, Any],
    ) -> None:
        raw = listener.socket
        self.backlog = settings.backlog
        super().__init__(
            GeventSocket(raw.family, raw.type, raw.proto, fileno=raw.detach()),
            handler,
            rejection=settings.rejection,
            limiter=limiter,
            timeouts=settings.timeouts,
            evict_idle=settings.evict_idle,
            deferred_start=settings.deferred_start,
            handshake_timeout=settings.handshake_timeout,
            **tls,
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
    log.info(
        "%s: no longer admitting; %d active, %g s to finish",
        stop.received.name if stop.received else "stop",
        len(limiter.pool),
        timeout,
    )
    done = drain_servers(servers, limiter, timeout)
    log.info(
        "drained in %.1f s: %d finished, %d killed%s",
        done.seconds,
        done.active - done.killed,
        done.killed,
        f", {done.left} of them still there" if done.left else "",
    )


def _audit_for_ever(limiter: Limiter, servers: Sequence[StreamServer]) -> None:
    auditor = Auditor(limiter)
    while True:
        gevent.sleep(_AUDIT_EVERY_S)
        listeners = [getattr(server, "socket", None) for server in servers]
        auditor.audit(*listeners, pause=partial(gevent.sleep, 0))
