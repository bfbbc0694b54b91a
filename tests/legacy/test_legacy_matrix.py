"""Real programs, unmodified: each holds the cap, and nothing of it leaks."""

from __future__ import annotations

import pytest
from legacy_matrix import ROWS, Row, run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_unmodified_program_holds_the_cap_and_gives_every_slot_back(row: Row) -> None:
    if missing := row.missing():
        pytest.skip(missing)
    result = run(row)
    assert result.problems == []
    assert result.slowest_ms < 2000
