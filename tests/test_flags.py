"""A setting's name in an error becomes its flag; the same word elsewhere stays."""

from __future__ import annotations

import pytest

from gserver.daemon.flags import in_flags
from gserver.errors import SettingError


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (
            "goes without wait: who is refused cannot wait",
            "goes without --wait: who is refused cannot wait",
        ),
        (
            "goes without wait, which is at least as long",
            "goes without --wait, which is at least as long",
        ),
        (
            "needs rate, source_rate or penalty: the rate of a source",
            "needs --rate, --source-rate or --penalty: the rate of a source",
        ),
        ("is in the allow list too: deny it", "is in the allow list too: deny it"),
        ("needs Linux", "needs Linux"),
        ("accepted: source_rate, early_drop", "accepted: source_rate, early_drop"),
        ("leaves nothing of max_connections 3", "leaves nothing of --max-connections 3"),
        ("needs --wait", "needs --wait"),
    ],
)
def test_an_ordinary_word_is_no_flag(problem: str, said: str) -> None:
    with pytest.raises(SettingError) as caught, in_flags():
        raise SettingError("settle", 1.0, problem)
    assert str(caught.value) == f"--settle 1.0: {said}"
