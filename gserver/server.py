"""gevent's servers with a hard cap: full means *rejected*, never *left waiting*.

:class:`StreamServer` and :class:`WSGIServer` are drop-in for gevent's classes of the same names:
the same constructor, attributes and lifecycle. With a cap, accepting, counting and ending
connections are ours. Without one all of that is gevent's own code; only the listener's backlog
is larger.
"""

from __future__ import annotations

import _socket
import logging
import resource
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import gevent
import gevent.pywsgi
import gevent.server
from gevent.socket import socket as GeventSocket

from gserver import slots
from gserver.accept import AcceptLoop
from gserver.admission.limits import Limits
from gserver.admission.verdict import Reason, Receipt
from gserver.audit import Auditor
from gserver.candidates import MOST_HELD
from gserver.connection import Connection
from gserver.descriptors import named_first, taking_replies
from gserver.drain import drain_servers
from gserver.errors import SettingError
from gserver.idleness import warn_of_no_effect, without_effect
from gserver.keywords import check_keywords
from gserver.limiter import Limiter
from gserver.net import door
from gserver.net.keepalive import set_inherited
from gserver.net.linger import Linger
from gserver.net.listeners import describe, system_backlog, tcp_listener
from gserver.net.proxies import DEFAULT_TIMEOUT_S, Proxies
from gserver.net.rejection import Refuse, Rejection, by_reason
from gserver.net.reply import Reply
from gserver.reaper import Reaper
from gserver.stats import Audit, Snapshot
from gserver.timeouts import Timeouts, check_seconds
from gserver.tls import cooperative_wrap, handshake

__all__ = ["NumberedSocket", "StreamServer", "WSGIServer"]


log = logging.getLogger("gserver")

#: What serves a client: called with its socket and its address.
Handler = Callable[[Any, Any], object]

if TYPE_CHECKING:
    _GeventServer = gevent.server.StreamServer
else:
    _GeventServer = object  # a mixin: gevent's class comes next in the order


_NOT_GIVEN: Any = object()  # where None means something


def _plain_body(connection: Connection, handle: Handler) -> None:
    handle(connection.socket, connection.address)


class NumberedSocket(GeventSocket):
    """A listener known to be bound to a port by its number, not to port 0: ``Refuse`` shuts and
    opens it, and would lose a port that the kernel chose."""

    __slots__ = ()


