"""The keywords that gevent takes for TLS's: whatever its constructors do not know.

A misspelt setting would make a TLS server without a certificate of it, which starts, and fails
with every client. Where there is a cap, it is an error.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, Final

import gevent.ssl

from gserver.admission.limits import Limits
from gserver.errors import SettingError
from gserver.timeouts import Timeouts

__all__ = ["check_keywords"]

#: What is set by one of a server's settings, and is none itself: how it is given.
_INSIDE: Final = {
    **{field.name: f"timeouts=Timeouts({field.name}=…)" for field in fields(Timeouts)},
    **{field.name: f"limits=Limits(max_connections=…, {field.name}=…)" for field in fields(Limits)},
}


def check_keywords(
    given: Mapping[str, object],
    context: ssl.SSLContext | None,
    constructors: Iterable[Callable[..., object]],
) -> None:
    """Look through what was left over for TLS.

    :param given: those keywords, with what was given.
    :param context: the ``ssl_context`` that was given besides.
    :param constructors: what knows the others: for the error's text.
    :raises SettingError: one of them is none of TLS's; or they make no TLS server, for want of a
        certificate.
    """
    # What connections will be wrapped by: see cooperative_wrap(). A subclass may take more.
    ours = gevent.ssl.SSLContext
    wrap: Any = (context if isinstance(context, ours) else ours).wrap_socket
    with_context, with_files = _names(wrap), _names(gevent.ssl.wrap_socket)
    accepted = with_files if context is None else with_context
    for name, value in given.items():
        if name in accepted or (context is not None and _takes_any(wrap)):
            continue
        if name in with_files:
            problem = "goes without ssl_context, which has its own"
        elif name in with_context:
            problem = "needs an ssl_context"
        else:
            settings = [setting for each in constructors for setting in _names(each)]
            problem = _unknown(name, settings, accepted)
        raise SettingError(name, value, problem)
    if given and context is None and not given.get("certfile"):
        name, value = next(iter(given.items()))
        raise SettingError(name, value, "is for TLS, which needs an ssl_context, or a certfile")


def _unknown(name: str, settings: list[str], of_tls: list[str]) -> str:
    if name in _INSIDE:
        return f"is given as {_INSIDE[name]}"
    near = get_close_matches(name, [*settings, *_INSIDE], 1)
    hint = f" did you mean {_INSIDE.get(near[0], near[0])}?" if near else ""
    return (
        f"is no setting of this server:{hint} accepted are {', '.join(dict.fromkeys(settings))}; "
        f"and for TLS ssl_context, {', '.join(of_tls)}"
    )


def _names(function: Callable[..., object]) -> list[str]:
    """The keywords that it names; but for its object, and the socket that it wraps."""
    parameters = signature(function).parameters.values()
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [it.name for it in parameters if it.kind in named and it.name not in ("self", "sock")]


def _takes_any(function: Callable[..., object]) -> bool:
    kinds = {it.kind for it in signature(function).parameters.values()}
    return Parameter.VAR_KEYWORD in kinds
