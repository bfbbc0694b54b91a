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
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final

import gevent
from gevent.monkey import get_original

from gserver.admission.verdict import REJECTED, Reason, Receipt, Rejected
from gserver.front import Client
from gserver.limiter import Limiter
from gserver.net.accept_errors import Fate, fate_of
from gserver.net.door import open_door, shut_door
from gserver.net.proxies import Proxies
from gserver.net.proxy_protocol import Done, ProxyReader
from gserver.net.rejection import Refuse, Rejection
from gserver.net.reply import Teller

__all__ = ["LISTENER_PRIORITY", "AcceptLoop"]

log = logging.getLogger("gserver")

_READ: Final = 1
_REOPEN_EVERY_S: Final = 0.1
#: Errors of clients that are gone already, in a row: so many are no clients, but a firewall rule
#: (EPERM) or a network that is down. Going on at once would take a whole core and help nobody.
_MOST_SKIPPED: Final = 64
_TELL_EVERY_S: Final = 10.0

#: This process. os.getpid() is a system call each time.
_process = os.getpid()


def _forked() -> None:
    global _process
    _process = os.getpid()


os.register_at_fork(after_in_child=_forked)

#: The lowest: in one poll batch, endings and candidates come before newcomers (G3). libev.
LISTENER_PRIORITY: Final = -2


