"""A server that is always full: every client it accepts is handed to :class:`Linger`."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from gserver.net.linger import Linger
from gserver.replies import Script

DEADLINE_S = 20.0


class BusyServer:
    """Runs in a thread with a hub of its own, so that clients may block in the test's thread.

    :param spoken_first: accept a client's words before answering: each accepted descriptor is
        handed over only once it is readable (or after 0.2 s, for clients that wait to be greeted).
    """

    def __init__(self, script: Script, *, spoken_first: bool, family: int, address: Any) -> None:
        self.script = script
        self.spoken_first = spoken_first
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(address)
        self.listener.listen()
        self.listener.setblocking(False)
        self.address: Any = self.listener.getsockname()
        self.accepted = 0
        self.ended: dict[str, int] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="busy server")
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)

    @property
    def port(self) -> int:
        return int(self.address[1])

    def _run(self) -> None:
        hub = gevent.get_hub()
        self.linger = Linger(hub.loop, timeout=5.0)
        stopped = Event()
        self._stop = hub.loop.async_()
        self._stop.start(stopped.set)
        acceptable = hub.loop.io(self.listener.fileno(), 1)
        acceptable.start(self._accept)
        self._ready.set()
        stopped.wait()
        acceptable.close()
        self._stop.close()
        self.linger.close_all()
        hub.destroy(destroy_loop=True)

    def _accept(self) -> None:
        try:
            fd, _ = self.listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        self.accepted += 1
        if self.spoken_first:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(200)
        self.linger.start(fd, self.listener.family, self.script)

    def stop(self) -> None:
        self._stop.send()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self.listener.close()


@pytest.fixture(params=[False, True], ids=["greeted", "client-spoke-first"])
def spoken_first(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def busy(spoken_first: bool) -> Iterator[Callable[..., BusyServer]]:
    """``busy(script)`` starts a server that answers every client with it, and tells where."""
    servers: list[BusyServer] = []

    def start(
        script: Script, *, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)
    ) -> BusyServer:
        servers.append(
            BusyServer(script, spoken_first=spoken_first, family=family, address=address)
        )
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
