"""Slots: the ``gevent.pool.Pool`` that *is* the count. There is no second counter.

Functions over any gevent Pool, so that ``spawn=Pool(n)`` works as it is. gevent's own
``Pool._discard`` releases the semaphore each time it is called; :func:`give_back` is idempotent
and :func:`take` leaves no link behind, so that the slot comes back when it is told to and once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from gevent.lock import Semaphore
from gevent.pool import Pool

from gserver.admission.limits import MOST_SLOTS
from gserver.errors import SettingError

__all__ = [
    "Holder",
    "check_cap",
    "give_back",
    "hand_over",
    "pool_for",
    "resize",
    "semaphore_error",
    "take",
    "when_free",
]


class Holder(Protocol):
    """What can hold a slot: a greenlet, or anything else with these two methods of one. The
    pool links its own release to the greenlet's end; what ends in another way ignores both.
    (Without them gevent catches an AttributeError each time: 1.9 us instead of 0.6.)"""

    def rawlink(self, callback: Any, /) -> Any: ...

    def unlink(self, callback: Any, /) -> Any: ...


def check_cap(value: object, setting: str = "max_connections") -> int:
    """The cap as a whole number of 1 to 10 million, or :class:`SettingError`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SLOTS:
        raise SettingError(setting, value, f"must be a whole number, 1 to {MOST_SLOTS:,}")
    return value


def pool_for(spawn: Any, max_connections: int | None) -> tuple[Pool, int] | None:
    """The pool that counts, and its cap; None for a server without a cap.

    :param spawn: gevent's ``spawn`` argument: "default", a whole number, a Pool, or anything
        else that starts a greenlet.
    :raises SettingError: when the two disagree, or when a cap is asked of a ``spawn`` that
        cannot count (``None``, ``gevent.spawn_raw``, any other function).
    """
    if max_connections is not None:
        check_cap(max_connections)
    if isinstance(spawn, int) and not isinstance(spawn, bool):
        spawn = Pool(check_cap(spawn, "spawn"))
    if isinstance(spawn, Pool):
        if spawn.size is None:
            if max_connections is None:
                return None
            raise SettingError(
                "spawn",
                spawn,
                f"a Pool without a size cannot hold max_connections={max_connections}; "
                f"give Pool({max_connections}) or leave spawn out",
            )
        check_cap(spawn.size, "spawn")
        if max_connections is not None and max_connections != spawn.size:
            raise SettingError(
                "max_connections",
                max_connections,
                f"disagrees with spawn=Pool({spawn.size}); give one of them",
            )
        return spawn, spawn.size
    if max_connections is None:
        return None
    if isinstance(spawn, str) and spawn == "default":
        return Pool(max_connections), max_connections
    raise SettingError(
        "spawn",
        spawn,
        "cannot count connections; with max_connections give a Pool, or leave it out",
    )


def take(pool: Pool, holder: Holder) -> None:
    """Take a slot for ``holder``, not started yet, without ever blocking. Only
    :func:`give_back` gives it back: gevent's own link is taken away, it would do so as soon as
    the greenlet has ended, be its socket closed or not.

    :raises gevent.pool.PoolFull: there is none, although the gate said so: an internal error.
    """
    pool.add(cast(Any, holder), blocking=False)
    holder.unlink(pool._discard)  # type: ignore[attr-defined]  # not in the stubs


def give_back(pool: Pool, holder: Holder) -> bool:
    """Give back the slot of ``holder``. False, and nothing done, when it holds none."""
    if holder not in pool.greenlets:
        return False
    pool.discard(cast(Any, holder))  # membership, semaphore and gevent's own link to do it later
    _lower_semaphore(pool)
    return True


def hand_over(pool: Pool, holder: Any, greenlet: Any) -> None:
    """``greenlet`` holds the slot that ``holder`` held: the count does not move."""
    pool.greenlets.remove(holder)
    pool.greenlets.add(greenlet)


def resize(pool: Pool, size: int) -> None:
    """Change a pool's size. Raising wakes waiters at once; lowering ends nobody.

    After lowering below what is in use the semaphore stays at zero, and each ending gives a
    slot back only once the pool is below its new size.
    """
    pool.size = check_cap(size)
    semaphore = _semaphore(pool)
    for _ in range(pool.free_count() - semaphore.counter):
        semaphore.release()
    _lower_semaphore(pool)


def semaphore_error(pool: Pool) -> int:
    """The semaphore's counter minus what the pool's length says it should be."""
    return _semaphore(pool).counter - pool.free_count()


def when_free(pool: Pool, callback: Callable[[Any], object]) -> None:
    """Call ``callback`` once, in a callback of the loop, when a slot of a full pool is free,
    whoever held it."""
    _semaphore(pool).rawlink(callback)


def _lower_semaphore(pool: Pool) -> None:
    semaphore = _semaphore(pool)
    while semaphore.counter > pool.free_count():
        semaphore.acquire(blocking=False)


def _semaphore(pool: Pool) -> Semaphore:
    return cast(Semaphore, pool._semaphore)  # type: ignore[attr-defined]  # not in the stubs
