"""Progress that says which server of which round it is about, and how much is left."""

from __future__ import annotations

import time

from gserver.probe.run import Run

__all__ = ["Progress", "duration"]


class Progress(Run):
    """A run whose lines begin with :attr:`place`, and with what is left once it has a plan."""

    place = ""
    _planned = _done = 0.0

    def plan(self, seconds: float) -> None:
        """Say how long all of it is expected to take."""
        self._planned = seconds

    def done(self, seconds: float) -> None:
        """So much of the plan is done, however long it took."""
        self._done += seconds

    def tell(self, text: str) -> None:
        """Show ``text`` behind the place."""
        words = [part for part in (self.place, text) if part]
        super().tell(self._left() + ": ".join(words))

    def _left(self) -> str:
        if not self._planned:
            return ""
        left = self._planned - self._done
        if self._done > self._planned / 20:  # by then it is known how fast this machine is
            left *= (time.monotonic() - self.began) / self._done
        share = min(1.0, self._done / self._planned)
        return f"{share:.0%} done, {duration(left)} left: "


def duration(seconds: float) -> str:
    """Return ``45 s`` or ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
