"""A keyword that neither the server nor TLS knows: gevent makes a TLS server of it."""

from __future__ import annotations

import os
import ssl
from typing import Any

import gevent.pywsgi
import gevent.server
import gevent.ssl
import pytest
from support import CERTIFICATE, KEY, LOCAL, client_context, connect, greet, outcome, running
from support import server_context as context_of

from gserver import Limiter, Limits, SettingError, StreamServer, WSGIServer

CONTEXT = context_of(gevent.ssl.SSLContext)
FILES = {"keyfile": str(KEY), "certfile": str(CERTIFICATE)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"per_source": 1}, "per_source 1: is given as limits=Limits(max_connections=…, per_sour"),
        ({"first_byte": 5.0}, "first_byte 5.0: is given as timeouts=Timeouts(first_byte=…)"),
        ({"settel": 0.1}, "settel 0.1: is no setting of this server: did you mean settle? acc"),
        ({"per_sourse": 1}, "did you mean limits=Limits(max_connections=…, per_source=…)?"),
        ({"blah": 1}, "blah 1: is no setting of this server: accepted are max_connections, limits"),
        ({"blah": 1, **FILES}, "certfile, server_side, cert_reqs"),
        ({"blah": 1, "ssl_context": CONTEXT}, "do_handshake_on_connect, suppress_ragged_eofs"),
        ({"ssl_context": CONTEXT, **FILES}, f"keyfile {str(KEY)!r}: goes without ssl_context"),
        ({"server_hostname": "a", **FILES}, "server_hostname 'a': needs an ssl_context"),
        ({"keyfile": str(KEY)}, "which needs an ssl_context, or a certfile"),
        ({"certfile": None}, "certfile None: is for TLS, which needs an ssl_context, or a certfi"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("server_class", [StreamServer, WSGIServer])
@pytest.mark.parametrize(
    "cap",
    [{"max_connections": 1}, {"spawn": 1}, {"limits": Limits(max_connections=1)}],
    ids=", ".join,
)
def test_with_a_cap_it_is_an_error_that_says_what_is_accepted(
    arguments: Any, said: str, server_class: Any, cap: Any
) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SettingError) as caught:
        server_class(LOCAL, greet, **cap, **arguments)
    assert caught.value.setting in arguments
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_is_accepted_is_what_gevent_and_gserver_take() -> None:
    with pytest.raises(SettingError) as caught:
        StreamServer(LOCAL, greet, limiter=Limiter(1), blah=1)
    for setting in (
        "limiter",
        "evict_idle",
        "handle",
        "backlog",
        "spawn",
        "ssl_context",
        "ciphers",
    ):
        assert f" {setting}" in str(caught.value)
    with pytest.raises(SettingError, match="environ"):
        WSGIServer(LOCAL, greet, limiter=Limiter(1), blah=1)


# gevent makes the context for certfile= and keyfile= itself.
@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS is deprecated")
@pytest.mark.parametrize(
    "arguments",
    [
        {"ssl_context": CONTEXT, "suppress_ragged_eofs": False},
        {"ssl_context": CONTEXT, "server_side": True, "do_handshake_on_connect": True},
        {"ssl_context": context_of(ssl.SSLContext), "session": None},
        {**FILES, "cert_reqs": ssl.CERT_NONE, "ca_certs": str(CERTIFICATE), "ciphers": "DEFAULT"},
    ],
    ids=lambda arguments: ", ".join(arguments),
)
def test_what_gevent_takes_for_tls_is_taken(arguments: Any) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1, **arguments)) as server:
        with connect(server) as plain, client_context().wrap_socket(plain) as client:
            assert outcome(client) == "served"


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS is deprecated")
def test_a_context_of_ones_own_may_take_more() -> None:
    taken = []

    class Context(gevent.ssl.SSLContext):
        def wrap_socket(self, sock: Any, *, mine: int = 0, **more: Any) -> Any:
            taken.append((mine, more.pop("others")))
            return super().wrap_socket(sock, **more)

    arguments: Any = {"ssl_context": context_of(Context), "mine": 1, "others": 2}
    with running(StreamServer(LOCAL, greet, max_connections=1, **arguments)) as server:
        with connect(server) as plain, client_context().wrap_socket(plain) as client:
            assert outcome(client) == "served"
    assert taken == [(1, 2)]


@pytest.mark.parametrize("kind", [(StreamServer, gevent.server), (WSGIServer, gevent.pywsgi)])
def test_without_a_cap_it_is_gevents_business(kind: Any) -> None:
    server_class, module = kind
    ours = server_class(LOCAL, greet, per_source=1)
    theirs = getattr(module, server_class.__name__)(LOCAL, greet, per_source=1)
    assert ours.ssl_args == theirs.ssl_args == {"per_source": 1, "server_side": True}
