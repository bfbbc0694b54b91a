"""The descriptor limit that a cap needs."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final, NamedTuple

from gserver.admission.limits import Limits
from gserver.candidates import MOST_HELD
from gserver.errors import SettingError

__all__ = ["PER_LISTENER", "SPARE", "Share", "ensure_descriptors", "shares_of"]

#: For the program itself: standard streams, the loop, what handlers open now and then.
SPARE: Final = 64
#: Itself, the one it keeps in reserve (G6), and its look into the loop's epoll set.
PER_LISTENER: Final = 3


class Share(NamedTuple):
    """The descriptors that a setting takes: ``times`` what is ``given``."""

    setting: str
    given: int
    times: int = 1

    @property
    def descriptors(self) -> int:
        return self.given * self.times


def shares_of(limits: Limits, *, each: int = 1) -> list[Share]:
    """What the admitted take, ``each`` so many, and those that wait to be."""
    shares = [Share("--max-connections", limits.max_connections, each)]
    if limits.wait:
        shares.append(Share("--wait-queue", limits.wait_queue))
    return shares


def ensure_descriptors(shares: Sequence[Share], *, listeners: int = 1, others: int = 0) -> None:
    """Raise the soft RLIMIT_NOFILE to what all ``shares`` need together, a descriptor for each
    candidate, those of the ``listeners``, and :data:`SPARE`.

    :param others: the most clients besides that have a descriptor at once.
    :raises SettingError: the hard limit is below that; getrlimit(2) lets only root raise it.
        Names the setting that takes most.
    """
    need = sum(share.descriptors for share in shares)
    need += others + MOST_HELD + PER_LISTENER * listeners + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    largest = max(shares, key=lambda share: share.descriptors)
    if hard != resource.RLIM_INFINITY and hard < need:
        most = (hard - need + largest.descriptors) // largest.times
        lower = f"give at most {most:,}, or " if most > 0 else ""
        raise SettingError(
            largest.setting,
            largest.given,
            f"needs {need:,} descriptors and the hard limit is {hard:,}; "
            f"{lower}raise the limit (ulimit -Hn, LimitNOFILE=)",
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    except (OSError, ValueError) as error:
        # getrlimit(2): EPERM above /proc/sys/fs/nr_open; other systems have bounds of their own.
        raise SettingError(
            largest.setting,
            largest.given,
            f"needs {need:,} descriptors and the limit cannot be raised to that: {error}",
        ) from None
