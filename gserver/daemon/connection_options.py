"""Options about the admitted: timeouts, and, of ``gserver serve``, deferred start and TLS."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypedDict

import click

from gserver.daemon.flags import Number, Time, in_flags
from gserver.errors import SettingError
from gserver.timeouts import MOST_USER_TIMEOUT_S, Keepalive, Timeouts
from gserver.tls_files import TlsFiles

__all__ = [
    "HANDSHAKE_S",
    "ConnectionSettings",
    "TimeoutSettings",
    "connection_options",
    "connection_settings",
    "timeout_options",
]


_KEEPALIVE: Final = Keepalive()
_GRACE_S: Final = Timeouts().grace
#: Seconds that a TLS client has for its handshake where nothing was said of it.
HANDSHAKE_S: Final = 10.0

_TIMEOUTS = [
    click.option(
        "--first-byte-timeout",
        type=Time(),
        help="End a client that has not sent a byte SECONDS after it was admitted; not one that "
        "has sent a byte and dawdles: see --lifetime. Where the server greets first (SMTP, FTP, "
        "SSH, MySQL), give more than its greeting takes. Under TLS it is the first byte after the "
        "handshake, whose time counts. On unix sockets only with "
        "--deferred-start.  "
        "[default: never]",
    ),
    click.option(
        "--idle-timeout",
        type=Time(),
        help="End a client to which nobody owes an answer after SECONDS without data. Never one "
        "whose answer has not begun; give more than the longest pause inside an answer, and where "
        "the server pushes (SSE, WebSocket, IRC, MQTT), than its longest silence between two "
        "messages or pings. A handler that waits for its client in select or poll, not in recv(), "
        "may not be seen to, and is then not ended. On unix sockets only with --deferred-start, "
        "until the first byte.  "
        "[default: never]",
    ),
    click.option(
        "--lifetime",
        type=Time(),
        help="End every client SECONDS after it was admitted.  [default: never]",
    ),
    click.option(
        "--evict-idle",
        type=Time(),
        help="When full, end the client that has been idle longest, if for SECONDS, to make room "
        "for the next one, who waits up to 0.1 s for it to end, or as long as --settle if that is "
        "longer, and is else turned away. Idle as for --idle-timeout, also in the pauses of an "
        "answer; on unix sockets as there.  [default: never]",
    ),
    click.option(
        "--grace",
        type=Time(),
        help="How long a handler may take to end once these have shown it an end-of-file, before "
        f"it is killed.  [default: {_GRACE_S:g}]",
    ),
    click.option(
        "--keepalive/--no-keepalive",
        default=True,
        show_default=True,
        help="Probe silent clients, and give back the slot of one that has vanished after two "
        "minutes.",
    ),
    click.option(
        "--keepalive-idle",
        type=Number(int, "SECONDS"),
        help=f"The silence before the first probe; whole seconds.  [default: {_KEEPALIVE.idle}]",
    ),
    click.option(
        "--keepalive-interval",
        type=Number(int, "SECONDS"),
        help=f"From one probe to the next; whole seconds.  [default: {_KEEPALIVE.interval}]",
    ),
    click.option(
        "--keepalive-count",
        type=Number(int, "N"),
        help="After how many probes without an answer a client has vanished.  "
        f"[default: {_KEEPALIVE.count}]",
    ),
    click.option(
        "--tcp-user-timeout",
        type=Time(MOST_USER_TIMEOUT_S),
        help="End a client that has not acknowledged what was sent for SECONDS. Also ends a live "
        "one that does not read.  [default: the system's]",
    ),
    click.option(
        "--handshake-timeout",
        type=Time(),
        help="End a TLS client that has not finished its handshake after SECONDS.  "
        f"[default: {HANDSHAKE_S:g}]",
    ),
]

_OF_SERVE = [
    click.option(
        "--deferred-start",
        is_flag=True,
        help="Start HANDLER only when a client's first byte is here: a silent client then costs "
        "little more than its slot. For protocols in which the client speaks first. Under TLS the "
        "first byte is the handshake's.",
    ),
    click.option(
        "--tls-cert",
        metavar="FILE",
        help="Serve TLS with the certificates in FILE (PEM): the server's, then those that lead "
        "to a root. SIGHUP reads it and the two below again; without TLS it does nothing.",
    ),
    click.option(
        "--tls-key", metavar="FILE", help="Its private key.  [default: in the file of --tls-cert]"
    ),
    click.option(
        "--tls-client-ca",
        metavar="FILE",
        help="Serve only clients with a certificate signed by one in FILE.",
    ),
]


class TimeoutSettings(TypedDict):
    """What :func:`timeout_options` says."""

    timeouts: Timeouts
    evict_idle: float | None
    handshake_timeout: float | None  # None: nothing was said of it


class ConnectionSettings(TimeoutSettings):
    """The part of ``ServeSettings`` that :func:`connection_options` fills."""

    deferred_start: bool
    tls: TlsFiles | None


def timeout_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add to a command those that hold for any program's connections. It is called with
    ``of_timeouts``, a :class:`TimeoutSettings`, in their place."""

    @functools.wraps(command)
    def build(
        *,
        first_byte_timeout: float | None,
        idle_timeout: float | None,
        lifetime: float | None,
        evict_idle: float | None,
        grace: float | None,
        keepalive: bool,
        keepalive_idle: int | None,
        keepalive_interval: int | None,
        keepalive_count: int | None,
        tcp_user_timeout: float | None,
        handshake_timeout: float | None,
        **arguments: Any,
    ) -> Any:
        ends = (first_byte_timeout, idle_timeout, lifetime, evict_idle)
        if grace is not None and ends == (None,) * len(ends):
            problem = "needs --first-byte-timeout, --idle-timeout, --lifetime or --evict-idle"
            raise SettingError("--grace", grace, problem)
        probes = _keepalive(
            keepalive, idle=keepalive_idle, interval=keepalive_interval, count=keepalive_count
        )
        timeouts = Timeouts(
            first_byte=first_byte_timeout,
            idle=idle_timeout,
            lifetime=lifetime,
            keepalive=probes,
            user_timeout=tcp_user_timeout,
            grace=_GRACE_S if grace is None else grace,
        )
        settings: TimeoutSettings = {
            "timeouts": timeouts,
            "evict_idle": evict_idle,
            "handshake_timeout": handshake_timeout,
        }
        return command(of_timeouts=settings, **arguments)

    for option in reversed(_TIMEOUTS):
        option(build)
    return build


def _keepalive(on: bool, **given: int | None) -> Keepalive | None:
    settings = {setting: value for setting, value in given.items() if value is not None}
    if on:
        with in_flags():
            return Keepalive(**settings)
    for setting, value in settings.items():
        raise SettingError(f"--keepalive-{setting}", value, "goes without --no-keepalive")
    return None


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all of them to a command that serves a handler of its own; for
    :func:`connection_settings`."""
    for option in reversed(_OF_SERVE):
        command = option(command)
    return timeout_options(command)


def connection_settings(
    *,
    of_timeouts: TimeoutSettings,
    deferred_start: bool,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
) -> ConnectionSettings:
    """What they say.

    :raises SettingError: an option of TLS without --tls-cert.
    """
    if tls_cert is None:
        of_tls = {
            "--tls-key": tls_key,
            "--tls-client-ca": tls_client_ca,
            "--handshake-timeout": of_timeouts["handshake_timeout"],
        }
        for setting, given in of_tls.items():
            if given is not None:
                raise SettingError(setting, given, "needs --tls-cert")
    return {
        **of_timeouts,
        "deferred_start": deferred_start,
        "tls": None if tls_cert is None else TlsFiles(tls_cert, tls_key, tls_client_ca),
    }
