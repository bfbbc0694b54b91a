"""Close one connection at a full cap and reconnect at once: is the freed slot there?

On blocking sockets, with nothing between the close and the connect but the two calls: the closer
they follow each other, the likelier a server finds the new client before it has seen the old one's
end.
"""

from __future__ import annotations

import socket
import statistics
import time

from bench.experiments.base import Experiment, Figures, Subject, Unfit, micro
from bench.results import Figure
from gserver.probe.profiles import Profile
from gserver.probe.run import Run

TRIES = 500

#: Seconds between two tries. A server that is still awake from the last one is quicker to see the
#: close than one that sleeps, as it does between real clients: without the pause, 494 of 500 were
#: admitted by the bare gevent loop and 500 by Envoy; with it, 150 and 85.
PAUSE = 0.002

#: Seconds between the tries of a client that was turned away.
AGAIN = 0.001

#: Seconds for an answer, and for a freed slot to come back.
DEADLINE = 2.0


class Churn(Experiment):
    name = "churn"
    title = f"Close, then reconnect, {TRIES} times at a full cap"
    seconds = 2.0
    figures = (
        Figure("first", f"admitted at once of {TRIES}", plotted=True),
        Figure("false", "false rejections"),
        Figure("gap", "close to connect p50", "us"),
        Figure("lag", "close to reply p50", "us"),
    )

    def measure(self, subject: Subject, run: Run) -> Figures:
        profile, address = subject.calibration.profile, subject.target.address
        held: list[socket.socket] = []
        first, false = 0, 0
        gaps, lags = [], []
        try:
            while len(held) < subject.cap:
                held.append(admitted(address, profile, time.monotonic() + DEADLINE)[0])
            for done in range(TRIES):
                if run.stopped:
                    raise Unfit("stopped")
                run.tell(f"{done} of {TRIES}")
                time.sleep(PAUSE)
                leaving = held.pop(0)
                closed = time.monotonic()
                leaving.close()
                sock, connecting, refusals = admitted(address, profile, closed + DEADLINE)
                held.append(sock)
                first += not refusals
                false += refusals
                gaps.append(connecting - closed)
                lags.append(time.monotonic() - closed)
        finally:
            for sock in held:
                sock.close()
        return {
            "first": first,
            "false": false,
            "gap": micro(statistics.median(gaps)),
            "lag": micro(statistics.median(lags)),
        }


def admitted(
    address: tuple[str, int], profile: Profile, deadline: float
) -> tuple[socket.socket, float, int]:
    """Connect, again and again, until served.

    Returns the connection, when its first try began (monotonic seconds), and how often it was
    turned away before. Raises :class:`Unfit` when the deadline passes first.
    """
    began, refusals = time.monotonic(), 0
    while True:
        sock = socket.socket()
        sock.settimeout(DEADLINE)
        try:
            sock.connect(address)
            sock.send(profile.send)
            reply = sock.recv(4096)
        except (ConnectionError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                sock.close()
                raise Unfit(f"no answer in {DEADLINE:g} s") from error
            reply = b""
        if profile.expect is not None and profile.expect.search(reply):
            return sock, began, refusals
        sock.close()
        refusals += 1
        if time.monotonic() > deadline:
            raise Unfit(f"turned away {refusals} times in {DEADLINE:g} s with a slot free")
        time.sleep(AGAIN)
