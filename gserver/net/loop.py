"""The part of gevent's event loop that this layer uses, as types: the loop is handed in.

``gevent.get_hub().loop`` satisfies :class:`Loop`. Callbacks run in the hub and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

__all__ = ["BACKGROUND_PRIORITY", "READ", "WRITE", "Loop", "Watcher"]

READ: Final = 1  # EV_READ of libev's ev.h, the same in gevent's libuv backend
WRITE: Final = 2  # EV_WRITE

#: For descriptors that no admitted client waits for. Within one poll libev calls back the higher
#: priority first (ev(3), "Watcher priority models"); connections are at the default, 0.
BACKGROUND_PRIORITY: Final = -1


class Watcher(Protocol):
    def start(self, callback: Callable[..., Any], *args: Any) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Loop(Protocol):
    def io(self, fd: int, events: int, ref: bool = ..., priority: int | None = ...) -> Watcher: ...
    def timer(self, after: float) -> Watcher: ...
