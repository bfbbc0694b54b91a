"""Users: greenlets that open connections and do tasks. The vocabulary is Locust's.

Fine for holders, churners and slow clients. Not the reference for the latency of rejections: that
is ``storm``, which runs on hub callbacks in a process of its own.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from time import monotonic, monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload

import gevent
from gevent import socket as gsocket

from gserver.probe.attempt import Attempt
from gserver.probe.outcomes import Outcome
from gserver.probe.sockets import is_ended

if TYPE_CHECKING:
    from gserver.probe.swarm import Swarm

__all__ = ["Session", "SocketUser", "between", "constant", "constant_pacing", "task"]

F = TypeVar("F", bound=Callable[..., Any])


class WaitTime(Protocol):
    """Seconds between two tasks of a user."""

    def __call__(self, user: SocketUser, /) -> float: ...


def constant(seconds: float) -> WaitTime:
    """Always that long."""
    return lambda user: seconds


def between(least: float, most: float) -> WaitTime:
    """Evenly at random."""
    return lambda user: user.random.uniform(least, most)


def constant_pacing(seconds: float) -> WaitTime:
    """So long that tasks start *seconds* apart; at once when the task took longer."""
    return lambda user: max(0.0, user.task_began + seconds - monotonic())


@overload
def task(weight: F) -> F: ...
@overload
def task(weight: int) -> Callable[[F], F]: ...
def task(weight: Any) -> Any:
    """Mark a method as a task: ``@task`` or ``@task(3)``, three times as often as the others."""
    if callable(weight):
        return task(1)(weight)

    def mark(method: F) -> F:
        method.task_weight = weight  # type: ignore[attr-defined]
        return method

    return mark


class Session:
    """One connection attempt and, when admitted, the connection. A context manager.

    :attr:`outcome` says what it came to. :meth:`close` may be called again.
    """

    def __init__(self, user: SocketUser, attempt: Attempt) -> None:
        self.outcome = attempt.outcome
        self.latency_s = (attempt.finished - attempt.started) / 1e9
        self._user = user
        self._sock: gsocket.socket | None = None
        if attempt.sock is not None and attempt.is_held:
            raw = user.swarm.engine.detach(attempt)
            self._sock = gsocket.socket(raw.family, raw.type, raw.proto, fileno=raw.detach())
            user.swarm.session_began(self)

    @property
    def admitted(self) -> bool:
        """Whether the server let us in."""
        return self.outcome is Outcome.ADMITTED

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it, by the kernel's account: unread data hides no end."""
        try:
            return self._sock is not None and not is_ended(self._sock)
        except OSError:  # a scenario has closed the socket itself
            return False

    @property
    def sock(self) -> gsocket.socket:
        """The gevent socket of an admitted session, for protocols of your own.

        :raises RuntimeError: not admitted, or closed.
        """
        if self._sock is None:
            raise RuntimeError(f"no connection: {self.outcome}")
        return self._sock

    def hold(self, seconds: float) -> bool:
        """Stay connected; False when the server ended the connection before the time."""
        ends = monotonic() + seconds
        try:
            while (left := ends - monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(4096):
                    return False
        except TimeoutError:
            return True
        except OSError:
            return False
        return True

    def ask(self, request: bytes | None = None, *, timeout_s: float = 5.0) -> bytes | None:
        """Send a request (the profile's, if none is given) and return the first of the answer.

        :return: None when the server ended the connection or did not answer in time.
        """
        began = monotonic_ns()
        try:
            self.sock.settimeout(timeout_s)
            self.sock.sendall(self._user.swarm.profile.ping if request is None else request)
            answer = self.sock.recv(65_536)
        except OSError:
            return None
        if not answer:
            return None
        self._user.swarm.answered(self._user, (monotonic_ns() - began) / 1e9)
        return answer

    def close(self) -> None:
        """End the connection, with FIN."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self._user.swarm.session_ended(self)

    def reset(self) -> None:
        """End the connection, with RST."""
        if self._sock is not None:
            linger = b"\x01\0\0\0\0\0\0\0"
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SocketUser:
    """Subclass it in a scenario file; methods marked with :func:`task` are what it does.

    :cvar wait_time: between two tasks, one of :func:`constant`, :func:`between`,
        :func:`constant_pacing`.
    :cvar weight: share of the users that are of this class.
    :cvar fixed_count: exactly that many, started before those by weight; 0: by weight.
    """

    wait_time: ClassVar[WaitTime] = staticmethod(constant(1.0))
    weight: ClassVar[int] = 1
    fixed_count: ClassVar[int] = 0
    tasks: ClassVar[list[Callable[[Any], object]]] = []
    task_weights: ClassVar[list[int]] = []

    def __init_subclass__(cls) -> None:
        methods = [
            (method, method.task_weight)
            for method in (getattr(cls, name) for name in dir(cls))
            if hasattr(method, "task_weight")
        ]
        cls.tasks = [method for method, _ in methods]
        cls.task_weights = [weight for _, weight in methods]
        waits = cls.__dict__.get("wait_time")
        if waits is not None and not isinstance(waits, staticmethod):
            cls.wait_time = staticmethod(waits)

    def __init__(self, swarm: Swarm, seed: int) -> None:
        self.swarm = swarm
        self.random = random.Random(seed)
        self.task_began = 0.0

    def on_start(self) -> None:
        """Called once before the first task."""

    def on_stop(self) -> None:
        """Called once after the last, also when the user is stopped in the middle of one."""

    def connect(self) -> Session:
        """One attempt, until its outcome, which is counted and goes to ``events.outcome``."""
        return Session(self, self.swarm.attempt(self))

    def run(self) -> None:
        """The user's life: tasks by weight, with waits, until stopped."""
        self.on_start()
        try:
            while True:
                (chosen,) = self.random.choices(self.tasks, self.task_weights)
                self.task_began = monotonic()
                chosen(self)
                gevent.sleep(self.wait_time(self))
        finally:
            self.on_stop()
