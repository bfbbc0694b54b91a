"""The clock, the turns and the timers that the engine sees, in a test's hands."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from gevent.monkey import get_original

__all__ = ["SimulatedLoop"]

_poll = get_original("select", "poll")


class SimulatedLoop:
    """Stands for gevent's loop where the engine accepts, reads headers and keeps time.

    :ivar now: seconds, as ``monotonic()`` tells them. Goes on when the test says so.
    :ivar iteration: the number of this turn.
    :ivar readable: by the descriptor of a listener that is none, whether clients are in its queue.
    """

    backend = "simulated"  # in whose poll nobody can look

    def __init__(self) -> None:
        self.now = 1000.0
        self.iteration = 1
        self.readable: dict[int, Callable[[], bool]] = {}
        self._started: dict[_Watcher, None] = {}

    def monotonic(self) -> float:
        return self.now

    def fileno(self) -> None:
        return None

    def timer(
        self, after: float, _repeat: float = 0.0, _ref: bool = True, priority: int | None = None
    ) -> _Watcher:
        return _Watcher(self, priority, after=after)

    def io(self, fd: int, _events: int, _ref: bool = True, priority: int | None = None) -> _Watcher:
        return _Watcher(self, priority, fd=fd)

    def turn(self) -> None:
        """Begin the next turn: call back whoever has something to do, the higher priority first,
        once each. What they start meanwhile is for a later one."""
        self.iteration += 1
        for watcher in sorted(self._due(), key=lambda watcher: -watcher.priority):
            if watcher in self._started:  # and none of those before it has stopped it
                watcher.call_back()

    @property
    def at_rest(self) -> bool:
        """Whether nobody has anything to do before time goes on, or something comes."""
        return not self._due()

    def _due(self) -> list[_Watcher]:
        return [watcher for watcher in self._started if watcher.is_due()]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While this is open, all that the engine makes knows no other loop, and no other time."""
        hub = SimpleNamespace(get_hub=lambda: SimpleNamespace(loop=self))
        with contextlib.ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                if name.startswith("gserver.") and vars(module).get("monotonic") is time.monotonic:
                    stack.enter_context(mock.patch.object(module, "monotonic", self.monotonic))
            for name in "accept", "candidates", "one_shot", "rejection_log":
                stack.enter_context(mock.patch(f"gserver.{name}.gevent", hub))
            yield


class _Watcher:
    """Of a descriptor, or of a time, which is over once."""

    def __init__(
        self, loop: SimulatedLoop, priority: int | None, *, after: float = 0.0, fd: int = -1
    ) -> None:
        self.priority = priority or 0
        self._loop = loop
        self._after = after
        self._fd = fd
        self._until = 0.0
        self._callback: Callable[[], Any] = self.stop

    def start(self, callback: Callable[[], Any]) -> None:
        if self not in self._loop._started:
            self._callback, self._until = callback, self._loop.now + self._after
            self._loop._started[self] = None

    def stop(self) -> None:
        self._loop._started.pop(self, None)

    close = stop

    def is_due(self) -> bool:
        if self._fd == -1:
            return self._until <= self._loop.now
        if self._fd in self._loop.readable:
            return self._loop.readable[self._fd]()
        poll = _poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def call_back(self) -> None:
        if self._fd == -1:
            self.stop()
        self._callback()
