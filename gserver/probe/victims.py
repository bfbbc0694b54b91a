"""Victims: admitted connections that send a ping in turn, at a rate, and time the answers.

In an open loop. A victim whose answer is outstanding when its next ping is due sends that ping as
soon as the answer has come, and the answer is timed from when the ping was *due*: a server that
stalls for a second has kept everyone waiting who came in that second, not only the first.
"""

from __future__ import annotations

from array import array
from collections import deque
from time import monotonic_ns
from typing import Any

from gevent import get_hub
from gevent.event import Event

from gserver.probe.profiles import Profile

__all__ = ["Pings", "Victims"]

_MOST_HEARD = 65_536  # bytes of one answer that are looked through


class Pings:
    """The pings of one phase, by the order of their answers. Times are monotonic ns.

    ``late``: sent after they were due, because the answer before had not come; ``missed``: when
    those were due that never got one; ``given_up``: until when those were waited for.
    """

    def __init__(self) -> None:
        self.due = array("q")
        self.sent = array("q")
        self.answered = array("q")
        self.by_victim = array("q")
        self.slip = array("q")  # of those that were sent when the timer said so
        self.late: list[int] = []
        self.missed: list[int] = []
        self.given_up = 0
        self.lost = 0  # victims that the server ended

    def as_json(self, origin_ns: int) -> dict[str, Any]:
        """Columns, times in nanoseconds since *origin_ns*."""
        times = {"due": self.due, "sent": self.sent, "answered": self.answered}
        return {
            "unit": "ns since the first phase began",
            **{name: [t - origin_ns for t in column] for name, column in times.items()},
            "victim": list(self.by_victim),
            "missed": [t - origin_ns for t in self.missed],
        }


class _Victim:
    __slots__ = ("due", "heard", "sent", "sock", "waiting", "watcher")

    def __init__(self, sock: Any) -> None:
        self.sock = sock  # None: gone
        self.watcher: Any = None
        self.due = 0  # of the ping that is outstanding; 0: none is
        self.sent = 0
        self.heard = b""
        self.waiting: deque[int] = deque()  # due, not sent yet


class Victims:
    """The connections, and what the current phase has of them.

    :param socks: non-blocking, proven served; closed by :meth:`close`.
    :param profile: one whose ``ping`` can be repeated.
    """

    def __init__(self, socks: list[Any], profile: Profile) -> None:
        assert profile.expect is not None
        self._expect = profile.expect
        self._ping = profile.ping
        self._turn = 0
        self._outstanding = 0  # of the current phase, waiting ones included
        self._idle = Event()
        self._from = 0  # answers to pings due before belong to no phase
        self.pings = Pings()
        self._victims = [_Victim(sock) for sock in socks]
        for i, victim in enumerate(self._victims):
            victim.watcher = get_hub().loop.io(victim.sock.fileno(), 1)
            victim.watcher.start(self._readable, i)

    def close(self) -> None:
        """End them all. May be called again."""
        for victim in self._victims:
            self._drop(victim)

    @property
    def alive(self) -> int:
        """How many the server has not ended."""
        return sum(victim.sock is not None for victim in self._victims)

    def begin(self) -> None:
        """A phase begins: what was sent before is no part of it."""
        self.pings = Pings()
        self._from = monotonic_ns()
        self._outstanding = 0

    def finish(self, wait_s: float) -> Pings:
        """The phase is over: wait for answers that are outstanding, at most *wait_s*."""
        self._idle.clear()
        if self._outstanding:
            self._idle.wait(wait_s)
        pings = self.pings
        pings.given_up = monotonic_ns()
        for victim in self._victims:
            pings.missed += victim.waiting
            victim.waiting.clear()
            if victim.due >= self._from and victim.due:
                pings.missed.append(victim.due)
        self.begin()
        return pings

    def send(self, due: int) -> bool:
        """The next victim's ping, now or when its turn comes; True: none is skipped."""
        i = self._turn
        self._turn = (i + 1) % len(self._victims)
        victim = self._victims[i]
        if victim.sock is None:
            self.pings.missed.append(due)
            return True
        self._outstanding += 1
        if victim.due:
            self.pings.late.append(due)
            victim.waiting.append(due)
        else:
            self.pings.slip.append(monotonic_ns() - due)
            self._send(victim, due)
        return True

    def _send(self, victim: _Victim, due: int) -> None:
        victim.due, victim.sent = due, monotonic_ns()
        try:
            victim.sock.send(self._ping)
        except BlockingIOError:  # the server does not read: no answer will come
            pass
        except OSError:
            self._lose(victim)

    def _readable(self, i: int) -> None:
        victim = self._victims[i]
        try:
            data = victim.sock.recv(16_384)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(victim)
            return
        if not victim.due:
            return  # more of the answer that was matched already
        victim.heard = (victim.heard + data)[-_MOST_HEARD:]
        if self._expect.search(victim.heard):
            self._answered(i, victim)

    def _answered(self, i: int, victim: _Victim) -> None:
        now, pings = monotonic_ns(), self.pings
        if victim.due >= self._from:
            pings.due.append(victim.due)
            pings.sent.append(victim.sent)
            pings.answered.append(now)
            pings.by_victim.append(i)
            self._settle(1)
        victim.due, victim.heard = 0, b""
        if victim.waiting:
            self._send(victim, victim.waiting.popleft())

    def _settle(self, count: int) -> None:
        self._outstanding -= count
        if self._outstanding <= 0:
            self._idle.set()

    def _lose(self, victim: _Victim) -> None:
        """The server has ended it: none of its pings gets an answer."""
        self.pings.lost += 1
        mine = [due for due in (victim.due, *victim.waiting) if due >= self._from and due]
        self.pings.missed += mine
        victim.due = 0
        victim.waiting.clear()
        self._drop(victim)
        self._settle(len(mine))

    def _drop(self, victim: _Victim) -> None:
        if victim.sock is not None:
            victim.watcher.stop()
            victim.watcher.close()
            victim.sock.close()
            victim.sock = None
