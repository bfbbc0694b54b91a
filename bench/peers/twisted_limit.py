"""Twisted's LimitTotalConnectionsFactory."""

from __future__ import annotations

from bench.peers.base import Policy, PythonPeer


class TwistedLimit(PythonPeer):
    name = "twisted"
    title = "Twisted LimitTotalConnectionsFactory"
    policy = Policy.FIN
    server = "twisted_limit"
    distribution = "Twisted"
    counts = "protocols the factory built, less those whose connectionLost was called"
