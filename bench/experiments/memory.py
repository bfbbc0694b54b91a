"""What an idle held connection costs in memory."""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject
from bench.peers import Peer
from bench.results import Figure
from gserver.probe.holders import Holders
from gserver.probe.procstat import measure
from gserver.probe.run import Run

KIB = 1024

#: Clients that connect at once: no more than the smallest backlog among the servers, the 5 of
#: socketserver, or their SYNs are dropped and come back a second later.
AT_ONCE = 5


class Memory(Experiment):
    name = "memory"
    title = "Memory of a held, idle connection"
    caps = (1_000,)
    seconds = 4.0
    figures = (
        Figure("pss", "server PSS", "KiB", compared=True, plotted=True),
        Figure("sockets", "TCP buffers", "KiB"),
    )

    def fits(self, peer: Peer) -> bool:
        """Also those without a limit; not those that serve one client whatever the cap."""
        return peer.capacity(self.caps[0]) != 1

    def group(self, peer: Peer) -> str:
        """All: holding a client is the same job whatever happens to the next."""
        return "all"

    def measure(self, subject: Subject, run: Run) -> Figures:
        holders = Holders(subject.target, subject.calibration, run)
        try:
            # The first clients fill what the process had free on its heap: they look too cheap.
            first = subject.cap // 5
            fill(holders, first)
            before = measure(subject.running.pid, memory=True)
            fill(holders, subject.cap)
            after = measure(subject.running.pid, memory=True)
        finally:
            holders.close()
        count = subject.cap - first
        return {
            "pss": (after.server_pss - before.server_pss) / count / KIB,
            "sockets": (after.socket_memory - before.socket_memory) / count / KIB,
        }


def fill(holders: Holders, count: int) -> None:
    """Hold ``count`` in all."""
    for held in range(AT_ONCE, count, AT_ONCE):
        holders.fill(held)
    holders.fill(count)
