"""socketserver.ThreadingTCPServer, as it comes and with a semaphore."""

from __future__ import annotations

from dataclasses import replace

from bench.peers.base import Launch, Policy, PythonPeer, Site


class Threading(PythonPeer):
    """The stock class. It has no limit at all: the row shows what that means."""

    name = "threading"
    title = "ThreadingTCPServer (no limit)"
    policy = Policy.UNLIMITED
    server = "threading_server"
    counts = "nothing: a thread for every connection"

    def render(self, site: Site) -> Launch:
        return super().render(replace(site, cap=0))


class ThreadingSemaphore(PythonPeer):
    name = "threading-semaphore"
    title = "ThreadingTCPServer, semaphore in process_request"
    policy = Policy.FIN
    server = "threading_server"
    counts = "permits of one semaphore: taken before the thread starts, back after its close"
