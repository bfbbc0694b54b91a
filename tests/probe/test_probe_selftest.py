"""``probe selftest``: a block in which the client was at fault is no part of the noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gserver.probe import selftest
from gserver.probe.flood import FloodResult
from gserver.probe.outcomes import CODE_OF, Outcome
from gserver.probe.records import Records
from gserver.probe.result import Result
from gserver.probe.run import Run

ROWS = 3000


def block(*, cpu: float = 0.2, started: int = ROWS, local: int = 0) -> FloodResult:
    records = Records(ROWS)
    for i in range(ROWS):
        records.intended[i] = records.started[i] = 1000 + i
        records.finished[i] = records.started[i] + 50_000 + i
        records.outcome[i] = CODE_OF[Outcome.LOCAL if i < local else Outcome.FIN]
    return FloodResult(records, 1000, 1.0, [cpu], ROWS, started, ROWS - started, [])


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The result of A/A blocks that are given, two a pair."""

    def measure(*blocks: FloodResult) -> Result:
        left = list(blocks)
        monkeypatch.setattr(selftest, "_flood", lambda *words: left.pop(0))
        result = Result("selftest", "itself")
        selftest._noise(Run(60, stream=None), result, [1, 2], 2000.0, len(blocks) // 2, 1)
        return result

    return measure


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (block(cpu=0.95), "the client was saturated: 95% of a core"),
        (block(started=2000), "the rate was not kept"),
        (block(local=1), "1 attempts failed on this machine"),
    ],
    ids=["saturated", "rate", "local"],
)
def test_pair_with_a_block_that_does_not_count_is_left_out_and_named(
    noise: Callable[..., Result], bad: FloodResult, reason: str
) -> None:
    good = block()
    result = noise(good, good, good, bad, good, good)
    assert len(result.details["a_a_ratios"]["p50"]) == 2
    (text,) = result.warnings
    assert text.startswith("A/A block 2 is left out")
    assert reason in text
    assert not result.invalid


def test_run_without_two_pairs_that_count_is_invalid(noise: Callable[..., Result]) -> None:
    good, bad = block(), block(cpu=0.95)
    result = noise(good, good, bad, good)
    assert result.invalid == ["A/A: 1 of 2 pairs of blocks do not count"]
    assert "noise.p50.low" not in result.figures
