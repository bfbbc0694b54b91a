"""The target's fault: exit status 1. This machine's: the run is invalid, status 3."""

from __future__ import annotations

__all__ = ["LocalError", "TargetError"]


class LocalError(Exception):
    """This machine could not make the connections (descriptors or ports): no result counts.

    The message is one line that says what to do.
    """


class TargetError(Exception):
    """The target cannot be measured: it does not answer, or not as the profile expects.

    The message is one line that says what was seen and what to try.
    """