class _Capped(_GeventServer):
    """What a cap changes in a gevent server. Mixed in before gevent's class."""

    #: As long as the system allows (/proc/sys/net/core/somaxconn): clients that overflow a
    #: backlog are told nothing, their SYN is dropped and sent again a second later (G2).
    backlog = system_backlog()

    #: Seconds a TLS client has for its handshake; None: for ever.
    handshake_timeout: float | None = 10.0

    #: Called, if set, after the server has closed because its listener was none any more.
    on_listener_failed: Callable[[], object] | None = None

    #: Whether the socket handed in was a :class:`NumberedSocket`.
    _bound_to_number = False

    def __init__(
        self,
        *args: Any,
        max_connections: int | None = None,
        limits: Limits | None = None,
        rejection: Rejection | Mapping[str, Rejection] | None = None,
        settle: float | None = None,
        limiter: Limiter | None = None,
        handshake_timeout: float | None = _NOT_GIVEN,
        proxy_protocol_from: Iterable[str] | None = None,
        proxy_timeout: float = DEFAULT_TIMEOUT_S,
        timeouts: Timeouts | None = None,
        evict_idle: float | None = None,
        deferred_start: bool = False,
        **kwargs: Any,
    ) -> None:
        """gevent's arguments, and:

        :param max_connections: the cap. Left out, ``spawn``'s own limit is the cap (a whole
            number, or a Pool with a size); without either, there is none.
        :param limits: the cap and all the other rules, instead of ``max_connections``.
        :param rejection: how the excess is turned away: ``Close()``, the default, ``Reset()``,
            ``Reply(…)`` or ``Refuse()``; or a mapping from reasons (``gserver.Reason``).
        :param settle: see :class:`gserver.Limiter`.
        :param limiter: a cap shared with other servers, instead of the two above.
        :param handshake_timeout: seconds a TLS client has for its handshake; None: for ever; by
            default the class's, 10.
        :param proxy_protocol_from: networks of the proxies that connect here, each saying with a
            PROXY protocol header (version 1 or 2) for whom: who else connects is ``denied``.
            The rules, the log and the handler are told the client's address, not the proxy's.
        :param proxy_timeout: seconds a proxy has for the header, which takes a slot meanwhile.
        :param timeouts: when to end the admitted; by default only vanished peers are found. Under
            TLS give a context that has ``OP_IGNORE_UNEXPECTED_EOF``: see there.
        :param evict_idle: at the cap, the connection that has been idle longest is ended for a
            newcomer if it has been idle for so many seconds, and no slot has come back within
            the newcomer's ``settle``; None: never. The newcomer then waits up to 0.1 s for that
            slot, or ``settle`` again if that is longer, and is turned away when the handler has
            not ended by then. Idle as in :class:`gserver.Timeouts`: want
            more than the longest pause inside an answer. While
            more clients settle than may (``gserver/candidates.py``), the oldest are turned away
            without. Goes without ``Limits.wait``. Behind proxies a newcomer's
            header is read first, so that nobody is ended for one that the rules turn away.
        :param deferred_start: start a client's handler only when its first byte is here: a
            silent client costs its slot and a fifth of the memory. For protocols in which the
            client speaks first; a client that leaves without a word never meets the handler.
            Under TLS the handshake's first byte starts it, and who is silent after the handshake
            costs a greenlet.
        :raises SettingError: (a ValueError) a value that cannot be used, a cap together with
            a ``spawn`` that cannot count, or, with a cap, a keyword that neither this nor TLS
            has. Nothing is left open.
        """
        if limits is not None and not isinstance(limits, Limits):
            raise SettingError("limits", limits, "must be Limits(...)")
        if limiter is not None and not isinstance(limiter, Limiter):
            raise SettingError("limiter", limiter, "must be a Limiter(...)")
        if not isinstance(deferred_start, bool):
            raise SettingError("deferred_start", deferred_start, "must be True or False")
        self._limiter = limiter
        self._shared = limiter is not None
        self._wanted = max_connections
        self._settle = settle
        self._limits = limits
        self._rejections = by_reason(rejection)
        self._accepting: AcceptLoop | None = None
        self._lingers: list[Linger] = []  # also of an accept loop that is closed
        self._auditor: Auditor | None = None
        if handshake_timeout is None:
            self.handshake_timeout = None
        elif handshake_timeout is not _NOT_GIVEN:
            self.handshake_timeout = check_seconds(handshake_timeout, "handshake_timeout")
        if timeouts is not None and not isinstance(timeouts, Timeouts):
            raise SettingError("timeouts", timeouts, "must be Timeouts(...)")
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._reaper = Reaper(self._timeouts, evict_idle)
        self._deferred_start = deferred_start
        if proxy_protocol_from is None and proxy_timeout != DEFAULT_TIMEOUT_S:
            raise SettingError("proxy_timeout", proxy_timeout, "needs proxy_protocol_from")
        self._proxies = (
            None if proxy_protocol_from is None else Proxies(proxy_protocol_from, proxy_timeout)
        )
        context = kwargs.get("ssl_context")
        super().__init__(*args, **kwargs)
        try:
            if self._limiter is None:
                if handshake_timeout is not _NOT_GIVEN:
                    problem = "needs a cap: max_connections"
                    raise SettingError("handshake_timeout", handshake_timeout, problem)
                self._check_needs_no_cap(
                    rejection=rejection,
                    proxy_protocol_from=proxy_protocol_from,
                    timeouts=timeouts,
                    evict_idle=evict_idle,
                    deferred_start=deferred_start or None,
                )
            elif self.ssl_args:
                left_over = {name: kwargs[name] for name in self.ssl_args if name in kwargs}
                check_keywords(left_over, context, (_Capped.__init__, super().__init__))
            self._check_rejections()
            if self._limiter is not None:
                self._check_limiter(self._limiter)
                if handshake_timeout not in (_NOT_GIVEN, None) and not self.ssl_enabled:
                    problem = "needs TLS: an ssl_context, or keyfile and certfile"
                    raise SettingError("handshake_timeout", handshake_timeout, problem)
                self._check_grace()
        except SettingError:
            self.close()
            raise
        if context is not None and self._limiter is not None:
            self.set_ssl_context(context)

    @staticmethod
    def _check_needs_no_cap(**settings: Any) -> None:
        """All but None are given, and would be ignored."""
        for setting, given in settings.items():
            if given is not None:
                raise SettingError(setting, given, "needs a cap: max_connections")

    # ---- the cap ---------------------------------------------------------------------------

    @property
    def limiter(self) -> Limiter | None:
        """The cap, its slots and its books; None without a cap."""
        return self._limiter

    @property
    def max_connections(self) -> int | None:
        """The cap; None for none. Of a server that has one, it can be set at any time: raising
        admits at once, lowering admits nobody until enough have left and ends nobody.

        :raises SettingError: (when set) this server was made without a cap; or as of
            :attr:`gserver.Limiter.max_connections`.
        """
        return None if self._limiter is None else self._limiter.max_connections

    @max_connections.setter
    def max_connections(self, value: int) -> None:
        if self._limiter is None:
            raise SettingError("max_connections", value, "this server was made without a cap")
        self._limiter.max_connections = value

    @property
    def stats(self) -> Snapshot:
        """The books at this instant. Servers that share a limiter share them. Without a cap there
        are none: AttributeError."""
        if self._limiter is None:
            raise AttributeError("stats: a server without a cap keeps no books")
        return self._limiter.snapshot()

    def audit(self) -> Audit:
        """Compare slots with open sockets; the result is also in the next :attr:`stats`.

        Reads every descriptor of the process once: about 15 ms at 10,000. A socket counts as
        leaked when two audits in a row find it. A leak is logged.

        :raises OSError: the descriptors cannot be listed: that takes a free one.
        """
        limiter = self._capped_limiter()
        if self._auditor is None:
            self._auditor = Auditor(limiter)
        return self._auditor.audit(
            getattr(self, "socket", None), lingering=self.lingering_descriptors()
        )

    def lingering_descriptors(self) -> set[int]:
        """Those of clients that are being told that the server is busy (``Reply``)."""
        return {fd for linger in self._lingers for fd in linger.descriptors()}

    def _capped_limiter(self) -> Limiter:
        if self._limiter is None:
            raise SettingError("max_connections", None, "a server without a cap keeps no books")
        return self._limiter

    def _check_rejections(self) -> None:
        """What cannot go together, so that it is found here and not by the first client."""
        limiter = self._limiter
        for how in self._rejections.values():
            if isinstance(how, Reply) and how.script.tls != self.ssl_enabled:
                raise SettingError(
                    "rejection",
                    how,
                    "is a TLS alert: only a TLS listener's clients understand it"
                    if how.script.tls
                    else "is plain text, which a TLS listener's clients do not understand; they do "
                    "understand the reply tls-alert, close and reset",
                )
        if limiter is None or not isinstance(self._rejections[Reason.CAPACITY], Refuse):
            return
        if not door.SUPPORTED:
            problem = "needs Linux"
        elif self.family not in (_socket.AF_INET, _socket.AF_INET6):
            problem = "needs TCP: a unix socket that is shut does not come back"
        elif hasattr(self, "socket") and not self._bound_to_number:
            problem = "needs an address, not a socket: opening it again may lose its port"
        else:
            return
        raise SettingError("rejection", self._rejections[Reason.CAPACITY], problem)

    def _check_limiter(self, limiter: Limiter) -> None:
        """What the limiter's settings, and its other servers', do not go with. Asked again at the
        start: until then they may be changed, or started; later the limiter refuses to, and they
        are told here."""
        wait, evict_idle = limiter.limits.wait, self._reaper.evict_idle
        if wait and evict_idle is not None:
            raise SettingError("evict_idle", evict_idle, "goes without wait")
        if not isinstance(self._rejections[Reason.CAPACITY], Refuse):
            if evict_idle is not None and limiter.refuses:
                problem = "goes without Refuse(), which another server of this limiter has"
                raise SettingError("evict_idle", evict_idle, problem)
            return
        if limiter.settle:
            problem = "goes without settle: who is refused cannot wait"
        elif wait:
            problem = "goes without wait: who is refused cannot wait"
        elif evict_idle is not None:
            problem = "goes without evict_idle: nobody is let in for whom to evict"
        elif limiter.evictors:
            problem = "goes without evict_idle, which another server of this limiter has"
        else:
            return
        raise SettingError("rejection", self._rejections[Reason.CAPACITY], problem)

    def _check_grace(self) -> None:
        """One that differs from the default was certainly given, and would be ignored."""
        given, ends = self._timeouts.grace, self._timeouts.shortest is not None
        if given != Timeouts().grace and not ends and not self._reaper.evicts:
            problem = "needs first_byte, idle, lifetime or evict_idle"
            raise SettingError("grace", given, problem)

    def set_ssl_context(self, context: ssl.SSLContext) -> None:
        """Serve the connections to come with another context: a renewed certificate, say.
        Those that have begun their handshake keep theirs.

        :raises SettingError: the server was made without a cap, or without an ``ssl_context``:
            without TLS, or with ``certfile``, whose arguments a context would not take.
        """
        if self._limiter is None or not self.ssl_args or "certfile" in self.ssl_args:
            problem = "needs a server that was made with a cap and an ssl_context"
            raise SettingError("ssl_context", context, problem)
        vars(self)["wrap_socket"] = cooperative_wrap(context)  # where gevent's own puts it

    # ---- gevent's hooks --------------------------------------------------------------------

    def set_spawn(self, spawn: Any) -> None:
        # gevent's own would shadow full() on the instance and have the pool's semaphore start
        # the accept loop: with a cap neither may happen, so it is not called.
        if self._limiter is None:
            limits, wanted = self._limits, self._wanted
            if limits is not None:
                if wanted not in (None, limits.max_connections):
                    raise SettingError("max_connections", wanted, f"disagrees with {limits}")
                wanted = limits.max_connections
            found = slots.pool_for(spawn, wanted)
            if found is None:
                if self._settle is not None:
                    raise SettingError("settle", self._settle, "needs a cap: max_connections")
                super().set_spawn(spawn)
                return
            pool, cap = found
            self._limiter = Limiter(limits or cap, settle=self._settle or 0.0, pool=pool)
        elif not (isinstance(spawn, str) and spawn == "default"):
            raise SettingError("spawn", spawn, "the limiter has its own pool; leave one out")
        elif (self._wanted, self._settle, self._limits) != (None, None, None):
            raise SettingError(
                "limiter", self._limiter, "has its own max_connections, limits and settle"
            )
        self.pool = self._limiter.pool
        self._spawn = self.pool.spawn

    def set_listener(self, listener: Any) -> None:
        super().set_listener(listener)
        self._bound_to_number = isinstance(listener, NumberedSocket)
        sock = getattr(self, "socket", None)
        if sock is not None:
            # A blocking listener would block the loop in accept().
            sock.setblocking(False)

    @classmethod
    def get_listener(cls, address: Any, backlog: int | None = None, family: Any = None) -> Any:
        backlog = cls.backlog if backlog is None else backlog
        raw = tcp_listener(address, backlog, family, reuse_addr=bool(cls.reuse_addr))
        # gevent knows a socket from an address by its accept(), which a raw one has not.
        return GeventSocket(raw.family, raw.type, raw.proto, fileno=raw.detach())

    def init_socket(self) -> None:
        adopted = hasattr(self, "socket")  # and brought its own, perhaps small, backlog
        super().init_socket()
        if self._limiter is None:
            return
        if adopted:
            self.socket.listen(self.backlog)
        elif isinstance(self._rejections[Reason.CAPACITY], Refuse):
            bound: Any = door.bound_to_number(self.socket, self.backlog)
            self.socket = bound
        set_inherited(self.socket, self._timeouts)  # on the one that will accept

    def start_accepting(self) -> None:
        if self._limiter is None:
            super().start_accepting()
            return
        if self._accepting is None:
            self._check_limiter(self._limiter)
            self._warn_of_too_few_descriptors()
            warn_of_no_effect(describe(self.address), self._without_effect())
            self._accepting = AcceptLoop(
                self.socket,
                self._limiter,
                self._serve,
                self._rejections,
                self._listener_failed,
                backlog=self.backlog,
                max_accept=self.max_accept,
                delays=(self.min_delay, self.max_delay),
                proxies=self._proxies,
            )
            self._lingers = [each for each in self._lingers if each.lingering]
            self._lingers += self._accepting.lingers
            self._limiter.server_opened()
            if self._reaper.evicts:
                self._limiter.evictors.append(self._reaper)
        self._accepting.start()

    def _warn_of_too_few_descriptors(self) -> None:
        """A library raises no limits of its host's; but a cap that cannot be reached is no cap."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limiter = self._capped_limiter()
        most = (
            limiter.limits.most_open
            + MOST_HELD
            + taking_replies(self._rejections.values())
            + named_first(behind_proxies=self._proxies is not None, evicts=self._reaper.evicts)
        )
        if soft != resource.RLIM_INFINITY and most >= soft:
            log.warning(
                "max_connections %s is out of reach: with those who wait or take a reply it takes "
                "%s descriptors and this process may have %s (RLIMIT_NOFILE, ulimit -n)",
                f"{limiter.max_connections:,}",
                f"{most:,}",
                f"{soft:,}",
            )

    def _without_effect(self) -> dict[str, float]:
        return without_effect(
            self.socket.family,
            self._timeouts,
            self._reaper.evict_idle,
            deferred_start=self._deferred_start,
        )

    def stop_accepting(self) -> None:
        if self._limiter is None:
            super().stop_accepting()
        elif self._accepting is not None:
            self._accepting.stop()

    def full(self) -> bool:
        """Whether a client that connects now would be turned away."""
        if self._limiter is None:
            return super().full()
        return self._limiter.full

    def close(self) -> None:
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            limiter = self._capped_limiter()
            if self._reaper.evicts:
                limiter.evictors.remove(self._reaper)
            accepting.close()
            limiter.server_closed()
        super().close()

    def stop(self, timeout: float | None = None) -> None:
        """Close the listener, and drain: see :func:`gserver.drain_servers`. Of a shared
        ``limiter``, only this server's own connections. Without a cap, gevent's own.

        :param timeout: seconds; None: ``stop_timeout``, which is 1 by default.
        """
        if self._limiter is None:
            super().stop(timeout)
            return
        timeout = self.stop_timeout if timeout is None else timeout
        drain_servers(
            [self],
            self._limiter,
            float("inf") if timeout is None else timeout,
            others_go_on=self._shared,
        )
        # Those who were being told that the server is busy have had the time the others had.
        for linger in self._lingers:
            linger.close_all()

    # ---- serving ---------------------------------------------------------------------------

    def is_reading(self, sock: Any) -> bool:
        """Whether the handler of the connection with this socket waits to read from it, in a way
        that the socket's own watcher does not show. A subclass may know of one; else nobody."""
        return False

    def _serve(self, fd: int, address: Any, receipt: Receipt, header_bytes: int) -> None:
        listener = self.socket
        try:
            sock = GeventSocket(listener.family, listener.type, listener.proto, fileno=fd)
        except BaseException:
            _socket.close(fd)
            raise
        limiter = self._capped_limiter()
        connection = Connection(sock, address, receipt, limiter, self, header_bytes)
        # The handler goes along: close() takes it away from the server, and an admitted
        # connection that has not run yet is served all the same.
        body = self._tls_body if self.ssl_args else _plain_body
        if self._deferred_start:
            connection.defer(body, self.handle)
        else:
            connection.start(body, self.handle)
        if self._reaper.wanted:
            self._reaper.watch(connection)

    def _tls_body(self, connection: Connection, handle: Handler) -> None:
        wrap: Any = vars(self)["wrap_socket"]
        arguments: Any = self.ssl_args
        handshake(connection, wrap, arguments, self.handshake_timeout)
        handle(connection.socket, connection.address)

    def _listener_failed(self, error: OSError) -> None:
        """It is no listener any more: close the server. Its admitted clients go on."""
        log.error("%s: the listener failed, and is closed: %s", describe(self.address), error)
        self.close()
        if self.on_listener_failed is not None:
            self.on_listener_failed()


