"""The echo server behind the proxies: no limit, nothing but the bytes."""

from __future__ import annotations

import asyncio

from bench.peers.servers.options import HOST, parse


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(port: int, backlog: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, HOST, port, backlog=backlog)
    await server.serve_forever()


if __name__ == "__main__":
    options = parse()
    asyncio.run(serve(options.port, options.backlog))
