"""The target's fault: exit status 1."""

from __future__ import annotations

__all__ = ["TargetError"]


class TargetError(Exception):
    """The target cannot be measured: it does not answer, or not as the profile expects.

    The message is one line that says what was seen and what to try.
    """
