"""Candidates: clients accepted at the cap whose verdict waits for endings already under way.

Why a candidate waits one turn of the loop even with ``settle=0``: a client that closes its
connection and connects again has its FIN in our kernel before its SYN, but a loop that accepts in
batches can take the new connection in the same batch whose poll came before that FIN. Only a poll
made *after* the accept is sure to report it. Ten clients that together hold a cap of ten and
reconnect were turned away 506 times in 34,707 without that poll, 0 in 55,942 with it
(``tests/test_no_false_rejection.py``). Where a look into the loop's epoll set after the accept
shows nothing but more clients, that look is the poll, and nobody waits.

Only a candidate whose time is over without a slot has an idle connection evicted for it, where
that is wanted: an ending under way costs nobody else a connection. The slot is promised to it: it
waits on, before everybody who has been promised none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import gevent

from gserver.front import Client, Front
from gserver.one_shot import OneShot

__all__ = [
    "EVICTION_WAIT_S",
    "MAX_CANDIDATES",
    "MAX_REJECTIONS_PER_TURN",
    "MOST_HELD",
    "Candidates",
    "TurnShare",
    "iteration",
]

#: Rejections in one turn of the loop, by all listeners of a limiter (G5): at 16 the admitted keep
#: a p99 of about 2 ms under a flood, at 100 it is 8.7 ms, and rejecting is no faster
#: (bench/reject_cost.py).
MAX_REJECTIONS_PER_TURN: Final = 16
#: Candidates held at once (G8), by all listeners of a limiter. At the bound the oldest get their
#: verdicts early.
MAX_CANDIDATES: Final = 128
#: The most descriptors that takes: a listener takes its clients before the oldest are told, but
#: never more than may be told in the same turn.
MOST_HELD: Final = MAX_CANDIDATES + MAX_REJECTIONS_PER_TURN
#: How long, in seconds, a candidate may wait for the slot of a connection evicted for it, where
#: ``settle`` is not longer. A handler that returns on end-of-file gives it back in one turn of the
#: loop.
EVICTION_WAIT_S: Final = 0.1
#: Batches that are within it however large they are.
_FEW_BATCHES: Final = MAX_CANDIDATES // MAX_REJECTIONS_PER_TURN


class TurnShare:
    """What a limiter may turn away in one turn of the loop, whoever does it.

    Nobody who asks is given less than one: listeners are called in the same order in each turn,
    and the last of many would starve during a flood on the first. So with many of them up to one
    more each is turned away.
    """

    __slots__ = ("_askers", "_left", "_listeners", "_turn")

    def __init__(self) -> None:
        self._turn = -1
        self._left = 0
        self._askers = 0  # listeners that have asked in this turn
        self._listeners = 1  # those that did in the one before

    def left(self, turn: int) -> int:
        """How many more in this turn of the loop: 1 or more."""
        if turn != self._turn:
            self._begin(turn)
        return self._left if self._left > 0 else 1

    def whole(self, turn: int) -> int:
        """What is left in this turn of the loop, 0 or more; it is spent now."""
        if turn != self._turn:
            self._begin(turn)
            self._left = 0
            return MAX_REJECTIONS_PER_TURN
        left, self._left = self._left, 0
        return left if left > 0 else 0

    def _begin(self, turn: int) -> None:
        self._listeners = self._askers if self._askers and turn == self._turn + 1 else 1
        self._askers = 0
        self._turn = turn
        self._left = MAX_REJECTIONS_PER_TURN

    def spend(self, count: int) -> None:
        """So many have been turned away, in the turn last asked about."""
        self._left -= count

    def of_a_listener(self, turn: int) -> int:
        """How many a listener may take in this turn, to be turned away now or later: 1 or more.
        It asks once a turn."""
        if turn != self._turn:
            self._begin(turn)
        self._askers += 1
        return MAX_REJECTIONS_PER_TURN // self._listeners or 1

    def of_a_listener_now(self, turn: int) -> int:
        """:meth:`of_a_listener`, to be turned away in this turn."""
        most, left = self.of_a_listener(turn), self._left
        return most if most <= left else max(left, 1)


#: See :class:`Candidates`.
Decide = Callable[[int, Any, Front, bool, float], bool | None]
MakeRoom = Callable[[int, Any, Front], bool]


class Candidates:
    """First come, first served; but nobody waits for a slot that is of no use to who is ahead
    (it is reserved, or that one's source holds too many), nor for another's time to be over.

    :param decide: called with a candidate's descriptor, address and front, whether its time is
        over, and the time. True: it has had its verdict, and is no candidate any more. False: it
        waits on. None: so does everybody behind it whose time is not over.
    :param make_room: called with one whose time is over, unless there are too many: True: a slot
        is coming free for it, or is free already.
    :param asked: called when all have been asked who are to be: what is left is for others.
    :param settle: seconds each may wait; 0: one turn of the loop.
    """

    def __init__(
        self,
        decide: Decide,
        make_room: MakeRoom,
        asked: Callable[[], object],
        settle: float,
    ) -> None:
        self.settle = settle
        self.share = TurnShare()
        self._decide = decide
        self._make_room = make_room
        self._asked = asked
        # Those accepted in one turn of the loop, by one listener: until when, which, who, and
        # whether they are promised a slot; those are first, each by itself. None is empty.
        self._batches: deque[tuple[float, Front, deque[Client], bool]] = deque()
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
        return sum(len(batch[2]) for batch in self._batches)

    def may_decide_at_once(self) -> bool:
        """Whether newcomers need not be candidates if no ending is under way: there is none, none
        has to be, and nobody has been admitted or decided on in this turn of the loop."""
        return not (self._batches or self.settle or self._acted_in == iteration())

    def whole_share(self, turn: int) -> int:
        """All that is left of this turn's share of rejections, taken for newcomers who
        :meth:`may_decide_at_once`; else 0."""
        if self._batches or self.settle or self._acted_in == turn:
            return 0
        self._acted_in = turn
        return self.share.whole(turn)

    def descriptors(self) -> list[int]:
        """Those that the candidates hold."""
        return [fd for batch in self._batches for fd, _ in batch[2]]

    def may_take(self) -> int:
        """How many clients a listener may accept for :meth:`hold` now: 1 or more, and no more
        than find a place or may be turned away for, in this turn of the loop."""
        most = self.share.of_a_listener(turn := iteration())
        if len(self._batches) < _FEW_BATCHES:
            return most
        return min(most, MAX_CANDIDATES - len(self) + self.share.left(turn))

    def may_turn_away(self) -> int:
        """How many clients a listener may turn away now."""
        return self.share.of_a_listener_now(iteration())

    def hold(self, clients: deque[Client], front: Front, *, quiet: bool) -> None:
        """Decide on clients accepted in this turn of the loop, or make candidates of them.

        :param clients: not empty, at most MAX_REJECTIONS_PER_TURN; held here from now on.
        :param quiet: whether a poll made after they were accepted reported no connection:
            then no ending is under way, and with ``settle=0`` there is nothing to wait for.
        """
        settle = self.settle
        deadline = monotonic() + settle
        earlier = not any(batch[0] <= deadline for batch in self._batches)
        self._batches.append((deadline, front, clients, False))
        if quiet and not settle and len(self._batches) == 1 and self._acted_in != iteration():
            self._settled()
        elif len(self) > MAX_CANDIDATES:
            self._settled()  # the oldest get their verdict early
        elif earlier:
            self._timer.after(settle)

    def admitted_one(self) -> None:
        """A client has been admitted in this turn of the loop."""
        self._acted_in = iteration()

    def turned_one_away(self) -> None:
        """One of :meth:`may_turn_away` has been."""
        self.share.spend(1)

    def slot_came_back(self) -> None:
        """There may be a slot for the first of them, if there is a first."""
        if self._batches:
            self._timer.after(0.0)

    def leave(self, front: Front) -> list[Client]:
        """A listener closes: take its candidates out, and return them in their order."""
        leaving: list[Client] = []
        for _, whose, clients, _ in self._batches:
            if whose is front:
                leaving += clients
                clients.clear()  # also for a _decide_all() under way, which this may be called by
        self._drop_empty_batches()
        if not self._batches:
            self._timer.close()
        return leaving

    def _drop_empty_batches(self) -> None:
        self._batches = deque(batch for batch in self._batches if batch[2])

    def _settled(self) -> None:
        try:
            self._decide_all()
        except BaseException:
            if self._batches:  # go on with them, whatever that one was
                self._timer.after(0.0)
            raise

    def _decide_all(self) -> None:
        """A verdict for each whose slot is free or whose time is over."""
        self._acted_in = turn = iteration()
        decide = self._decide
        now = monotonic()
        budget = share = self.share.left(turn)
        crowded = len(self) - MAX_CANDIDATES
        nobody = False  # is admitted any more
        again = False  # at once
        try:
            for deadline, front, clients, promised in tuple(self._batches):
                stay = 0  # how many at the end of ``clients`` have been asked
                try:
                    for _ in range(len(clients)):
                        over = budget > 0 and (deadline <= now or crowded > 0)
                        if not clients or (nobody and not over):
                            break
                        may_evict = over and not promised and crowded <= 0
                        room = may_evict and self._make_room(*clients[0], front)
                        if not clients:  # who was evicted has closed their listener
                            break
                        # Out first: no error can have it decided twice.
                        client = clients.popleft()
                        # A slot that is free already is for the first who was promised one.
                        later = room and self._batches[0][3]
                        again = again or later
                        got = not later and decide(*client, front, over and not room, now)
                        if room and not got:
                            self._promise(client, front, now)
                            got = True
                        if not got:
                            clients.append(client)
                            stay += 1
                            nobody = nobody or got is None
                        elif over:
                            budget -= 1
                            crowded -= 1
                finally:
                    clients.rotate(stay)
        finally:
            self._drop_empty_batches()
            self.share.spend(share - budget)
        if self._batches:
            first = min(batch[0] for batch in self._batches)
            self._timer.after(0.0 if crowded > 0 or again else max(0.0, first - now))
        self._asked()

    def _promise(self, client: Client, front: Front, now: float) -> None:
        """A slot is coming free for it: it waits for that, behind the others who do."""
        place = sum(batch[3] for batch in self._batches)
        deadline = now + max(EVICTION_WAIT_S, self.settle)  # handlers take as long as settle to end
        self._batches.insert(place, (deadline, front, deque((client,)), True))


def iteration() -> int:
    """The number of this turn of the loop."""
    return gevent.get_hub().loop.iteration
