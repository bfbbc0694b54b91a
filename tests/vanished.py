"""A peer that vanishes without a word, in a network namespace of its own (needs root).

    unshare --net python vanished.py started|deferred

Prints how the connection ended. The client's packets, and everybody's, are dropped by nftables
once it holds a slot: what a pulled cable looks like.
"""

from __future__ import annotations

import subprocess
import sys

from support import LOCAL, connect, eventually, greet, outcome, running

from gserver import Keepalive, StreamServer, Timeouts

DROP = """
table inet vanished {
    chain in { type filter hook input priority 0; policy drop; }
}
"""


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    timeouts = Timeouts(keepalive=Keepalive(idle=1, interval=1, count=2))
    made = StreamServer(
        LOCAL,
        greet,
        max_connections=1,
        timeouts=timeouts,
        deferred_start=sys.argv[1] == "deferred",
    )
    with running(made) as server:
        client = connect(server)
        if sys.argv[1] == "deferred":
            eventually(lambda: server.stats.active == 1)
        else:
            assert outcome(client) == "served"
        subprocess.run(["nft", "-f", "-"], input=DROP, text=True, check=True)
        eventually(lambda: server.stats.active == 0, within=15.0)
        print(*(ending for ending, count in server.stats.finished.items() if count))
        client.close()


if __name__ == "__main__":
    main()
