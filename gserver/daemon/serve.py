"""`gserver serve`: one cap, its listeners, a handler, until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import gevent
from gevent.event import Event

from gserver.admission.limits import Limits
from gserver.audit import Auditor
from gserver.daemon.descriptors import ensure_descriptors, shares_of
from gserver.daemon.flags import in_flags
from gserver.daemon.output import BackgroundWriter
from gserver.daemon.rejection_options import Rejections
from gserver.daemon.reload import reload_on_hangup
from gserver.daemon.signals import Hangups, StopSignals
from gserver.descriptors import named_first
from gserver.drain import drain_servers
from gserver.errors import SettingError
from gserver.handlers.adapters import Kind, detect, make_server
from gserver.idleness import without_effect
from gserver.limiter import Limiter
from gserver.net.door import bound_to_number
from gserver.net.listeners import Listener, describe, open_listeners
from gserver.net.proxies import DEFAULT_TIMEOUT_S, Proxies
from gserver.server import NumberedSocket, StreamServer, WSGIServer
from gserver.timeouts import Timeouts
from gserver.tls_files import TlsFiles

__all__ = ["ServeSettings", "serve"]

log = logging.getLogger("gserver")

_READ: Final = 1  # gevent's number for it
_AUDIT_EVERY_S: Final = 60.0
_FLAGS: Final = {
    "first_byte": "--first-byte-timeout",
    "idle": "--idle-timeout",
    "evict_idle": "--evict-idle",
}


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What to serve. Times in seconds."""

    listen: Sequence[str]
    limits: Limits
    rejections: Rejections
    settle: float
    backlog: int
    drain_timeout: float
    kind: Kind | None
    proxies: Proxies | None
    timeouts: Timeouts
    evict_idle: float | None
    deferred_start: bool
    tls: TlsFiles | None
    handshake_timeout: float | None  # None: the default


def serve(
    settings: ServeSettings,
    handler: Any,
    stop: StopSignals,
    hangups: Hangups,
    out: BackgroundWriter,
) -> bool:
    """Serve until a signal or until a listener fails, then drain; returns when nothing is left.

    :return: False if a listener failed: whoever supervises this starts it again.
    :raises SettingError: it cannot start; nothing is left open.
    """
    gevent.config.track_greenlet_tree = False  # a third off the cost of a connection's greenlet
    kind = settings.kind or detect(handler)
    settings = _of_its_kind(settings, kind)
    limits, rejections = settings.limits, settings.rejections
    rejections.check_replies()
    with in_flags():
        limiter = Limiter(limits, settle=settings.settle)
    tls: dict[str, Any] = {}
    if settings.tls is not None:
        tls["ssl_context"] = settings.tls.context()
        if settings.handshake_timeout is not None:
            tls["handshake_timeout"] = settings.handshake_timeout
    with contextlib.ExitStack() as stack:
        listeners = stack.enter_context(_listening(settings))
        _check_effects(settings, listeners)
        ensure_descriptors(
            shares_of(limits, each=kind.descriptors) + rejections.shares(len(listeners)),
            listeners=len(listeners),
            others=named_first(
                behind_proxies=settings.proxies is not None,
                evicts=settings.evict_idle is not None,
            ),
        )
        stopping = stack.enter_context(_event_of(stop))
        failed = Event()

        def listener_failed() -> None:
            failed.set()
            stopping.set()

        servers: list[StreamServer | WSGIServer] = []
        try:
            for each in listeners:
                servers.append(_server(each, handler, settings, limiter, tls, listener_failed))
        except SettingError as error:
            for server in servers:
                server.close()
            with in_flags():
                raise rejections.in_flags(error) from None
        reload_on_hangup(hangups, settings.tls, servers)
        auditing = gevent.spawn(_audit_for_ever, limiter, servers)
        try:
            for server in servers:
                server.start()
            where = ", ".join(describe(server.address) for server in servers)
            out.write(
                f"gserver: listening on {where}; cap {limits.max_connections}; "
                f"the excess is turned away by {rejections}\n"
            )
            stopping.wait()
            _drain(servers, limiter, settings.drain_timeout, stop)
        except BaseException:
            drain_servers(servers, limiter, 0.0)
            raise
        finally:
            auditing.kill()
    return not failed.is_set()


