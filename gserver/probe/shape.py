"""Load shapes: how many users there are at a time. The vocabulary is Locust's."""

from __future__ import annotations

from time import monotonic

__all__ = ["LoadShape"]


class LoadShape:
    """Subclass it in a scenario file and write :meth:`tick`.

    Overrides ``--users`` and ``--spawn-rate``.
    """

    def __init__(self) -> None:
        self._began = monotonic()

    def get_run_time(self) -> float:
        """Seconds since the run began."""
        return monotonic() - self._began

    def reset_time(self) -> None:
        """Begin now."""
        self._began = monotonic()

    def tick(self) -> tuple[int, float] | None:
        """Asked about ten times a second.

        :return: how many users there should be, and how many may start or stop a second to get
            there; None ends the run.
        """
        raise NotImplementedError
