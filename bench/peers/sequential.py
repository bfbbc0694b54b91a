"""The article's first server, in Python: no limit, one client at a time."""

from __future__ import annotations

from bench.peers.base import Policy, PythonPeer


class Sequential(PythonPeer):
    name = "sequential"
    title = "Sequential (article, Python)"
    policy = Policy.QUEUE
    server = "sequential"
    counts = "nothing: one client is served at a time, whatever cap is asked for"

    def capacity(self, cap: int) -> int:
        return 1
