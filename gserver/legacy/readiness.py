"""select, poll and selectors, taught what our listeners know.

A client that waits in a listener for the program's next ``accept()`` is no longer in the
kernel's queue: the program must be told all the same that it is there. And a program that was
told must not block in ``accept()`` when that client has been turned away meanwhile.
"""

from __future__ import annotations

import select
import selectors
from collections.abc import Iterable
from typing import Any, Final

import gevent.select
import gevent.selectors

from gserver.legacy.holders import Holders
from gserver.legacy.listener import Listener

__all__ = ["patch"]

_POLLIN: Final = 1


def patch(holders: Holders) -> None:
    """Wrap gevent's select, poll and selectors. Once in a process, for good."""

    def watched(descriptors: Iterable[Any]) -> dict[Any, Listener]:
        found = {}
        for listener in holders.listeners():
            if isinstance(listener, Listener):
                for descriptor in descriptors:
                    if _fileno(descriptor) in listener.owners:
                        found[descriptor] = listener
        return found

    gevent_select = gevent.select.select

    def capped_select(
        rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], timeout: Any = None
    ) -> Any:
        rlist = list(rlist)
        listeners = watched(rlist)
        if not listeners:
            return gevent_select(rlist, wlist, xlist, timeout)
        ready = [it for it, listener in listeners.items() if listener.ready]
        read, *others = gevent_select(rlist, wlist, xlist, 0 if ready else timeout)
        read += [it for it in ready if it not in read]
        for it in read:
            if it in listeners:
                listeners[it].reported = True
        return (read, *others)

    gevent_poll = gevent.select.poll.poll

    def capped_poll(self: Any, timeout: Any = None) -> list[tuple[int, int]]:
        listeners = watched(self.fds)
        ready = [fd for fd, listener in listeners.items() if listener.ready and self.fds[fd] & 1]
        events: list[tuple[int, int]] = gevent_poll(self, 0 if ready else timeout)
        found = {fd for fd, _ in events}
        events += [(fd, _POLLIN) for fd in ready if fd not in found]
        for fd, _ in events:
            if fd in listeners:
                listeners[fd].reported = True
        return events

    selector: Any = gevent.selectors.GeventSelector
    selector_select = selector.select

    def capped_selector(self: Any, timeout: Any = None) -> list[tuple[Any, int]]:
        listeners = watched(self._fd_to_key)
        ready = [
            self._fd_to_key[fd]
            for fd, listener in listeners.items()
            if listener.ready and self._fd_to_key[fd].events & selectors.EVENT_READ
        ]
        events: list[tuple[Any, int]] = selector_select(self, 0 if ready else timeout)
        found = {key.fd for key, _ in events}
        events += [(key, selectors.EVENT_READ) for key in ready if key.fd not in found]
        for key, _ in events:
            if key.fd in listeners:
                listeners[key.fd].reported = True
        return events

    gevent.select.select = capped_select
    gevent.select.poll.poll = capped_poll  # type: ignore[method-assign]
    selector.select = capped_selector
    if select.select is gevent_select:
        select.select = capped_select

        def _select(self: Any, r: Any, w: Any, _: Any, timeout: Any = None) -> Any:
            return capped_select(r, w, [], timeout)

        selectors.SelectSelector._select = _select  # type: ignore[attr-defined]


def _fileno(descriptor: Any) -> int:
    try:
        return descriptor if isinstance(descriptor, int) else int(descriptor.fileno())
    except (AttributeError, TypeError, ValueError):
        return -1  # gevent's own function raises what is to be raised
