"""Candidates: clients accepted at the cap whose verdict waits for endings already under way.

Why a candidate waits one turn of the loop even with ``settle=0``: a client that closes its
connection and connects again has its FIN in our kernel before its SYN, but a loop that accepts in
batches can take the new connection in the same batch whose poll came before that FIN. Only a poll
made *after* the accept is sure to report it. Ten clients that together hold a cap of ten and
reconnect were turned away 506 times in 34,707 without that poll, 0 in 55,942 with it
(``tests/test_no_false_rejection.py``). Where a look into the loop's epoll set after the accept
shows nothing but more clients, that look is the poll, and nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import gevent

from gserver.front import Client, Front
from gserver.one_shot import OneShot

__all__ = ["MAX_CANDIDATES", "MAX_REJECTIONS_PER_TURN", "Candidates"]

#: Rejections in one turn of the loop (G5): at 16 the admitted keep a p99 of about 2 ms under a
#: flood, at 100 it is 8.7 ms, and rejecting is no faster (bench/reject_cost.py).
MAX_REJECTIONS_PER_TURN: Final = 16
#: Candidates held at once (G8). At the bound the oldest gets its verdict early.
MAX_CANDIDATES: Final = 128


class Candidates:
    """First come, first served.

    :param decide: called with a candidate's descriptor, address and front, and whether its time
        is over. True: it has had its verdict, and is no candidate any more.
    :param settle: seconds each may wait; 0: one turn of the loop.
    """

    def __init__(self, decide: Callable[[int, Any, Front, bool], bool], settle: float) -> None:
        self.settle = settle
        self._decide = decide
        # Those accepted in one turn of the loop, by one listener: until when, which, who.
        self._batches: deque[tuple[float, Front, deque[Client]]] = deque()
        # The turn of the loop that last admitted or decided. In that turn nothing is decided at
        # once: a connection admitted in it is not in the epoll set yet, and its share of
        # rejections may be used up.
        self._acted_in: int | None = None
        self._timer = OneShot(self._settled)

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __len__(self) -> int:
        if not self._batches:  # as on every admission below the cap
            return 0
        return sum(len(clients) for _, _, clients in self._batches)

    def descriptors(self) -> list[int]:
        """Those that the candidates hold."""
        return [fd for _, _, clients in self._batches for fd, _ in clients]

    def hold(self, clients: deque[Client], front: Front, *, quiet: bool) -> None:
        """Decide on clients accepted in this turn of the loop, or make candidates of them.

        :param clients: not empty, at most MAX_REJECTIONS_PER_TURN; held here from now on.
        :param quiet: whether a poll made after they were accepted reported no connection:
            then no ending is under way, and with ``settle=0`` there is nothing to wait for.
        """
        self._batches.append((monotonic() + self.settle, front, clients))
        if len(self._batches) == 1:
            if quiet and not self.settle and self._acted_in != _iteration():
                self._settled()
            else:
                self._timer.after(self.settle)
        elif len(self) > MAX_CANDIDATES:
            self._settled()  # the oldest get their verdict early

    def admitted_one(self) -> None:
        """A client that was no candidate has been admitted in this turn of the loop."""
        self._acted_in = _iteration()

    def slot_came_back(self) -> None:
        """There may be a slot for the first of them, if there is a first."""
        if self._batches:
            self._timer.after(0.0)

    def leave(self, front: Front) -> list[Client]:
        """A listener closes: take its candidates out, and return them in their order."""
        leaving = [c for _, whose, clients in self._batches if whose is front for c in clients]
        self._batches = deque(batch for batch in self._batches if batch[1] is not front)
        if not self._batches:
            self._timer.close()
        return leaving

    def _settled(self) -> None:
        try:
            self._decide_all()
        except BaseException:
            if self._batches:  # go on with them, whatever that one was
                self._timer.after(0.0)
            raise

    def _decide_all(self) -> None:
        """A verdict for each whose slot is free or whose time is over. On the path of every
        rejection."""
        self._acted_in = _iteration()
        batches, decide = self._batches, self._decide
        now = monotonic()
        budget = MAX_REJECTIONS_PER_TURN
        crowded = len(self) - MAX_CANDIDATES
        while batches:
            deadline, front, clients = batches[0]
            while clients:
                # Out first: no error can have it decided twice.
                client = clients.popleft()
                over = budget > 0 and (deadline <= now or crowded > 0)
                if not decide(*client, front, over):
                    clients.appendleft(client)
                    self._timer.after(max(0.0, deadline - now))
                    return
                if over:
                    budget -= 1
                    crowded -= 1
            batches.popleft()


def _iteration() -> int:
    """The number of this turn of the loop."""
    return gevent.get_hub().loop.iteration
