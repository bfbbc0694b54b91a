"""The accept loop of one listener: keeps accepting, whatever happens.

It takes clients from the kernel's queue up to a budget a turn and hands each to the limiter. An
error of ``accept()`` has one of four fates (``gserver/net/accept_errors.py``); none of them
leaves clients waiting while the server has nothing else to do.
"""

from __future__ import annotations

import _socket
import errno
import logging
import os
from collections.abc import Callable
from typing import Any, Final

import gevent

from gserver.admission.verdict import REJECTED, Reason, Receipt, Rejected
from gserver.limiter import MAX_REJECTIONS_PER_TURN, Limiter
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
    :param start: called with the descriptor, the peer's address and the receipt of each client
        admitted; it owns the descriptor from then on, also when it raises.
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
        start: Callable[[int, Any, Receipt], None],
        rejection: Rejection,
        fatal: Callable[[OSError], None],
        *,
        max_accept: int,
        delays: tuple[float, float],
    ) -> None:
        self._listener = listener
        self._family = listener.family
        self._limiter = limiter
        self._start = start
        self._rejection = rejection
        self._fatal = fatal
        self._max_accept = max_accept
        self._delay, self._max_delay = self._min_delay, _ = delays
        self._watcher: Any = None
        self._timer: Any = None
        self._reserve: int | None = None

    # ---- lifecycle -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or begin again, to accept. Nothing happens when it already does."""
        self._stop_timer()
        if self._watcher is None:
            self._take_reserve()
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
            _socket.close(self._reserve)
            self._reserve = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    # ---- accepting -----------------------------------------------------------------------

    def _readable(self) -> None:
        self.take(self._max_accept)

    def take(self, most: int) -> None:
        """Take up to ``most`` clients from the kernel's queue now. Returns when it is empty."""
        accept = self._listener._accept  # (descriptor, address): no Python socket is made
        arrived = self._limiter.arrived
        at_the_cap = 0
        for _ in range(most):
            try:
                fd, address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                at_the_cap += 1
                if not self._go_on_after(error):
                    return
            else:
                self._delay = self._min_delay
                if not arrived(fd, address, self):
                    at_the_cap += 1
            if at_the_cap >= MAX_REJECTIONS_PER_TURN or self._watcher is None:
                return

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
                return self._answer_with_reserve()
            case Fate.FATAL:
                self._fatal(error)
                return False
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

    def _answer_with_reserve(self) -> bool:
        """Out of descriptors: give up the reserved one, take one client with it, turn it away,
        and take the reserve again (G6). The oldest trick of accept loops; libev's manual, "the
        special problem of accept()ing when you can't", tells it."""
        if self._reserve is None:
            self._back_off()  # start() tries to take one again
            return False
        _socket.close(self._reserve)
        self._reserve = None
        try:
            fd, address = self._listener._accept()
        except OSError:  # nobody there after all, or somebody else took the descriptor
            return False
        else:
            self._limiter.reject_now(fd, address, self, REJECTED[Reason.DESCRIPTORS])
            return True
        finally:
            self._take_reserve()

    # ---- the limiter's verdicts ----------------------------------------------------------

    def admit(self, fd: int, address: Any, receipt: Receipt) -> None:
        self._start(fd, address, receipt)

    def reject(self, fd: int, address: Any, verdict: Rejected) -> None:
        try:
            self._rejection(fd, self._family)
        except OSError:
            self._limiter.counters.rejection_errors += 1
