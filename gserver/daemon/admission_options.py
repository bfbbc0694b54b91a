"""Options about who gets in: one for each setting of ``Limits``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Final, TypeVar

import click

from gserver.admission.limits import DRY_RUNNABLE, Limits
from gserver.daemon.flags import Number, flag, in_flags

__all__ = ["admission_options"]

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS: Final = {f.name: f.default for f in fields(Limits) if f.default is not MISSING}
_COUNT: Final = Number(int, "N")
_BITS: Final = Number(int, "BITS")
_RATE: Final = Number(float, "PER_SECOND")
_SECONDS: Final = Number(float, "SECONDS")
_NETWORKS: Final = "May be given again."


def _option(
    setting: str, kind: Any, text: str, *, default: str | None = None, **more: Any
) -> Callable[[F], F]:
    """An option that is left to ``Limits`` when it is not given."""
    standing = _DEFAULTS[setting]
    if default is None and standing not in (None, ()):
        default = f"{standing:g}" if isinstance(standing, float) else str(standing)
    shown = f"  [default: {default}]" if default and not more.get("multiple") else ""
    return click.option(flag(setting), type=kind, help=text + shown, **more)


def _networks(setting: str, text: str) -> Callable[[F], F]:
    return _option(setting, str, f"{text} {_NETWORKS}", metavar="NETWORK", multiple=True)


_OPTIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "reserved": _option(
        "reserved", _COUNT, "Keep the last N slots for the clients of --reserved-for."
    ),
    "reserved_for": _networks(
        "reserved_for",
        "Who may take any slot, and is left alone by --rate and --early-drop: 192.0.2.0/24, "
        "2001:db8::/32, an address, 'unix' or 'all'.",
    ),
    "per_source": _option(
        "per_source",
        _COUNT,
        "The most slots that one source may hold.",
        default="no limit",
    ),
    "source_prefix_v4": _option(
        "source_prefix_v4", _BITS, "The leading bits of an IPv4 address that make a source."
    ),
    "source_prefix_v6": _option("source_prefix_v6", _BITS, "The same for IPv6."),
    "source_exempt": _networks(
        "source_exempt",
        "Whom the rules for single sources leave alone: load balancers, the gateways of address "
        "translators.",
    ),
    "rate": _option(
        "rate", _RATE, "Attempts per second of all clients together.", default="no limit"
    ),
    "rate_burst": _option(
        "rate_burst", _COUNT, "How many may come at once after a rest.", default="one second's"
    ),
    "source_rate": _option(
        "source_rate", _RATE, "Attempts per second of each source.", default="no limit"
    ),
    "source_rate_burst": _option(
        "source_rate_burst",
        _COUNT,
        "How many of a source may come at once after a rest.",
        default="one second's",
    ),
    "source_table": _option(
        "source_table",
        _COUNT,
        "The most sources that --source-rate and the penalties remember.",
    ),
    "allow": _networks(
        "allow",
        "Who may connect; if given, nobody else may, and clients of a unix socket only by 'unix' "
        "or 'all'.",
    ),
    "deny": _networks("deny", "Who may not connect. The most specific entry of both lists counts."),
    "early_drop": _option(
        "early_drop",
        str,
        "From START slots in use on, turn away RATE percent by lot, rising to all at FULL; not "
        "who waited for a slot.",
        default="off",
        metavar="START:RATE:FULL",
    ),
    "penalty": _option(
        "penalty",
        _SECONDS,
        "What a failed TLS handshake or an attempt beyond --source-rate costs its source; the "
        "attempt only while nobody is turned away for what others do.",
        default="off",
    ),
    "penalty_threshold": _option(
        "penalty_threshold", _SECONDS, "At how many seconds a source is shut out until they pass."
    ),
    "penalty_max": _option("penalty_max", _SECONDS, "The longest that a source is shut out."),
    "wait": _option(
        "wait",
        _SECONDS,
        "When full, let a client wait so long for a slot instead of turning it away at once.",
        default="off",
    ),
    "wait_queue": _option("wait_queue", _COUNT, "The most that wait at once."),
    "wait_order": _option(
        "wait_order",
        str,
        "Who is served first of those that wait: the first to come, or, lifo, the last.",
        metavar="fifo|lifo",
    ),
    "dry_run": _option(
        "dry_run",
        str,
        f"A rule that only counts and logs what it would have rejected: {', '.join(DRY_RUNNABLE)}."
        " May be given again.",
        metavar="REASON",
        multiple=True,
    ),
}


def admission_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which has ``--max-connections`` itself.

    The command is called with ``limits``, a :class:`Limits`, in place of them all.
    """

    @functools.wraps(command)
    def build(*, max_connections: int, **arguments: Any) -> Any:
        given = {setting: arguments.pop(setting) for setting in _OPTIONS}
        given = {setting: value for setting, value in given.items() if value not in (None, ())}
        with in_flags():
            limits = Limits(max_connections=max_connections, **given)
        return command(limits=limits, **arguments)

    for option in reversed(_OPTIONS.values()):
        option(build)
    return build
