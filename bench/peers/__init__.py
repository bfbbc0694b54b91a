"""The peers: other servers with a connection limit, each described in a small file.

base.py       what a peer says of itself: find, render, policy, profile, what its cap counts
process.py    starting one, waiting until it listens, ending it
servers/      the programs behind the Python peers;  tokio/  those in Rust
the rest      one file for each kind of server

:data:`PEERS` is all of them by name, ours first.

Equal in all: an echo server (Redis: PING) on loopback, one process or one worker (``tokio-threads``
and the thread-per-connection ones say so in their names), no log of rejections, and a listener's
queue as long as the system allows (``Site.backlog``). TCP_NODELAY is as each sets it: with one
short question under way at a time Nagle's algorithm holds nothing back (RFC 896: it waits only for
what is unacknowledged).
"""

from __future__ import annotations

from bench.peers.article_tokio import Tokio, TokioSequential, TokioThreads, TokioWait
from bench.peers.asyncio_semaphore import AsyncioSemaphore
from bench.peers.base import Missing, Peer, Policy
from bench.peers.envoy import EnvoyLimit
from bench.peers.gevent_servers import GeventFloor, GeventPool
from bench.peers.haproxy import HAProxyMaxconn, HAProxyReject
from bench.peers.nginx_stream import NginxStream
from bench.peers.ours import (
    GserverClose,
    GserverRefuse,
    GserverReply,
    GserverReplyRedis,
    GserverReset,
)
from bench.peers.process import PeerFailed, Running, start
from bench.peers.redis_maxclients import RedisMaxclients
from bench.peers.sequential import Sequential
from bench.peers.threading_server import Threading, ThreadingSemaphore
from bench.peers.twisted_limit import TwistedLimit

__all__ = ["PEERS", "Missing", "Peer", "PeerFailed", "Policy", "Running", "start"]

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        GserverClose(),
        GserverReset(),
        GserverReply(),
        GserverReplyRedis(),
        GserverRefuse(),
        GeventFloor(),
        Tokio(),
        TokioThreads(),
        NginxStream(),
        HAProxyReject(),
        EnvoyLimit(),
        TwistedLimit(),
        AsyncioSemaphore(),
        ThreadingSemaphore(),
        RedisMaxclients(),
        HAProxyMaxconn(),
        GeventPool(),
        TokioWait(),
        Sequential(),
        TokioSequential(),
        Threading(),
    )
}
