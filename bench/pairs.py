"""Two things measured alternately, in the order ABBA: a drift of the machine favours neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["abba"]

T = TypeVar("T")


def abba(
    a: Callable[[], T], b: Callable[[], T], pairs: int
) -> Iterator[tuple[tuple[T, T], tuple[T, T]]]:
    """Yield both measurements of ``a`` and both of ``b``, as often as asked for."""
    for _ in range(pairs):
        first_a, first_b, last_b, last_a = a(), b(), b(), a()
        yield (first_a, last_a), (first_b, last_b)
