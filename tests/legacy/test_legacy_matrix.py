"""Real programs, unmodified: each holds the cap, and nothing of it leaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from legacy_matrix import ECHO, ROWS, Row, readme_table, run
from missing import missing


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_unmodified_program_holds_the_cap_and_gives_every_slot_back(row: Row) -> None:
    if reason := row.missing():
        missing(reason)
    if row.options:  # a child may need longer to end where all processors are busy
        assert row.options == ("--settle", "0.05")
        row = replace(row, options=("--settle", "0.3"))
    result = run(row)
    assert result.problems == []
    assert result.slowest_ms < 2000


@pytest.mark.parametrize("blocking", ["blocking", "non-blocking"])
@pytest.mark.parametrize("way", ["select", "poll", "selectors"])
def test_a_program_that_expects_no_error_of_accept_once_it_was_told_gets_none(
    way: str, blocking: str
) -> None:
    assert run(Row(way, "trusting_loop.py", ECHO, (way, blocking))).problems == []


def test_the_readmes_table_has_these_programs_at_these_versions() -> None:
    _, _, *lines = readme_table()
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [cells[0] for cells in found] == [row.name for row in ROWS]
    for cells, row in zip(found, ROWS, strict=True):
        pinned = ", ".join(requirement.replace("==", " ") for requirement in row.requires)
        assert cells[1] == pinned or (not pinned and cells[1].startswith("Python 3."))
        assert (cells[2], cells[4]) == ("yes", "yes")
