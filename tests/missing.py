"""What a test needs besides this project and does not find on the machine: it is skipped, or
fails where that should have been there (``--may-miss``)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import NoReturn

import pytest

__all__ = ["missing", "needs", "only_these_may_miss"]

_may_miss: Sequence[str] | None = None  # anything may


def only_these_may_miss(words: Sequence[str] | None) -> None:
    """Of what is missing, only that whose reason has one of these words in it is a skip; None:
    all of it is."""
    global _may_miss
    _may_miss = words


def missing(reason: str, install: str = "") -> NoReturn:
    """Skip the test, or fail it.

    :param reason: what is missing, and the line that brings it: ``apt-get install …``,
        ``pip install …``.
    :param install: that line, where it is not in the reason.
    """
    if _may_miss is None or any(word in text for word in _may_miss for text in (reason, install)):
        pytest.skip(reason, allow_module_level=True)
    pytest.fail(reason, pytrace=False)


def needs(program: str, package: str | None = None) -> None:
    """The test needs a program, of Debian's package if that has another name."""
    if shutil.which(program) is None:
        missing(f"{program} is missing: apt-get install {package or program}")
