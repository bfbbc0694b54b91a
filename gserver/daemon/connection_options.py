"""Options about the admitted: timeouts, and, of ``gserver serve``, deferred start and TLS."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypedDict

import click

from gserver.errors import SettingError
from gserver.timeouts import A_YEAR_S, MOST_USER_TIMEOUT_S, Keepalive, Timeouts, check_seconds
from gserver.tls_files import TlsFiles

__all__ = [
    "ConnectionSettings",
    "TimeoutSettings",
    "connection_options",
    "connection_settings",
    "timeout_options",
]


class _Time(click.ParamType[float]):
    """Seconds, above 0 and up to ``most``."""

    name = "SECONDS"

    def __init__(self, most: float = A_YEAR_S) -> None:
        self._most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        setting = param.opts[0] if param is not None else "value"
        try:
            number: object = float(value)
        except ValueError:
            number = value
        try:
            return check_seconds(number, setting, self._most)
        except SettingError as error:
            raise SettingError(setting, value, error.problem) from None


_TIMEOUTS = [
    click.option(
        "--first-byte-timeout",
        type=_Time(),
        help="End a client that has not sent a byte SECONDS after it was admitted. Where the "
        "server greets first (SMTP, FTP, SSH, MySQL), give more than its greeting takes.  "
        "[default: never]",
    ),
    click.option(
        "--idle-timeout",
        type=_Time(),
        help="End a client to which nobody owes an answer after SECONDS without data. Never one "
        "whose handler is working on its answer. Where the server pushes (SSE, WebSocket, IRC, "
        "MQTT), give more than its longest silence between two messages or pings.  "
        "[default: never]",
    ),
    click.option(
        "--lifetime",
        type=_Time(),
        help="End every client SECONDS after it was admitted.  [default: never]",
    ),
    click.option(
        "--evict-idle",
        type=_Time(),
        help="When full, end the client that has been idle longest, if for SECONDS, to make room "
        "for the next one.  [default: never]",
    ),
    click.option(
        "--keepalive/--no-keepalive",
        default=True,
        show_default=True,
        help="Probe silent clients, and give back the slot of one that has vanished after two "
        "minutes.",
    ),
    click.option(
        "--tcp-user-timeout",
        type=_Time(MOST_USER_TIMEOUT_S),
        help="End a client that has not acknowledged what was sent for SECONDS. Also ends a live "
        "one that does not read.  [default: the system's]",
    ),
    click.option(
        "--handshake-timeout",
        type=_Time(),
        default=10.0,
        show_default=True,
        help="End a TLS client that has not finished its handshake after SECONDS.",
    ),
]

_OF_SERVE = [
    click.option(
        "--deferred-start",
        is_flag=True,
        help="Start HANDLER only when a client's first byte is here: a silent client then costs "
        "little more than its slot. For protocols in which the client speaks first.",
    ),
    click.option(
        "--tls-cert",
        metavar="FILE",
        help="Serve TLS with the certificates in FILE (PEM): the server's, then those that lead "
        "to a root. SIGHUP reads it again.",
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
    handshake_timeout: float


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
        keepalive: bool,
        tcp_user_timeout: float | None,
        handshake_timeout: float,
        **arguments: Any,
    ) -> Any:
        timeouts = Timeouts(
            first_byte=first_byte_timeout,
            idle=idle_timeout,
            lifetime=lifetime,
            keepalive=Keepalive() if keepalive else None,
            user_timeout=tcp_user_timeout,
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

    :raises SettingError: --tls-key or --tls-client-ca without --tls-cert.
    """
    if tls_cert is None:
        for setting, given in {"--tls-key": tls_key, "--tls-client-ca": tls_client_ca}.items():
            if given is not None:
                raise SettingError(setting, given, "needs --tls-cert")
    return {
        **of_timeouts,
        "deferred_start": deferred_start,
        "tls": None if tls_cert is None else TlsFiles(tls_cert, tls_key, tls_client_ca),
    }
