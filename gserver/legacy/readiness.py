"""select, poll and selectors, taught what our listeners know.

A client that waits in a listener for the program's next ``accept()`` is no longer in the
kernel's queue: the program must be told all the same that it is there. And of a client that is
turned away it must not be told: what it trusts, that ``accept()`` then neither blocks nor raises,
has to hold. So the client is taken first, and only one that was admitted, and that has done the
TLS handshake of a TLS listener, is told of.
"""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable, Collection, Iterable, Mapping
from time import monotonic
from typing import Any, Final, TypeVar

import gevent.select
import gevent.selectors

from gserver.legacy.holders import Holders
from gserver.legacy.listener import Listener

__all__ = ["patch"]

_POLLIN: Final = 1

Found = TypeVar("Found", bound=Collection[Any])


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
        wlist, xlist = list(wlist), list(xlist)

        def ask(left: Any) -> tuple[list[Any], ...]:
            read, *others = gevent_select(rlist, wlist, xlist, _at_most(left, listeners))
            found = [it for it in read if it not in listeners]
            for it, listener in listeners.items():
                if _tell(listener, it, it in read):
                    found.append(it)
            return (found, *others)

        return _in_time(ask, timeout)

    gevent_poll = gevent.select.poll.poll

    def capped_poll(self: Any, timeout: Any = None) -> list[tuple[int, int]]:
        listeners = {fd: it for fd, it in watched(self.fds).items() if self.fds[fd] & _POLLIN}
        if not listeners:
            return gevent_poll(self, timeout)
        if timeout is not None and timeout < 0:
            timeout = None

        def ask(left: Any) -> list[tuple[int, int]]:
            events: dict[int, int] = {}
            for fd, event in gevent_poll(self, _at_most(left, listeners)):
                events[fd] = events.get(fd, 0) | event
            for fd, listener in listeners.items():
                others = events.pop(fd, 0)
                if others & ~_POLLIN:
                    events[fd] = others
                elif _tell(listener, fd, bool(others)):
                    events[fd] = _POLLIN
            return list(events.items())

        return _in_time(ask, timeout, a_second=1000)

    selector: Any = gevent.selectors.GeventSelector
    selector_select = selector.select

    def capped_selector(self: Any, timeout: Any = None) -> list[tuple[Any, int]]:
        keys = self._fd_to_key
        reads = selectors.EVENT_READ
        listeners = {fd: it for fd, it in watched(keys).items() if keys[fd].events & reads}
        if not listeners:
            return selector_select(self, timeout)  # type: ignore[no-any-return]

        def ask(left: Any) -> list[tuple[Any, int]]:
            events = selector_select(self, _at_most(left, listeners))
            readable = {key.fd for key, _ in events}
            found = [(key, event) for key, event in events if key.fd not in listeners]
            for fd, listener in listeners.items():
                if fd in keys and _tell(listener, fd, fd in readable):
                    found.append((keys[fd], reads))
            return found

        return _in_time(ask, timeout)

    gevent.select.select = capped_select
    gevent.select.poll.poll = capped_poll  # type: ignore[method-assign]
    selector.select = capped_selector
    if select.select is gevent_select:
        select.select = capped_select

        def _select(self: Any, r: Any, w: Any, _: Any, timeout: Any = None) -> Any:
            return capped_select(r, w, [], timeout)

        selectors.SelectSelector._select = _select  # type: ignore[attr-defined]


def _at_most(timeout: Any, listeners: Mapping[Any, Listener]) -> Any:
    """``timeout``, or none if there is something to tell at once."""
    ready = any(it.ready and not it.only_watches() for it in listeners.values())
    return 0 if ready else timeout


def _tell(listener: Listener, descriptor: Any, readable: bool) -> bool:
    """Whether to tell the program that a client is there, or that ``descriptor`` is closed."""
    if listener.only_watches():
        return readable
    return listener.ready or (
        readable and (_fileno(descriptor) not in listener.owners or listener.look())
    )


def _in_time(ask: Callable[[Any], Found], timeout: Any, a_second: float = 1.0) -> Found:
    """What ``ask(timeout)`` finds; while that is nothing, what it finds in what is left.

    :param timeout: ``a_second`` is one; None: for ever.
    """
    began = monotonic()
    found = ask(timeout)
    while not any(found):
        left = timeout
        if timeout is not None:
            left = timeout - (monotonic() - began) * a_second
            if left <= 0:
                break
        found = ask(left)
    return found


def _fileno(descriptor: Any) -> int:
    try:
        return descriptor if isinstance(descriptor, int) else int(descriptor.fileno())
    except (AttributeError, TypeError, ValueError):
        return -1  # gevent's own function raises what is to be raised
