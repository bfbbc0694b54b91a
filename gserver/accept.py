"""The accept loop of one listener: keeps accepting, whatever happens.

It takes clients from the kernel's queue up to a budget a turn and hands each to the limiter. An
error of ``accept()`` has one of four fates (``gserver/net/accept_errors.py``); none of them
leaves clients waiting while the server has nothing else to do.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.monkey import get_original
from gevent.socket import socket as GeventSocket

from gserver.admission.verdict import REJECTED, Reason, Receipt
from gserver.limiter import MAX_REJECTIONS_PER_TURN, Client, Limiter
from gserver.net.accept_errors import Fate, fate_of
from gserver.net.rejection import Rejection

__all__ = ["LISTENER_PRIORITY", "AcceptLoop"]

log = logging.getLogger("gserver")

_READ: Final = 1
#: The lowest: in one poll batch, endings and candidates come before newcomers (G3). libev.
LISTENER_PRIORITY: Final = -2


class AcceptLoop:
    """Accepts on ``listener`` while started; a :class:`gserver.limiter.Front`.

    :param listener: a raw, non-blocking, listening ``_socket.socket``. Not closed here.
    :param start: called with a gevent socket, the peer's address and the receipt for each
        client admitted; it owns the socket from then on.
    :param rejection: how the others are turned away.
    :param fatal: called with the error when the listener is no listener any more.
    :param max_accept: clients taken in one turn of the loop, 1 or more.
    :param delays: seconds to pause after ENOBUFS, ENOMEM or an unknown error: the first, and
        the most it doubles to.

    :meth:`close` gives back everything it holds: the watcher, the timer, the reserved
    descriptor and the candidates, which are turned away.
    """

    def __init__(
        self,
        listener: Any,
        limiter: Limiter,
        start: Callable[[GeventSocket, Any, Receipt], None],
        rejection: Rejection,
        fatal: Callable[[OSError], None],
        *,
        max_accept: int,
        delays: tuple[float, float],
    ) -> None:
        self._listener = listener
        self._family, self._type, self._proto = listener.family, listener.type, listener.proto
        self._limiter = limiter
        self._start = start
        self.turn_away = rejection.on(listener.family)
        self._fatal = fatal
        self._max_accept = max_accept
        self._delay, self._max_delay = self._min_delay, _ = delays
        self._watcher: Any = None
        self._timer: Any = None
        self._reserve: int | None = None
        self._fd = listener.fileno()
        self._epoll: Any = None

    # ---- lifecycle -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or begin again, to accept. Nothing happens when it already does."""
        self._stop_timer()
        if self._watcher is None:
            self._take_reserve()
            if self._epoll is None:
                self._epoll = _loops_epoll()
            self._watcher = gevent.get_hub().loop.io(
                self._listener.fileno(), _READ, True, LISTENER_PRIORITY
            )
            self._watcher.start(self._readable)

    def stop(self) -> None:
        """Stop accepting for now: the kernel goes on queueing clients."""
        self._stop_timer()
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def close(self) -> None:
        """Stop for good; candidates are rejected as ``draining``."""
        self.stop()
        self._limiter.leave(self, REJECTED[Reason.DRAINING])
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    # ---- accepting -----------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            self._take_clients()
        except BaseException:
            # gevent stops a watcher whose callback raised: the server would be deaf from here.
            if self._watcher is not None:
                self._back_off()
            raise

    def _take_clients(self) -> None:
        limiter = self._limiter
        accept = self._listener._accept  # (descriptor, address): no Python socket is made
        for _ in range(self._max_accept):
            if limiter.holding:
                self._take_candidates(accept)
                return
            try:
                fd, address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._go_on_after(error):
                    return
            else:
                self._delay = self._min_delay
                limiter.arrived(fd, address, self)
                if self._watcher is None:
                    return

    def _take_candidates(self, accept: Callable[[], Client]) -> None:
        """At the cap: as many clients as may be turned away in a turn. On the path of every
        rejection."""
        clients: deque[Client] = deque()
        take = clients.append
        failed = None
        try:
            for _ in range(MAX_REJECTIONS_PER_TURN):
                take(accept())
        except BlockingIOError:
            pass
        except OSError as error:
            failed = error
        if clients:
            self._delay = self._min_delay
            self._limiter.arrived_at_cap(clients, self, quiet=self._quiet())
        if failed is not None:
            self._go_on_after(failed)

    def _quiet(self) -> bool:
        """Whether the kernel has nothing to report but more clients: no ending is under way.

        Looks into libev's own epoll set, which is level-triggered: looking takes nothing away
        from the poll to come. A connection admitted in this very turn is not in the set yet; the
        limiter knows of those. It saves a turn of the loop for each batch: up to 3 µs a
        rejection where batches are small (bench/reject_cost.py).
        """
        if self._epoll is None:
            return False
        ready = self._epoll.poll(0, 2)
        return not ready or (len(ready) == 1 and ready[0][0] == self._fd)

    def _go_on_after(self, error: OSError) -> bool:
        """Deal with an error of accept. False: no more in this turn."""
        errors = self._limiter.counters.accept_errors
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        first = name not in errors
        errors[name] = errors.get(name, 0) + 1
        match fate_of(error):
            case Fate.SKIP:
                return True
            case Fate.NO_DESCRIPTORS:
                self._answer_with_reserve()
            case Fate.FATAL:
                self._fatal(error)
            case Fate.BACK_OFF:
                if first:
                    log.error("accept: %s; pausing up to %.3g s at a time", error, self._max_delay)
                self._back_off()
        return False

    def _back_off(self) -> None:
        self.stop()
        self._timer = gevent.get_hub().loop.timer(self._delay)
        self._timer.start(self.start)
        self._delay = min(self._max_delay, self._delay * 2)

    def _take_reserve(self) -> None:
        if self._reserve is None:
            try:
                self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                log.warning("no descriptor to keep in reserve: %s", error)

    def _answer_with_reserve(self) -> None:
        """Out of descriptors: give up the reserved one, take clients with it, turn them away,
        and take the reserve again (G6). The oldest trick of accept loops; libev's manual, "the
        special problem of accept()ing when you can't", tells it."""
        if self._reserve is None:
            self._back_off()  # start() tries to take one again
            return
        os.close(self._reserve)
        self._reserve = None
        try:
            for _ in range(MAX_REJECTIONS_PER_TURN):
                fd, address = self._listener._accept()
                self._limiter.reject_now(fd, address, self, REJECTED[Reason.DESCRIPTORS])
        except OSError:  # nobody there any more, or somebody else took the descriptor
            pass
        finally:
            self._take_reserve()

    # ---- the limiter's verdicts ----------------------------------------------------------

    def admit(self, fd: int, address: Any, receipt: Receipt) -> None:
        self._start(
            GeventSocket(self._family, self._type, self._proto, fileno=fd), address, receipt
        )


def _loops_epoll() -> Any:
    """libev's epoll set on a descriptor of its own; None where libev polls in another way, or
    there is no descriptor left. The caller closes it."""
    loop = gevent.get_hub().loop
    fd = loop.fileno()
    if loop.backend != "epoll" or fd is None:
        return None
    try:
        # The original: gevent's patching takes epoll away, since waiting in it blocks the loop.
        return get_original("select", "epoll").fromfd(os.dup(fd))
    except OSError:
        return None