def _check_effects(settings: ServeSettings, listeners: Sequence[Listener]) -> None:
    """A setting without effect on some of the listeners is in the log; on all of them, an error."""
    nowhere: dict[str, float] | None = None
    for each in listeners:
        here = without_effect(
            each.socket.family,
            settings.timeouts,
            settings.evict_idle,
            deferred_start=settings.deferred_start,
        )
        nowhere = here if nowhere is None else nowhere
        nowhere = {setting: value for setting, value in nowhere.items() if setting in here}
    for setting, value in (nowhere or {}).items():
        raise SettingError(
            _FLAGS[setting],
            value,
            "has no effect on unix sockets, nor without Linux's TCP_INFO; --lifetime has",
        )


def _of_its_kind(settings: ServeSettings, kind: Kind) -> ServeSettings:
    """The settings with the kind of handler, and what it makes the default: who waits for an
    HTTP answer is told that the server is busy (503). Not under TLS, where a client that has not
    shaken hands understands no text."""
    rejections = settings.rejections
    if kind is Kind.WSGI and settings.tls is None:
        rejections = rejections.or_by_default("reply:http")
    return replace(settings, kind=kind, rejections=rejections)


def _server(
    listener: Listener,
    handler: Any,
    settings: ServeSettings,
    limiter: Limiter,
    tls: dict[str, Any],
    failed: Callable[[], object],
) -> StreamServer | WSGIServer:
    """A server on a listener that was opened beforehand, so that all are opened or none. The
    descriptor is the server's from then on; the unix socket's file stays the listener's."""
    raw, proxies = listener.socket, settings.proxies
    kind = settings.kind
    # A WSGI server's own access log goes to standard error, and may block there.
    logs: dict[str, Any] = {"log": None, "error_log": log} if kind is Kind.WSGI else {}
    server = make_server(
        handler,
        NumberedSocket(raw.family, raw.type, raw.proto, fileno=raw.detach()),
        kind,
        rejection=settings.rejections.by_reason,
        limiter=limiter,
        proxy_protocol_from=proxies.networks if proxies else None,
        proxy_timeout=proxies.timeout if proxies else DEFAULT_TIMEOUT_S,
        timeouts=settings.timeouts,
        evict_idle=settings.evict_idle,
        deferred_start=settings.deferred_start,
        **tls,
        **logs,
    )
    server.backlog = settings.backlog
    server.on_listener_failed = failed
    return server


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
                if settings.rejections.refuses:
                    listener = _by_number(listener, text, settings.backlog)
                stack.callback(listener.close)
                listeners.append(listener)
        yield listeners


def _by_number(listener: Listener, text: str, backlog: int) -> Listener:
    """The listener, bound to its port by the number also where the system chose the port."""
    if not isinstance(listener.socket.getsockname(), tuple) or text.rpartition(":")[2].strip("0"):
        return listener
    try:
        return Listener(bound_to_number(listener.socket, backlog))
    except OSError as error:
        raise SettingError("--listen", text, f"cannot listen there: {error.strerror}") from None


def _drain(
    servers: Sequence[StreamServer | WSGIServer],
    limiter: Limiter,
    timeout: float,
    stop: StopSignals,
) -> None:
    log.info(
        "%s: no longer admitting; %d active, %g s to finish",
        stop.received.name if stop.received else "a listener failed",
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


def _audit_for_ever(limiter: Limiter, servers: Sequence[StreamServer | WSGIServer]) -> None:
    auditor = Auditor(limiter)
    while True:
        gevent.sleep(_AUDIT_EVERY_S)
        listeners = [getattr(server, "socket", None) for server in servers]
        lingering = set().union(*(server.lingering_descriptors() for server in servers))
        try:
            auditor.audit(*listeners, lingering=lingering, pause=partial(gevent.sleep, 0))
        except OSError as error:  # out of descriptors, say: the next one may find one
            log.warning("no audit this time: %s", error)
