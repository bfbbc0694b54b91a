"""asyncio streams with a semaphore, rejecting when it is locked."""

from __future__ import annotations

from bench.peers.base import Policy, PythonPeer


class AsyncioSemaphore(PythonPeer):
    name = "asyncio"
    title = "asyncio streams, Semaphore.locked()"
    policy = Policy.FIN
    server = "asyncio_semaphore"
    counts = "permits of one Semaphore: handlers between accept and wait_closed"
