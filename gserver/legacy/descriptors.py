"""The limit of descriptors under which a capped program runs."""

from __future__ import annotations

import _posixsubprocess
import functools
import os
import resource
from collections.abc import Callable
from typing import Any, Final

from gserver.candidates import MOST_HELD
from gserver.errors import SettingError

__all__ = ["raise_again", "raise_limit"]

#: select(2): descriptors from here on overrun its sets; Python's raises ValueError for them.
_FD_SETSIZE: Final = 1024
#: For what the program opens besides connections; a listener has two of them, the one in reserve
#: (G6) and its look into the loop's epoll set.
_SPARE: Final = 64

#: What starts another program, or becomes one, without a fork that Python sees. ``os.execvp`` and
#: the like call these; ``multiprocessing`` spawns its workers by the last one. Not ``os.system``,
#: which lets other threads run, with what they open, until the command has ended.
_STARTING: Final = (
    *((os, name) for name in ("posix_spawn", "posix_spawnp", "execv", "execve")),
    (_posixsubprocess, "fork_exec"),
)

_needed = 0  # the soft limit that the cap takes, where it was raised
_lowered = False  # in this process, a forked child


def raise_limit(clients: int, *, largest: tuple[str, object]) -> None:
    """See that so many ``clients`` can be open at once. Children, and the programs that this one
    starts but with ``os.system``, get the old limit back; children until they turn out to serve
    themselves (:func:`raise_again`).

    The soft limit is raised only as far as ``select()`` goes, which the program may use: what
    it could not handle it must not be given.

    :param clients: all that have a descriptor: admitted, waiting, or taking a busy reply.
    :param largest: the setting that most of them are for, and what was given.
    :raises SettingError: it takes more than that. Names ``largest``.
    """
    global _needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = clients + MOST_HELD + _SPARE + len(os.listdir("/dev/fd"))
    if needed <= soft or soft == resource.RLIM_INFINITY:
        return
    most = _FD_SETSIZE if hard == resource.RLIM_INFINITY else min(hard, _FD_SETSIZE)
    if needed > most:
        raise SettingError(
            *largest,
            f"needs {needed} descriptors and the limit is {soft}: raise it with `ulimit -n "
            f"{needed}` (above {_FD_SETSIZE}, select() in the program fails), or give less",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    _needed = needed

    def restore() -> None:
        global _lowered
        _lowered = True
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    os.register_at_fork(after_in_child=restore)
    for module, name in _STARTING:
        start = getattr(module, name)
        limited = _with_soft_limit(soft, start)
        setattr(module, name, limited)
        if start in os.supports_fd:
            os.supports_fd.add(limited)


def _with_soft_limit(soft: int, start: Callable[..., Any]) -> Callable[..., Any]:
    """``start``, and what it starts has at most the limit ``soft``. Meanwhile so has this
    process, which does nothing else: none of these lets another greenlet run."""

    @functools.wraps(start)
    def start_with_soft_limit(*arguments: Any, **keywords: Any) -> Any:
        ours = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= ours[0] <= soft:  # RLIM_INFINITY is -1
            return start(*arguments, **keywords)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, ours[1]))
        try:
            return start(*arguments, **keywords)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, ours)

    return start_with_soft_limit


def raise_again() -> None:
    """In a forked child that listens or accepts: it is the program now (in the background), or
    one of its workers, with the whole cap. Once; elsewhere it does nothing."""
    global _lowered
    if not _lowered:
        return
    _lowered = False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _needed:
        most = _needed if hard == resource.RLIM_INFINITY else min(_needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
