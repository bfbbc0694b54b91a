"""Events: what a scenario file can listen to. The vocabulary is Locust's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EventHook", "Events", "events"]


class EventHook:
    """A list of listeners, called in the order in which they were added."""

    def __init__(self) -> None:
        self._listeners: list[Callable[..., Any]] = []

    def add_listener(self, listener: Callable[..., Any]) -> Callable[..., Any]:
        """Add one; may be used as a decorator. It is called with keyword arguments only."""
        self._listeners.append(listener)
        return listener

    def remove_listener(self, listener: Callable[..., Any]) -> None:
        """Take it away. Raises ValueError when it is not there."""
        self._listeners.remove(listener)

    def fire(self, **arguments: Any) -> None:
        """Call every listener; what one raises ends the run."""
        for listener in self._listeners:
            listener(**arguments)


@dataclass(frozen=True, slots=True)
class Events:
    """The hooks there are.

    ``outcome``: every attempt, as ``outcome(user=…, outcome=Outcome, latency_s=float)``.
    ``request``: every answered request of a session, as ``request(user=…, latency_s=float)``.
    ``test_start``, ``test_stop``: once each, without arguments.
    """

    outcome: EventHook = field(default_factory=EventHook)
    request: EventHook = field(default_factory=EventHook)
    test_start: EventHook = field(default_factory=EventHook)
    test_stop: EventHook = field(default_factory=EventHook)


#: The one that scenario files use.
events = Events()
