"""The options of ``gserver serve`` for listeners behind proxies (the PROXY protocol)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from gserver.daemon.flags import Number, in_flags
from gserver.errors import SettingError
from gserver.net.proxies import DEFAULT_TIMEOUT_S, Proxies

__all__ = ["proxies_of", "proxy_options"]

F = TypeVar("F", bound=Callable[..., Any])

_NETWORKS = click.option(
    "--proxy-protocol-from",
    multiple=True,
    metavar="NETWORK",
    help="Every client comes by way of a proxy in NETWORK (10.0.0.0/8, an address, unix for a unix "
    "socket's peers, all), which says for whom with a PROXY protocol header, version 1 or 2. "
    "Whoever else connects is turned away. May be given again.  [default: no proxies]",
)
_TIMEOUT = click.option(
    "--proxy-timeout",
    type=Number(float, "SECONDS"),
    help="How long a proxy has for the header, which takes a slot meanwhile.  "
    f"[default: {DEFAULT_TIMEOUT_S:g}]",
)


def proxy_options(command: F) -> F:
    """Adds them; for :func:`proxies_of`."""
    return _NETWORKS(_TIMEOUT(command))


def proxies_of(proxy_protocol_from: tuple[str, ...], proxy_timeout: float | None) -> Proxies | None:
    """What they ask for; None: clients connect themselves.

    :raises SettingError: naming the option.
    """
    if not proxy_protocol_from:
        if proxy_timeout is not None:
            raise SettingError("--proxy-timeout", proxy_timeout, "needs --proxy-protocol-from")
        return None
    with in_flags():
        timeout = DEFAULT_TIMEOUT_S if proxy_timeout is None else proxy_timeout
        return Proxies(proxy_protocol_from, timeout)
