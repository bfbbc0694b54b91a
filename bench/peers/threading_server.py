"""socketserver.ThreadingTCPServer, as it comes and with a semaphore."""

from __future__ import annotations

from bench.peers.base import Launch, Policy, PythonPeer, Site


class Threading(PythonPeer):
    """The stock class. It has no limit at all: the row shows what that means."""

    name = "threading"
    title = "ThreadingTCPServer (no limit)"
    policy = Policy.UNLIMITED
    server = "threading_server"
    counts = "nothing: a thread for every connection"

    def render(self, site: Site) -> Launch:
        return super().render(Site(site.port, 0, site.folder))


class ThreadingSemaphore(PythonPeer):
    name = "threading-semaphore"
    title = "ThreadingTCPServer, semaphore in process_request"
    policy = Policy.FIN
    server = "threading_server"
    counts = "permits of one semaphore: taken before the thread starts, back after its close"

    def render(self, site: Site) -> Launch:
        launch = super().render(site)
        # With the class's own of 5, a thousand holders would need a minute to come in: their SYNs
        # are dropped and sent again. The burst, at a cap of 3, shows the class as it comes.
        backlog = ["--backlog", str(site.cap)] if site.cap > 100 else []
        return Launch([*launch.argv, *backlog])
