"""Slots: a gevent Pool is the count, and it stays one that gevent's own users understand."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool, PoolFull
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gserver import SettingError, slots


@pytest.mark.parametrize("cap", [1, 2, 10**6])
def test_a_cap_is_a_whole_number_of_one_or_more(cap: int) -> None:
    assert slots.check_cap(cap) == cap


@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, "1", None])
def test_anything_else_is_refused_with_the_settings_name(value: object) -> None:
    with pytest.raises(SettingError, match="--max-connections"):
        slots.check_cap(value, "--max-connections")


def test_take_never_blocks_and_says_when_there_is_no_slot() -> None:
    pool = Pool(1)
    first, second = gevent.Greenlet(), gevent.Greenlet()
    slots.take(pool, first)
    with pytest.raises(PoolFull):
        slots.take(pool, second)
    assert len(pool) == 1
    assert slots.give_back(pool, first)
    assert slots.semaphore_error(pool) == 0


def test_giving_back_twice_does_nothing_the_second_time() -> None:
    pool = Pool(2)
    greenlet = gevent.Greenlet()
    slots.take(pool, greenlet)
    assert slots.give_back(pool, greenlet)
    assert not slots.give_back(pool, greenlet)
    assert pool._semaphore.counter == 2


def test_control_gevents_own_discard_releases_each_time() -> None:
    pool = Pool(2)
    greenlet = gevent.Greenlet()
    pool.add(greenlet)
    pool.discard(greenlet)
    pool.discard(greenlet)
    assert pool._semaphore.counter == 3
    assert slots.semaphore_error(pool) == 1


def test_the_end_of_the_greenlet_alone_gives_nothing_back() -> None:
    """Its socket may still be open: only the connection's end gives the slot back."""
    pool = Pool(1)
    greenlet = gevent.Greenlet(lambda: None)
    slots.take(pool, greenlet)
    greenlet.start()
    greenlet.join()
    gevent.idle()
    assert len(pool) == 1
    assert slots.give_back(pool, greenlet)
    assert not pool


def test_raising_the_size_wakes_who_waits_for_the_pool() -> None:
    pool = Pool(1)
    release = Event()
    pool.spawn(release.wait)
    waiting = [gevent.spawn(pool.spawn, release.wait) for _ in range(3)]
    gevent.idle()
    slots.resize(pool, 3)
    gevent.idle()
    assert len(pool) == 3
    assert sum(g.ready() for g in waiting) == 2
    release.set()
    gevent.joinall(waiting)
    pool.join()
    assert slots.semaphore_error(pool) == 0


class SlotsMachine(RuleBasedStateMachine):
    """take, give_back and resize against a set and a number, other work in the pool included."""

    @initialize(size=st.integers(1, 5))
    def begin(self, size: int) -> None:
        self.pool = Pool(size)
        self.size = size
        self.held: list[Any] = []
        self.work: list[tuple[Any, Event]] = []

    @rule()
    def take(self) -> None:
        greenlet = gevent.Greenlet()
        if len(self.held) + len(self.work) < self.size:
            slots.take(self.pool, greenlet)
            self.held.append(greenlet)
        else:
            with pytest.raises(PoolFull):
                slots.take(self.pool, greenlet)
            assert not slots.give_back(self.pool, greenlet)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), again=st.booleans())
    def give_back(self, data: st.DataObject, again: bool) -> None:
        greenlet = data.draw(st.sampled_from(self.held))
        self.held.remove(greenlet)
        assert slots.give_back(self.pool, greenlet)
        if again:
            assert not slots.give_back(self.pool, greenlet)

    @rule(size=st.integers(1, 8))
    def resize(self, size: int) -> None:
        slots.resize(self.pool, size)
        self.size = size

    @precondition(lambda self: len(self.held) + len(self.work) < self.size)
    @rule()
    def other_work_begins(self) -> None:
        done = Event()
        self.work.append((self.pool.spawn(done.wait), done))

    @precondition(lambda self: self.work and self._at_most_the_size())
    @rule()
    def other_work_ends(self) -> None:
        greenlet, done = self.work.pop()
        done.set()
        greenlet.join()
        gevent.idle()

    def _at_most_the_size(self) -> bool:
        return len(self.held) + len(self.work) <= self.size

    @invariant()
    def the_pool_agrees(self) -> None:
        if not hasattr(self, "pool"):
            return
        in_use = len(self.held) + len(self.work)
        assert len(self.pool) == in_use
        assert self.pool.size == self.size
        assert self.pool._semaphore.counter == max(0, self.size - in_use)
        assert self.pool.free_count() == max(0, self.size - in_use)
        assert self.pool.full() is (in_use >= self.size)
        assert slots.semaphore_error(self.pool) == 0

    def teardown(self) -> None:
        for greenlet, done in getattr(self, "work", []):
            done.set()
            greenlet.join()


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
