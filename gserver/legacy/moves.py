"""Descriptors that change hands without a socket object: closed or duplicated by their number,
and inherited by forked children."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import gevent.os
import gevent.socket
import gevent.subprocess

from gserver.legacy.holders import Holders

__all__ = ["patch"]


def patch(holders: Holders) -> None:
    """Wrap the functions that do it. Once in a process, for good."""
    _patch_descriptors(holders)
    _patch_forks(holders)


def _patch_descriptors(holders: Holders) -> None:
    os_close, os_dup, os_dup2 = os.close, os.dup, os.dup2

    def closing(close: Callable[[int], None]) -> Callable[[int], None]:
        def close_descriptor(fd: int) -> None:
            followed = holders.at(fd) if isinstance(fd, int) else None
            if followed is not None:
                followed.closing()
            close(fd)
            if followed is not None:
                holders.closed_soon(followed, fd)

        return close_descriptor

    def dup(fd: int, /) -> int:
        duplicate = os_dup(fd)
        followed = holders.at(duplicate)
        if followed is not None:
            followed.owners.setdefault(duplicate, 0)
        return duplicate

    def dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
        replaced = holders.at(fd2)
        os_dup2(fd, fd2, inheritable)
        followed = holders.at(fd2)
        if replaced is not followed and replaced is not None:
            replaced.closed(fd2)
        if followed is not None:
            followed.owners.setdefault(fd2, 0)
        return fd2

    os.close = closing(os_close)  # type: ignore[assignment]
    os.dup, os.dup2 = dup, dup2
    socket.close = closing(socket.close)  # type: ignore[assignment]
    gevent.socket.close = socket.close


def _patch_forks(holders: Holders) -> None:
    os_forkpty = os.forkpty

    def made(pid: int) -> None:
        if pid:
            holders.children.forked(pid, set(holders.slots()))

    def noting(fork: Callable[..., int]) -> Callable[..., int]:
        def fork_and_note(*arguments: Any, **keywords: Any) -> int:
            pid = fork(*arguments, **keywords)
            made(pid)
            return pid

        return fork_and_note

    def forkpty(*arguments: Any, **keywords: Any) -> tuple[int, int]:
        pid, terminal = os_forkpty(*arguments, **keywords)
        made(pid)
        return pid, terminal

    os.fork = noting(os.fork)
    os.forkpty = forkpty
    subprocess: Any = gevent.subprocess
    subprocess.fork_and_watch = noting(subprocess.fork_and_watch)
