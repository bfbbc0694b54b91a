from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ends import FAMILIES, Place


@pytest.fixture(params=FAMILIES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(request.param, tmp_path)
    yield place
    place.close()


@pytest.fixture
def tcp(tmp_path: Path) -> Iterator[Place]:
    place = Place("ipv4", tmp_path)
    yield place
    place.close()