class StreamServer(_Capped, gevent.server.StreamServer):
    """``gevent.server.StreamServer`` that knows when it is full.

    ::

        StreamServer(("", 8999), handle, max_connections=100).serve_forever()

    At most ``max_connections`` clients are served at once, counted by ``server.pool``, a
    ``gevent.pool.Pool``; the next one is turned away at once. Its slot comes back when the
    handler returns, raises, exits or is killed, after its socket is closed.

    With a cap, otherwise than in gevent's class:

    * a subclass's ``do_read``, ``do_handle`` and ``wrap_socket_and_handle`` are not called, since
      accepting and ending are ours; its ``handle`` is, and its ``do_close(socket, address)`` at
      the end of each connection;
    * what a handler raises is logged and counted here, and does not reach the hub's
      ``handle_error``; ``sys.exit()`` in it ends its connection alone;
    * a listening socket that is handed in is made non-blocking, and listens again with
      :attr:`backlog`, the system's longest by default: set that in a subclass for another one;
    * a keyword that nobody knows is an error: gevent would make TLS of it, without a certificate;
    * after ``gevent.fork()`` each process has a cap of its own: N workers serve N times as many.
    """


class WSGIServer(_Capped, gevent.pywsgi.WSGIServer):
    """``gevent.pywsgi.WSGIServer`` that knows when it is full. The cap counts connections: one
    kept alive between requests holds its slot."""
