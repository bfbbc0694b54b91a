"""The descriptor limit that a cap needs."""

from __future__ import annotations

import resource
from typing import Final

from gserver.candidates import MOST_HELD
from gserver.errors import SettingError

__all__ = ["PER_LISTENER", "SPARE", "ensure_descriptors"]

#: For the program itself: standard streams, the loop, what handlers open now and then.
SPARE: Final = 64
#: Itself, the one it keeps in reserve (G6), and its look into the loop's epoll set.
PER_LISTENER: Final = 3


def ensure_descriptors(
    max_connections: int,
    *,
    listeners: int = 1,
    others: int = 0,
    setting: str = "--max-connections",
) -> None:
    """Raise the soft RLIMIT_NOFILE to what the cap needs: one descriptor a connection, one a
    candidate, those of the ``listeners``, and :data:`SPARE`.

    :param others: the most clients besides that have a descriptor at once: those that wait for a
        slot or take a busy reply.
    :raises SettingError: the hard limit is below that; getrlimit(2) lets only root raise it.
    """
    besides = others + MOST_HELD + PER_LISTENER * listeners + SPARE
    need = max_connections + besides
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        most = hard - besides
        lower = f"give at most {most:,}, or " if most > 0 else ""
        raise SettingError(
            setting,
            max_connections,
            f"needs {need:,} descriptors and the hard limit is {hard:,}; "
            f"{lower}raise the limit (ulimit -Hn, LimitNOFILE=)",
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    except (OSError, ValueError) as error:
        # getrlimit(2): EPERM above /proc/sys/fs/nr_open; other systems have bounds of their own.
        raise SettingError(
            setting,
            max_connections,
            f"needs {need:,} descriptors and the limit cannot be raised to that: {error}",
        ) from None
