"""Twisted: an echo factory wrapped in LimitTotalConnectionsFactory."""

# mypy: ignore-errors
# Twisted describes its reactor by zope interfaces, which mypy reads wrongly without zope's plugin.

from __future__ import annotations

from twisted.internet import protocol, reactor
from twisted.protocols.policies import LimitTotalConnectionsFactory

from bench.peers.servers.options import HOST, parse


class Echo(protocol.Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


def main() -> None:
    options = parse()
    limit = LimitTotalConnectionsFactory()
    limit.protocol = Echo
    limit.connectionLimit = options.max_connections
    reactor.listenTCP(options.port, limit, backlog=options.backlog, interface=HOST)
    reactor.run()


if __name__ == "__main__":
    main()
