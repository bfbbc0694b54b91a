"""gevent without this project: its own server with a Pool, and the floor under any other."""

from __future__ import annotations

from bench.peers.base import Policy, PythonPeer


class GeventPool(PythonPeer):
    name = "gevent-pool"
    title = "gevent StreamServer(spawn=Pool(n))"
    policy = Policy.QUEUE
    server = "gevent_pool"
    distribution = "gevent"
    counts = "greenlets in the pool; when it is full the server stops accepting"


class GeventFloor(PythonPeer):
    name = "gevent-floor"
    title = "Bare gevent accept loop (floor)"
    policy = Policy.FIN
    server = "gevent_floor"
    distribution = "gevent"
    counts = "an integer: down at accept, up after the echo greenlet has closed"
