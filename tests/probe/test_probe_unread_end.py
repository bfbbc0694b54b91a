"""A connection that the server has ended is not served any more, though nobody has read its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import gevent
import pytest
from gevent import socket as gsocket

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.calibrate import Calibration
from gserver.probe.cap import _Search
from gserver.probe.churn import ChurnSettings, _Churn
from gserver.probe.holders import Holders
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import PROFILES
from gserver.probe.run import Run
from gserver.probe.target import Target, parse_target


class Evicting:
    """An echo server with one slot: who comes takes it from who has it."""

    def __init__(self) -> None:
        self.listener = gsocket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.served: gsocket.socket | None = None
        self.acceptor = gevent.spawn(self.run)

    def run(self) -> None:
        while True:
            newcomer, _ = self.listener.accept()
            self.end()
            self.served = newcomer
            newcomer.sendall(newcomer.recv(100))

    def end(self) -> None:
        if self.served is not None:
            self.served.close()
            self.served = None

    def close(self) -> None:
        self.acceptor.kill()
        self.end()
        self.listener.close()


@pytest.fixture
def target() -> Iterator[Target]:
    with closing(Evicting()) as server:
        yield parse_target(f"127.0.0.1:{server.listener.getsockname()[1]}")


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(20, stream=None) as run:
        yield run


@pytest.fixture
def calibration() -> Iterator[Calibration]:
    with closing(Oracle()) as oracle:
        yield Calibration(PROFILES["echo"], Patience(), 0.0, None, oracle)


def leave_unread(attempt: Attempt) -> None:
    """As when its end comes in the same poll as another's admission, and is handled after it."""
    attempt.watcher.stop()


def test_cap_counts_nobody_whose_end_lies_unread(
    target: Target, run: Run, calibration: Calibration
) -> None:
    search = _Search(target, calibration, run, 10)
    search.finding.expected = 1
    with closing(search.engine):
        assert search._open(1) == [True]
        leave_unread(next(iter(search.held)))
        assert search._open(1) == [True]
        assert len(search.held) == 2
    assert search.finding.peak == 1
    assert search.finding.over_admissions == 0


def test_churn_counts_nobody_whose_end_lies_unread(
    target: Target, run: Run, calibration: Calibration
) -> None:
    churn = _Churn(target, calibration, run, ChurnSettings(1, 0, 1.0, 0.0, 0, 1))
    with closing(churn.engine):
        leave_unread(churn._try())
        assert churn._try().outcome is Outcome.ADMITTED
    assert (churn.ledger.peak, churn.ledger.held, churn.found.lost) == (1, 1, 1)


def test_holder_whose_end_lies_unread_is_not_held_by_the_kernels_account(
    target: Target, run: Run, calibration: Calibration
) -> None:
    holders = Holders(target, calibration, run)
    with closing(holders):
        holders.fill(1)
        (first,) = holders.held
        assert holders.engine.is_held(first)
        leave_unread(first)
        holders.fill(2)
        assert [holders.engine.is_held(each) for each in holders.held].count(True) == 1
        assert first.is_held
        assert not holders.engine.is_held(first)
