"""asyncio streams with a Semaphore: whoever finds it locked is closed at once."""

from __future__ import annotations

import asyncio
import contextlib

from bench.peers.servers.options import HOST, parse


async def serve(port: int, cap: int, backlog: int) -> None:
    slots = asyncio.Semaphore(cap)

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if slots.locked():
            writer.close()
            return
        async with slots:
            try:
                while data := await reader.read(4096):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass  # a client's reset is that client's business
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    server = await asyncio.start_server(on_client, HOST, port, backlog=backlog)
    await server.serve_forever()


def main() -> None:
    options = parse()
    asyncio.run(serve(options.port, options.max_connections, options.backlog))


if __name__ == "__main__":
    main()
