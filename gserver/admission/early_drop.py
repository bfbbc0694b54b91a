"""Random early drop: turn some away before the slots run out, as sshd's ``MaxStartups`` does.

A flood that fills a server keeps it full, and everybody out; when clients are turned away by lot
before that, those who try again come through (sshd_config(5), MaxStartups).
"""

from __future__ import annotations

__all__ = ["EarlyDrop"]


class EarlyDrop:
    """The chance to be turned away rises from ``rate`` at ``start`` slots to 1 at ``full``.

    :param start: slots in use from which on clients are turned away by lot, 0 or more.
    :param rate: percent turned away there, 0 to 100.
    :param full: slots in use from which on all are, more than ``start``.
    """

    __slots__ = ("_base", "_slope", "_start")

    def __init__(self, start: int, rate: int, full: int) -> None:
        self._start = start
        self._base = rate / 100
        self._slope = (1 - self._base) / (full - start)

    def chance(self, in_use: int) -> float:
        """The chance to be turned away, 0 to 1."""
        beyond = in_use - self._start
        return 0.0 if beyond < 0 else min(1.0, self._base + beyond * self._slope)

    def drops(self, in_use: int, drawn: float) -> bool:
        """Whether this client is turned away.

        :param drawn: a random number, 0 to less than 1.
        """
        return drawn < self.chance(in_use)
