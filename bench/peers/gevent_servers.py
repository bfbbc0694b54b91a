"""gevent without this project: its own server with a Pool, and the floor under any other."""

from __future__ import annotations

import sys

from bench.peers.base import Launch, Policy, PythonPeer, Site


class GeventPool(PythonPeer):
    name = "gevent-pool"
    title = "gevent StreamServer(spawn=Pool(n))"
    policy = Policy.QUEUE
    server = "gevent_pool"
    distribution = "gevent"
    counts = "greenlets in the pool; when it is full the server stops accepting"


class GeventFloor(PythonPeer):
    name = "gevent-floor"
    title = "Bare gevent accept-and-close loop (floor)"
    policy = Policy.FIN
    distribution = "gevent"
    counts = "an integer: up at accept, down after the echo greenlet has closed"

    def render(self, site: Site) -> Launch:
        return Launch([sys.executable, "-m", "bench.floor", str(site.port), str(site.cap)])
