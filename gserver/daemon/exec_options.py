"""The options of ``gserver exec``, which its environment variables are made of too.

Every rule, rejection and timeout is the same option as of ``gserver serve``; what cannot hold for
a program that serves by itself is an option as well, so that its error says why.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from gserver.admission.limits import MOST_SLOTS, Limits
from gserver.daemon.admission_options import admission_options
from gserver.daemon.connection_options import HANDSHAKE_S, TimeoutSettings, timeout_options
from gserver.daemon.descriptors import shares_of
from gserver.daemon.flags import Count, Seconds, in_flags
from gserver.daemon.rejection_options import Rejections, rejection_options
from gserver.errors import SettingError
from gserver.legacy import descriptors, messages
from gserver.legacy.install import SETTLE_S, install

__all__ = ["ExecSettings", "exec_options"]

_PROXIES: Final = "the program would read a proxy's header as its client's words"
_TLS: Final = (
    "the program does its own TLS; --handshake-timeout holds for it where its sockets are the "
    "ssl module's, block and have no timeout"
)
_NO_HANDLER: Final = "there is no HANDLER: PROGRAM runs as Python would run it"

#: Options of ``gserver serve`` that cannot hold, and why.
_NOT_HERE: Final = {
    "--listen": "the program listens where it likes; --only names the listeners that count",
    "--backlog": "it is always the system's limit, whatever the program asks for",
    "--deferred-start": "the program starts its threads by itself",
    "--drain-timeout": "the program ends as it would without a cap",
    "--proxy-protocol-from": _PROXIES,
    "--proxy-timeout": _PROXIES,
    "--tls-cert": _TLS,
    "--tls-key": _TLS,
    "--tls-client-ca": _TLS,
    "--app-dir": _NO_HANDLER,
    "--kind": _NO_HANDLER,
}
_FLAGS: Final = ("--deferred-start",)

_OPTIONS: Final = (
    click.option(
        "--max-connections", type=Count(MOST_SLOTS), required=True, help="Clients served at once."
    ),
    click.option(
        "--only",
        multiple=True,
        metavar="ADDRESS",
        help="The listener that counts, as :PORT, HOST:PORT or unix:/path; may be repeated. "
        "Default: the first that is not the program's own business, and others with its port.",
    ),
)
_LATER_OPTIONS: Final = (
    click.option(
        "--settle",
        type=Seconds(),
        help="How long a client may wait at the cap for a connection that is ending. A program "
        "that forks for each connection wants 0.05.  "
        f"[default: {SETTLE_S:g}; 0 with --wait]",
    ),
    click.option(
        "--reap-after",
        type=Seconds(),
        help="Shut down a connection whose client has left, and that the program has not closed, "
        "after SECONDS. A client may have shut only its sending side.  [default: never]",
    ),
)


@dataclass(frozen=True, slots=True)
class ExecSettings:
    """The cap of an unmodified program. See :func:`gserver.legacy.install`."""

    limits: Limits
    rejections: Rejections
    of_timeouts: TimeoutSettings
    settle: float | None
    only: tuple[str, ...]
    reap_after: float | None

    def install(self) -> None:
        """Cap this process, which is patched, and let it know on stderr what happens.

        :raises SettingError: naming an option.
        """
        limits, rejections = self.limits, self.rejections
        rejections.check_replies()
        shares = shares_of(limits) + rejections.shares()
        largest = max(shares, key=lambda share: share.descriptors)
        messages.to_stderr()
        descriptors.raise_limit(
            sum(share.descriptors for share in shares),
            largest=(largest.setting, largest.given),
        )
        try:
            install(
                limits=limits,
                settle=self.settle,
                rejection=rejections.by_reason,
                only=self.only,
                reap_after=self.reap_after,
                timeouts=self.of_timeouts["timeouts"],
                evict_idle=self.of_timeouts["evict_idle"],
                handshake_timeout=self.of_timeouts["handshake_timeout"] or HANDSHAKE_S,
            )
        except SettingError as error:
            with in_flags():
                raise rejections.in_flags(error) from None


def exec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which is called with ``settings``, an :class:`ExecSettings`,
    in their place."""

    @functools.wraps(command)
    def build(
        *,
        limits: Limits,
        rejections: Rejections,
        of_timeouts: TimeoutSettings,
        settle: float | None,
        only: tuple[str, ...],
        reap_after: float | None,
        **arguments: Any,
    ) -> Any:
        settings = ExecSettings(limits, rejections, of_timeouts, settle, only, reap_after)
        return command(settings=settings, **arguments)

    for flag, why in _NOT_HERE.items():
        _not_here(flag, why)(build)
    for option in reversed(_LATER_OPTIONS):
        option(build)
    with_all = rejection_options(refuse=False)(admission_options(timeout_options(build)))
    for option in reversed(_OPTIONS):
        option(with_all)
    return with_all


def _not_here(flag: str, why: str) -> Callable[[Any], Any]:
    def refuse(_context: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            raise SettingError(flag, value, f"goes without exec: {why}")

    return click.option(
        flag, is_flag=flag in _FLAGS, hidden=True, expose_value=False, callback=refuse
    )
