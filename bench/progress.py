"""Progress that says which server of which block it is about."""

from __future__ import annotations

from gserver.probe.run import Run

__all__ = ["Progress"]


class Progress(Run):
    """A run whose lines begin with :attr:`place`."""

    place = ""

    def tell(self, text: str) -> None:
        """Show ``text`` behind the place."""
        super().tell(f"{self.place}: {text}" if self.place else text)
