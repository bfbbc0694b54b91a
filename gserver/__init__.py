"""gserver: a gevent TCP server that knows when it is full, and says so at once.

The layout, lowest first; a module imports only from those above it here:

    errors.py            errors, by who is at fault
    admission/           decisions, pure: the gate and its verdicts
    replies/             busy replies, pure: what each protocol's clients understand
    stats.py  report.py  the books and their snapshot; what the log says about rejections
    net/                 sockets: listeners, the fates of accept errors, rejections, TCP_INFO,
                         the PROXY protocol's header
    slots.py             the gevent Pool that is the count of slots
    front.py  one_shot.py    a listener as the limiter sees it; a timer that can be set again
    candidates.py        who waits a moment at the cap, for endings already under way
    descriptors.py       how many they may take, besides those with a slot
    waiting_room.py      who waits for a slot by the rules' leave
    header_room.py       who has yet to say who it is, most with a slot in hand (PROXY protocol)
    rejection_log.py     the report's lines into the log
    occupancy.py         what a change of how many slots are taken leads to
    proxied.py           clients of proxies, until they are as those that came by themselves
    limiter.py           one cap: gate, slots, books
    accept.py            the accept loop of one listener
    connection.py        the one end of a connection: socket closed, then slot back
    deferred.py          what holds a silent client's slot until its first byte
    timeouts.py reaper.py  when to end a connection, and the sweep that does
    drain.py             the bounded drain; idleness.py: what "idle" means
    tls.py  tls_files.py the handshake; a context from files
    keywords.py          what gevent would take for settings of TLS, and is none
    audit.py             slots compared with open sockets
    server.py            gevent's servers with a cap: StreamServer, WSGIServer
    legacy/              unmodified programs under the cap: install(), gserver exec
    handlers/            the built-in handlers: echo, console; adapters for others'
    probe/               the measuring client: knows nothing of the server
    daemon/  demo/  cli.py    the gserver command

Where is the cap enforced? ``admission/gate.py``. Why can it not leak? ``connection.py``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gserver.admission.limits import Limits
    from gserver.admission.verdict import Reason
    from gserver.drain import Drained, drain_servers
    from gserver.errors import SettingError
    from gserver.limiter import Limiter
    from gserver.net.rejection import Close, Refuse, Rejection, Reset
    from gserver.net.reply import Reply
    from gserver.server import StreamServer, WSGIServer
    from gserver.stats import Audit, Ending, Snapshot
    from gserver.timeouts import Keepalive, Timeouts

__all__ = [
    "Audit",
    "Close",
    "Drained",
    "Ending",
    "Keepalive",
    "Limiter",
    "Limits",
    "Reason",
    "Refuse",
    "Rejection",
    "Reply",
    "Reset",
    "SettingError",
    "Snapshot",
    "StreamServer",
    "Timeouts",
    "WSGIServer",
    "drain_servers",
]

_HOMES = (
    "admission.limits",
    "admission.verdict",
    "drain",
    "errors",
    "limiter",
    "net.rejection",
    "net.reply",
    "server",
    "stats",
    "timeouts",
)

if not TYPE_CHECKING:  # else every name would be one of ours

    def __getattr__(name: str) -> Any:
        """Loaded when it is asked for: every program that gevent patches imports this package for
        its entry point (``daemon/environment.py``), and most use nothing of it."""
        if name in __all__:
            for home in _HOMES:
                module = import_module(f"{__name__}.{home}")
                if name in module.__all__:
                    found = globals()[name] = getattr(module, name)
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
