"""Waits: whose quiet-time has passed, and whose deadline. Pure: time is an argument.

Two queues, first in, first out: everybody waits equally long, so the head is always the earliest
and a sweep looks at no one who is not due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gserver.probe.attempt import Attempt, Patience

__all__ = ["Waits"]


class Waits:
    """The attempts of one engine, by what they wait for. Times are monotonic nanoseconds."""

    def __init__(self, patience: Patience) -> None:
        self._quiet_ns = int(patience.quiet_s * 1e9)
        self._deadline_ns = int(patience.deadline_s * 1e9)
        self._quiet: deque[tuple[int, Attempt]] = deque()
        self._deadline: deque[tuple[int, Attempt]] = deque()

    def listen(self, attempt: Attempt, now: int) -> None:
        """Its quiet-time begins now, anew if it had begun."""
        attempt.quiet_at = due = now + self._quiet_ns
        self._quiet.append((due, attempt))

    def quiet(self, now: int) -> Iterator[Attempt]:
        """Those that have been quiet for a whole quiet-time. Each is handed out once.

        Who is heard of before that never stands in the queue of deadlines, which keeps it short.
        """
        while self._quiet and self._quiet[0][0] <= now:
            due, attempt = self._quiet.popleft()
            if attempt.sock is None or attempt.served:
                continue
            if not attempt.timed:
                attempt.timed = True
                self._deadline.append((attempt.started + self._deadline_ns, attempt))
            if due == attempt.quiet_at:  # else it was heard of since, and stands further behind
                yield attempt

    def overdue(self, now: int) -> Iterator[Attempt]:
        """Those that are open and have no outcome at their deadline. Each is handed out once."""
        while self._deadline and self._deadline[0][0] <= now:
            attempt = self._deadline.popleft()[1]
            if attempt.outcome is None and attempt.sock is not None:
                yield attempt
