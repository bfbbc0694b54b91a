"""What an idle held connection costs in memory."""

from __future__ import annotations

from bench.experiments.base import Experiment, Figures, Subject
from bench.peers import Peer
from bench.results import Figure
from gserver.probe.holders import Holders
from gserver.probe.procstat import measure
from gserver.probe.run import Run

KIB = 1024

#: Clients that connect at once, at most; and no more than the server's backlog, or their SYNs are
#: dropped and come back a second later.
AT_ONCE = 128


class Memory(Experiment):
    name = "memory"
    title = "Memory of a held, idle connection"
    own_cap = 1_000
    seconds = 1.0
    figures = (
        Figure("pss", "server PSS", "KiB", compared=True, plotted=True),
        Figure("sockets", "TCP buffers", "KiB"),
    )

    def fits(self, peer: Peer) -> bool:
        """Also those without a limit; not those that serve one client whatever the cap."""
        return peer.capacity(2) != 1

    def group(self, peer: Peer) -> str:
        """All: holding a client is the same job whatever happens to the next."""
        return "all"

    def measure(self, subject: Subject, run: Run) -> Figures:
        holders = Holders(subject.target, subject.calibration, run)
        oracle = subject.calibration.oracle
        assert oracle is not None  # the servers are this machine's
        backlog = oracle.listeners(subject.running.port)[0].backlog
        step = max(1, min(AT_ONCE, backlog))
        try:
            # The first clients fill what the process had free on its heap: they look too cheap.
            first = subject.cap // 5
            fill(holders, first, step)
            before = measure(subject.running.pid, memory=True)
            fill(holders, subject.cap, step)
            after = measure(subject.running.pid, memory=True)
        finally:
            holders.close()
        count = subject.cap - first
        return {
            "pss": (after.server_pss - before.server_pss) / count / KIB,
            "sockets": (after.socket_memory - before.socket_memory) / count / KIB,
        }


def fill(holders: Holders, count: int, step: int) -> None:
    """Hold ``count`` in all, ``step`` more at a time."""
    for held in range(step, count, step):
        holders.fill(held)
    holders.fill(count)