class AcceptLoop:
    """Accepts on ``listener`` while started; a :class:`gserver.front.Front`.

    :param listener: a raw, non-blocking, listening ``_socket.socket``. Not closed here.
    :param start: called with the descriptor, the peer's address, the receipt and the size of the
        PROXY header of each client admitted; it owns the descriptor from then on, also when it
        raises.
    :param rejections: how the others are turned away, by reason. Where ``capacity`` is refused
        the listener is shut while the limiter is full.
    :param backlog: for opening it again.
    :param fatal: called with the error when the listener is no listener any more.
    :param max_accept: clients taken in one turn of the loop, 1 or more.
    :param proxies: who connects, each with a PROXY protocol header; None: clients themselves.
    :param delays: seconds to pause after ENOBUFS, ENOMEM or an unknown error: the first, and
        the most it doubles to.

    :meth:`close` gives back everything it holds: the watcher, the timer, the reserved
    descriptor, and those who have no verdict yet, who are turned away.
    """

    def __init__(
        self,
        listener: Any,
        limiter: Limiter,
        start: Callable[[int, Any, Receipt, int], None],
        rejections: Mapping[Reason, Rejection],
        fatal: Callable[[OSError], None],
        *,
        backlog: int,
        max_accept: int,
        delays: tuple[float, float],
        proxies: Proxies | None = None,
    ) -> None:
        self._listener = listener
        self._family = listener.family
        self._limiter = limiter
        self._start = start
        self._loop = loop = gevent.get_hub().loop
        # Once each: the bound on those who are taking a reply is of the reply, for all its reasons.
        different = {id(how): how for how in rejections.values()}
        made = {key: how.on(listener.family, loop) for key, how in different.items()}
        self.turn_away: Mapping[Reason, Callable[[int], object]] = {
            reason: made[id(how)] for reason, how in rejections.items()
        }
        #: Clients that are taking a reply. They are not turned away by :meth:`close`.
        self.lingers = [how.linger for how in made.values() if isinstance(how, Teller)]
        for linger in self.lingers:
            linger.counts = limiter.counters.replies
        self.proxies = proxies
        self._header_reader = ProxyReader(loop, timeout=proxies.timeout) if proxies else None
        self._refuses = isinstance(rejections[Reason.CAPACITY], Refuse)
        self._refusing_since: float | None = None
        self._backlog = backlog
        self._fatal = fatal
        self._max_accept = max_accept
        self._delay, self._max_delay = self._min_delay, _ = delays
        self._skipped = (0, 0)  # errors in a row, and how many were accepted at the last
        self._told: dict[str, float] = {}  # when each error was last in the log
        self._watcher: Any = None
        self._timer: Any = None
        self._reserve: int | None = None
        self._fd = -1
        self._running = False
        self._subscribed = False
        self._epoll: Any = None
        self._process = 0  # whose loop that is

    # ---- lifecycle -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or begin again, to accept. Nothing happens when it already does."""
        self._running = True
        if self._refuses and not self._subscribed:
            self._subscribed = True
            self._limiter.on_full(self._full_changed)
        self._go()

    def stop(self) -> None:
        """Stop accepting for now: the kernel goes on queueing clients."""
        self._running = False
        self._pause()

    def _go(self) -> None:
        self._stop_timer()
        if self._refusing_since is not None and not self._limiter.full:
            # Stopped while it was shut, or could not be opened: nobody else will do it.
            self._reopen()
            return
        if self._watcher is not None or self._refusing_since is not None:
            return
        self._take_reserve()
        if self._epoll is None:
            self._epoll, self._process = _loops_epoll(), _process
        self._fd = self._listener.fileno()
        self._watcher = gevent.get_hub().loop.io(self._fd, _READ, True, LISTENER_PRIORITY)
        self._watcher.start(self._readable)
        if self._refuses and self._limiter.full:
            self._full_changed(True)

    def _pause(self) -> None:
        self._stop_timer()
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def close(self) -> None:
        """Stop for good; those without a verdict are rejected as ``draining``."""
        self.stop()
        self._limiter.off_full(self._full_changed)
        self._no_longer_refusing()
        self._limiter.leave(self, REJECTED[Reason.DRAINING])
        if self._reserve is not None:
            _socket.close(self._reserve)
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
            self.take(self._max_accept)
        except BaseException:
            # gevent stops a watcher whose callback raised: the server would be deaf from here.
            if self._watcher is not None:
                self._back_off()
            raise

    def take(self, most: int) -> None:
        """Take up to ``most`` clients from the kernel's queue now; at the cap, as many as may be
        turned away in a turn. Returns when it is empty."""
        limiter = self._limiter
        accept = self._listener._accept  # (descriptor, address): no Python socket is made
        direct = self.proxies is None
        if direct:
            if (
                self._epoll is not None
                and self._process == _process
                and (to_shed := limiter.may_shed(self._loop.iteration))
            ):
                self._shed(accept, to_shed)
                return
            if limiter.holding:
                self._take_candidates(accept, deque())
                return
        without_slot: deque[Client] = deque()
        turned_away, to_turn_away = 0, limiter.may_turn_away()
        for _ in range(most):
            if direct and limiter.holding:
                # By what somebody's verdict led to. Those collected so far have come before.
                self._take_candidates(accept, without_slot)
                return
            try:
                client = accept()
            except BlockingIOError:
                break
            except OSError as error:
                if self._go_on_after(error):
                    continue
                break
            self._delay = self._min_delay
            got_in = limiter.arrived(client, self)
            if got_in is not True:
                turned_away += 1
                if got_in is not False:
                    others = None if without_slot else self._reject_at_once(client, got_in)
                    if others is None:
                        without_slot.append(client)
                    elif not others:  # nobody else has come: spares an accept() that fails
                        break
                if turned_away >= to_turn_away:
                    break
            if self._watcher is None:
                break
        if without_slot:
            limiter.hold(without_slot, self, quiet=self._only_clients() is not None)

    def _reject_at_once(self, client: Client, verdict: Rejected) -> list[tuple[int, int]] | None:
        """Turn away one that only endings under way could admit, if none is. What else the kernel
        has to report, at most more clients; None: one may be, and it was not turned away."""
        if self.proxies is not None or not self._limiter.may_decide_at_once():
            return None
        others = self._only_clients()
        if others is not None:
            self._limiter.reject_now(client, self, verdict)
        return others

    def _shed(self, accept: Callable[[], Client], most: int) -> None:
        """The short way of a flood at a cap: after each accept one look tells both that no ending
        is under way and whether more have come, and saves the accept() that fails. On the path of
        every rejection."""
        limiter, look, listener = self._limiter, self._epoll.poll, self._fd
        try:
            for _ in range(most):
                client = accept()
                ready = look(0, 2)
                if ready and (len(ready) > 1 or ready[0][0] != listener):
                    self._shed_no_more(accept, client)
                    return
                limiter.shed(client, self)
                if not ready or self._watcher is None:  # the first of them may shut the door
                    break
        except BlockingIOError:
            return
        except OSError as error:
            self._go_on_after(error)
            return
        self._delay = self._min_delay

    def _shed_no_more(self, accept: Callable[[], Client], client: Client) -> None:
        """An ending may be under way: the rest of this turn's as always, ``client`` first."""
        if self._limiter.holding:
            self._take_candidates(accept, deque((client,)))
        elif self._limiter.arrived(client, self):  # a verdict that the ending could change
            self._limiter.hold(deque((client,)), self, quiet=False)

    def _take_candidates(self, accept: Callable[[], Client], clients: deque[Client]) -> None:
        """At the cap: as many clients as may be held in this turn, ``clients`` among them."""
        take = clients.append
        failed = None
        try:
            for _ in range(self._limiter.may_take() - len(clients)):
                take(accept())
        except BlockingIOError:
            pass
        except OSError as error:
            failed = error
        if clients:
            self._delay = self._min_delay
            self._limiter.hold(clients, self, quiet=self._only_clients() is not None)
        if failed is not None:
            self._go_on_after(failed)

    def _can_look(self) -> bool:
        """Whether libev's own epoll set can be looked into. It is level-triggered: looking takes
        nothing away from the poll to come. A connection admitted in this very turn is not in the
        set yet; the limiter knows of those."""
        if self._process != _process and self._epoll is not None:  # the parent's still
            self._epoll.close()
            self._epoll, self._process = _loops_epoll(), _process
            return False
        return self._epoll is not None

    def _only_clients(self) -> list[tuple[int, int]] | None:
        """What the kernel has to report now, if that is at most more clients: then no ending is
        under way. None: one may be."""
        if not self._can_look():
            return None
        ready: list[tuple[int, int]] = self._epoll.poll(0, 2)
        if not ready or (len(ready) == 1 and ready[0][0] == self._fd):
            return ready
        return None

    def _go_on_after(self, error: OSError) -> bool:
        """Deal with an error of accept. False: no more in this turn."""
        errors = self._limiter.counters.accept_errors
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        errors[name] = errors.get(name, 0) + 1
        match fate_of(error):
            case Fate.SKIP:
                if not self._skipped_too_many():
                    return True
                self._tell_pause(name, error)
                self._back_off()
            case Fate.NO_DESCRIPTORS:
                self._answer_with_reserve()
            case Fate.FATAL if self._refuses and error.errno == errno.EINVAL:
                self._shut_elsewhere()
            case Fate.FATAL:
                self._fatal(error)
            case Fate.BACK_OFF:
                self._tell_pause(name, error)
                self._back_off()
        return False

    def _skipped_too_many(self) -> bool:
        """Counted here, so that a client that is accepted costs nothing more."""
        accepted = self._limiter.counters.accepted
        count, accepted_then = self._skipped
        count = count + 1 if accepted == accepted_then else 1
        self._skipped = count, accepted
        return count >= _MOST_SKIPPED

    def _tell_pause(self, name: str, error: OSError) -> None:
        self._tell(name, "accept: %s; pausing up to %.3g s at a time", error, self._max_delay)

    def _tell(self, name: str, line: str, *arguments: object) -> None:
        """A line at the beginning of an outage, and now and then while it lasts."""
        now = monotonic()
        if now - self._told.get(name, float("-inf")) >= _TELL_EVERY_S:
            self._told[name] = now
            log.error(line, *arguments)

    def _back_off(self) -> None:
        self._pause()
        self._timer = gevent.get_hub().loop.timer(self._delay)
        self._timer.start(self._go)
        self._delay = min(self._max_delay, self._delay * 2)

    def _take_reserve(self) -> None:
        if self._reserve is None:
            try:
                self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self._tell("reserve", "no descriptor to keep in reserve: %s", error)

    def _answer_with_reserve(self) -> None:
        """Out of descriptors: give up the reserved one, take clients with it, turn them away,
        and take the reserve again (G6). The oldest trick of accept loops; libev's manual, "the
        special problem of accept()ing when you can't", tells it."""
        if self._reserve is None:
            self._back_off()  # _go() tries to take one again
            return
        _socket.close(self._reserve)
        self._reserve = None
        try:
            for _ in range(self._limiter.may_turn_away()):
                client = self._listener._accept()
                self._limiter.reject_now(client, self, REJECTED[Reason.DESCRIPTORS])
        except OSError:  # nobody there any more, or somebody else took the descriptor
            pass
        finally:
            self._take_reserve()

    # ---- refusing --------------------------------------------------------------------------

    def _full_changed(self, full: bool) -> None:
        """The limiter's last slot was taken, or one is free again: shut the door, or open it."""
        if full:
            if self._refusing_since is None and self._watcher is not None:
                self._pause()  # first: a shut listener is readable without end
                try:
                    shut_door(self._listener)
                except OSError as error:  # a handler has broken it, say
                    self._fatal(error)
                    return
                self._refuses_from_now()
        elif self._refusing_since is not None:
            self._reopen()

    def _refuses_from_now(self) -> None:
        self._refusing_since = monotonic()
        self._limiter.counters.refusing_since(self._refusing_since)

    def _shut_elsewhere(self) -> None:
        """Another process that has the same listener, after a fork, has filled and shut it for
        all. Here there is room: as long as one of them has any, one of them opens it."""
        self._pause()
        self._refuses_from_now()
        self._reopen()

    def _reopen(self) -> None:
        try:
            open_door(self._listener, self._backlog)
        except OSError as error:
            log.error("cannot listen again: %s; trying again in %g s", error, _REOPEN_EVERY_S)
            self._stop_timer()
            self._timer = gevent.get_hub().loop.timer(_REOPEN_EVERY_S)
            self._timer.start(self._try_reopen)
            return
        self._no_longer_refusing()
        if self._running:
            self._go()

    def _try_reopen(self) -> None:
        if self._refusing_since is not None and not self._limiter.full:
            self._reopen()

    def _no_longer_refusing(self) -> None:
        if self._refusing_since is not None:
            self._refusing_since = None
            self._limiter.counters.refusing_until(monotonic())

    # ---- what the limiter asks for -------------------------------------------------------

    def read_header(self, fd: int, done: Done) -> Callable[[], object]:
        if self._header_reader is None:
            raise RuntimeError("this listener is not for proxies")
        return self._header_reader.read(fd, self._family, done)

    def admit(self, fd: int, address: Any, receipt: Receipt, header_bytes: int) -> None:
        self._start(fd, address, receipt, header_bytes)


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
