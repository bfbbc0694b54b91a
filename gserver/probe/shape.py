"""Load shapes: how many users there are at a time. The vocabulary is Locust's. Reads no clock."""

from __future__ import annotations

__all__ = ["LoadShape"]


class LoadShape:
    """Subclass it in a scenario file and write :meth:`tick`.

    Overrides ``--users`` and ``--spawn-rate``.
    """

    #: Seconds since the users began, and when :meth:`reset_time` was called; the run sets the
    #: first before each tick.
    elapsed_s = 0.0
    origin_s = 0.0

    def get_run_time(self) -> float:
        """Seconds since the run began, as of this tick."""
        return self.elapsed_s - self.origin_s

    def reset_time(self) -> None:
        """Begin now."""
        self.origin_s = self.elapsed_s

    def tick(self) -> tuple[int, float] | None:
        """Asked about ten times a second.

        :return: how many users there should be, and how many may start or stop a second to get
            there; None ends the run.
        """
        raise NotImplementedError
