"""Servers with all sorts of things switched on, and clients that speak as each wants it: the
guarantees hold for every one of them (``test_guarantees_in_variants.py``)."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent.ssl
from every_rule import every_rule
from speaking import REQUEST, Manner
from support import CERTIFICATE, KEY, client_context, connect_to, outcome

from gserver import Keepalive, Refuse, Reply, StreamServer, Timeouts
from gserver.tls_files import TlsFiles

__all__ = ["VARIANTS", "Variant"]

#: Long enough to end nobody in a test, and watched all the same.
GENEROUS = Timeouts(
    first_byte=120.0, idle=120.0, lifetime=1200.0, user_timeout=120.0, keepalive=Keepalive(idle=30)
)


@dataclass
class Variant:
    """One of them.

    :ivar speaks: how its clients begin (``speaking.py``).
    :ivar settings: the server's, besides its cap.
    :ivar rules: of :func:`every_rule`, besides those that are always on.
    :ivar turned_away: what those see for whom there was no slot. The kernel makes a close a reset
        where words of theirs lie unread.
    """

    speaks: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    turned_away: frozenset[str] = frozenset({"closed", "reset"})

    def server(self, handler: Any, cap: int, **more: Any) -> StreamServer:
        """With every rule, and this variant's settings; ``more`` in their stead or besides."""
        settings = {**self.settings, **more}
        if "tls" in self.speaks:
            settings["ssl_context"] = context = TlsFiles(str(CERTIFICATE), str(KEY)).context()
            context.num_tickets = 0  # Nagle's algorithm holds back what follows them, 40 ms
            settings["handshake_timeout"] = 60.0
        rules = dict(self.rules)
        if self.is_proxied:
            settings["proxy_protocol_from"] = ["127.0.0.0/8"]
        # A Pool that is given has the size of the cap.
        reserve = "spawn" not in more and not self.refuses
        limits = every_rule(cap, reserve=reserve, **rules)
        return StreamServer(("127.0.0.1", 0), handler, limits=limits, **settings)

    @contextlib.contextmanager
    def admitted(self, address: Any, count: int = 1) -> Iterator[list[Any]]:
        """So many clients in this process that have been greeted."""
        manner = Manner(self.speaks)
        with contextlib.ExitStack() as stack:
            found = []
            for _ in range(count):
                sock = stack.enter_context(connect_to(address))
                if header := manner.header():
                    sock.sendall(header)
                if manner.tls is not None:
                    sock = stack.enter_context(client_context().wrap_socket(sock))
                if manner.words:
                    sock.sendall(manner.words)
                assert outcome(sock) == "served"
                found.append(sock)
            yield found

    @property
    def is_proxied(self) -> bool:
        return "v1" in self.speaks or "v2" in self.speaks

    @property
    def refuses(self) -> bool:
        """Whether the kernel turns away, and nobody here sees whom. With a reserve it would
        only when that is taken, too."""
        return isinstance(self.settings.get("rejection"), Refuse)

    @property
    def words(self) -> bytes:
        """What each client says before it is greeted."""
        return REQUEST if "http" in self.speaks else b""

    def leaves(self, sock: Any) -> None:
        """End a client's connection as a client of this variant does."""
        if isinstance(sock, ssl.SSLSocket | gevent.ssl.SSLSocket):
            with contextlib.suppress(OSError):
                sock.unwrap()
        sock.close()


VARIANTS = {
    "timeouts": Variant(settings={"timeouts": GENEROUS, "evict_idle": 120.0}),
    "deferred": Variant("http", {"timeouts": GENEROUS, "deferred_start": True}),
    "TLS": Variant("tls", {"timeouts": GENEROUS}),
    "PROXY": Variant("v2", {"proxy_timeout": 60.0}),
    "PROXY, waiting": Variant("v1", rules={"wait": 0.02, "wait_queue": 20}),
    "replies": Variant(
        "http",
        {"rejection": Reply("http", timeout=20.0, max_lingering=1000)},
        turned_away=frozenset({"replied"}),
    ),
    "refuse": Variant(
        "http",
        {"timeouts": GENEROUS, "deferred_start": True, "rejection": Refuse()},
        # Those who were in the queue when the door shut see a reset.
        turned_away=frozenset({"refused", "reset"}),
    ),
    "waiting, TLS, deferred, replies": Variant(
        "tls+http",
        {
            "timeouts": GENEROUS,
            "deferred_start": True,
            "rejection": Reply("tls-alert", timeout=20.0, max_lingering=1000),
        },
        rules={"wait": 0.02, "wait_queue": 20},
    ),
    "all of it": Variant(
        "v2+tls+http",
        {
            "timeouts": GENEROUS,
            "evict_idle": 120.0,
            "deferred_start": True,
            "rejection": Reply("tls-alert", timeout=20.0, max_lingering=1000),
        },
    ),
}
