"""Who is compared with whom in a table, and with what result. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench import stats
from bench.results import Figure, Group, Series

__all__ = ["comparison", "partners"]


def partners(members: Sequence[Series]) -> tuple[Series, Series | None]:
    """Return the reference of a group, and its twin; None: it has none to be compared with."""
    reference = next(series for series in members if not series.twin)
    return reference, next((series for series in members if series.twin), None)


def comparison(series: Series, figure: Figure, group: Group, seed: int) -> stats.Comparison | None:
    """Compare a row with the reference of its group over the rounds where both have the figure,
    and the reference's twin too; None with too few of them, or without a twin."""
    reference, twin = partners([row for row in group.series if row.group == series.group])
    if twin is None:
        return None
    together = zip(
        series.values(figure.key),
        reference.values(figure.key),
        twin.values(figure.key),
        strict=False,  # a partial run ends inside a round
    )
    whole = [(mine, base, again) for mine, base, again in together if mine and base and again]
    if len(whole) < stats.MIN_BLOCKS:
        return None
    mine, base, again = zip(*whole, strict=True)
    return stats.compare(mine, base, again, seed=seed)
