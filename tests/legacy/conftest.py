from __future__ import annotations

from collections.abc import Iterator

import capped
import pytest


@pytest.fixture(scope="session", autouse=True)
def _nursery() -> Iterator[None]:
    capped.nursery = capped.Nursery()
    yield
    capped.nursery.close()
    capped.nursery = None
