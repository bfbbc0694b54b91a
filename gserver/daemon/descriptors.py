"""The descriptor limit that a cap needs."""

from __future__ import annotations

import resource
from typing import Final

from gserver.candidates import MAX_CANDIDATES
from gserver.errors import SettingError

__all__ = ["SPARE", "ensure_descriptors"]

#: For the program itself: standard streams, listeners, the loop, what handlers open now and then.
SPARE: Final = 64


def ensure_descriptors(max_connections: int, *, setting: str = "--max-connections") -> None:
    """Raise the soft RLIMIT_NOFILE to what the cap needs: one descriptor a connection, one a
    candidate, and :data:`SPARE`.

    :raises SettingError: the hard limit is below that; getrlimit(2) lets only root raise it.
    """
    need = max_connections + MAX_CANDIDATES + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        most = hard - MAX_CANDIDATES - SPARE
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
