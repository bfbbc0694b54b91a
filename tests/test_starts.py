"""G4: a connection that never begins leaves no socket open and no slot taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool
from support import LOCAL, OrderedPool, connect, eventually, greet, outcome, running, visit

from gserver import Reason, StreamServer
from gserver.stats import Ending


def test_slot_returns_when_killed_before_first_run() -> None:
    ran: list[Any] = []
    pool = OrderedPool(2)
    add = pool.add

    def kill_after_start(greenlet: Any, **kwargs: Any) -> None:
        add(greenlet, **kwargs)
        # Before its start, so it comes first: the greenlet is scheduled, and has not run.
        gevent.get_hub().loop.run_callback(lambda: greenlet.kill(block=False))

    pool.add = kill_after_start
    with running(StreamServer(LOCAL, lambda *client: ran.append(client), spawn=pool)) as server:
        with connect(server) as client:
            assert outcome(client) == "closed"
            eventually(lambda: server.stats.active == 0)
        assert not ran
        assert server.stats.finished[Ending.KILLED] == 1
        assert pool.closed_first == [True]
        assert pool._semaphore.counter == 2


@contextlib.contextmanager
def _one_failure(
    monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> Iterator[tuple[Any, Pool]]:
    """A server that fails once to start a connection."""
    failures = [error]

    class Failing(gevent.Greenlet):
        def start(self) -> None:
            if where == "start" and failures:
                raise failures.pop()
            super().start()

    pool = OrderedPool(2)
    pool.greenlet_class = Failing
    add = pool.add

    def failing_add(greenlet: Any, **kwargs: Any) -> None:
        if where == "add" and failures:
            raise failures.pop()
        add(greenlet, **kwargs)

    pool.add = failing_add
    with running(StreamServer(LOCAL, greet, spawn=pool)) as server:
        yield server, pool
        assert not failures


@pytest.mark.parametrize("where", ["start", "add"])
@pytest.mark.parametrize(
    "error", [RuntimeError("on purpose"), MemoryError(), gevent.GreenletExit()], ids=repr
)
def test_slot_returns_when_starting_the_greenlet_fails(
    where: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    hub_errors: list[BaseException],
) -> None:
    with _one_failure(monkeypatch, where, error) as (server, pool):
        assert visit(server) == "closed"
        books = server.stats
        assert books.balanced, books
        assert books.active == 0
        assert books.finished[Ending.NOT_STARTED] == 1
        assert pool._semaphore.counter == 2
        assert visit(server) == "served"  # the server goes on
        eventually(lambda: server.stats.active == 0)
    hub_errors.clear()


def test_a_full_pool_behind_the_gates_back_is_an_error_that_leaks_nothing() -> None:
    """A Pool shared with other work that fills it: the gate counts it, so this client is
    rejected, and never waits for the pool."""
    pool = Pool(2)
    release = Event()
    with running(StreamServer(LOCAL, greet, spawn=pool)) as server:
        others = [pool.spawn(release.wait) for _ in range(2)]
        assert visit(server) == "closed"
        assert server.stats.rejected[Reason.CAPACITY] == 1
        release.set()
        gevent.joinall(others)
        assert visit(server) == "served"
