"""A server is drawn in the colour of the outcome that its clients have at the cap."""

from __future__ import annotations

from gserver.probe.outcomes import Outcome
from gserver.probe.plots import COLOURS

__all__ = ["COLOUR"]

COLOUR = {
    "fin": COLOURS[Outcome.FIN],
    "rst": COLOURS[Outcome.RST],
    "message": COLOURS[Outcome.MESSAGE],
    "refused": COLOURS[Outcome.REFUSED],
    "queue": COLOURS[Outcome.QUEUED],
    "unlimited": COLOURS[Outcome.ADMITTED],
}
