"""One timer for many equal timeouts, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gserver.net import deadlines
from gserver.net.deadlines import Deadlines


class FakeTimer:
    def __init__(self, loop: FakeLoop, at: float) -> None:
        self.loop, self.at = loop, at
        self.callback: Callable[[], None] | None = None

    def start(self, callback: Callable[..., Any], *args: Any) -> None:
        self.callback = callback

    def stop(self) -> None:
        self.callback = None

    close = stop


class FakeLoop:
    """A clock that is moved by hand, and the timers on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []

    def timer(self, after: float) -> FakeTimer:
        self.timers.append(FakeTimer(self, self.now + after))
        return self.timers[-1]

    def io(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("no descriptor is watched here")

    @property
    def running(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if timer.callback is not None]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.running if timer.at <= end]:
            timer = min(due, key=lambda timer: timer.at)
            self.now = max(self.now, timer.at)
            callback, timer.callback = timer.callback, None
            assert callback is not None
            callback()
        self.now = end


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    fake = FakeLoop()
    monkeypatch.setattr(deadlines, "monotonic", lambda: fake.now)
    return fake


def test_entries_expire_in_order_never_early_and_at_most_an_eighth_late(loop: FakeLoop) -> None:
    added: dict[int, float] = {}
    expired: list[tuple[int, float]] = []
    entries: Deadlines[int] = Deadlines(loop, 8.0, lambda n: expired.append((n, loop.now)))
    for n in range(1000):
        added[n] = loop.now
        entries.add(n)
        loop.advance(0.05)
    loop.advance(20.0)
    assert [n for n, _ in expired] == list(range(1000))
    assert all(8.0 <= at - added[n] <= 9.0 for n, at in expired)
    # 50 s of arrivals and 8 s more, at most 8 firings in 8 s.
    assert len(loop.timers) <= 60


def test_a_burst_expires_in_bounded_batches(loop: FakeLoop) -> None:
    expired: list[tuple[int, int]] = []
    entries: Deadlines[int] = Deadlines(loop, 1.0, lambda n: expired.append((n, len(loop.timers))))
    for n in range(1000):
        entries.add(n)
    loop.advance(1.0)
    assert [n for n, _ in expired] == list(range(1000))
    turns = [turn for _, turn in expired]
    assert max(turns.count(turn) for turn in set(turns)) <= 64
    assert not loop.running


def test_removed_entries_do_not_expire_and_nothing_runs_when_empty(loop: FakeLoop) -> None:
    expired: list[str] = []
    entries: Deadlines[str] = Deadlines(loop, 1.0, expired.append)
    assert not loop.running
    entries.add("a")
    entries.add("b")
    entries.discard("a")
    entries.discard("never added")
    assert list(entries) == ["b"]
    assert len(loop.running) == 1
    entries.discard("b")
    assert not loop.running
    loop.advance(5.0)
    assert expired == []


def test_expiry_may_add_and_remove_entries(loop: FakeLoop) -> None:
    expired: list[int] = []

    def again(n: int) -> None:
        expired.append(n)
        entries.discard(n + 1)
        if n < 10:
            entries.add(n + 10)

    entries: Deadlines[int] = Deadlines(loop, 1.0, again)
    for n in range(3):
        entries.add(n)
    loop.advance(5.0)
    assert expired == [0, 2, 10, 12]
    assert len(entries) == 0
    assert not loop.running
