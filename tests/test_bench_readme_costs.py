"""What the README says of the cost scripts' results, and nothing that they don't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.readme import rewritten
from bench.readme_costs import caveats, costs, rejecting


def test_span_of_the_rounds_and_the_machines_part_are_called_so() -> None:
    environment = {"kernel": "6.18.5", "python": "3.11.7", "cores": 2}
    replied = [{"kind": "close", "us": [24.0, 23.0]}, {"kind": "redis", "us": [48.0, 47.4]}]
    refused = {"reject": "refuse", "us_each": 0.0, "clients": 50_000, "seconds": 0.5}
    found: dict[str, Any] = {
        "refuse-cost": {"environment": environment, "rows": [refused]},
        "reply-cost": {"environment": environment, "rows": replied},
    }
    text = costs(found)
    assert "2 rounds of each kind one after the other" in text
    assert "smallest and largest: redis 47.4-48.0 µs; without one 23.0-24.0 µs; no comp" in text
    assert "whole machine" not in costs(found)
    refused["machine_us_each"] = 11.7
    assert "and the whole machine 12 µs, the client's part in it" in costs(found)


def rejections(ratios: Sequence[float]) -> dict[str, Any]:
    """As ``reject-cost`` has written it from the beginning: without a format or a name."""
    echo = {"p50": 80.0, "p99": 634.0, "n": 1000}
    return {
        "environment": {"kernel": "6.18.5", "python": "3.11.7", "cores": 2, "command": ""},
        "rows": [
            {
                "held": held,
                "clients": how,
                "quiet_us": echo,
                "pair": {
                    "ratio": ratio,
                    "ratios": [ratio] * 8,
                    "us_a": 10 * ratio,
                    "us_b": 10.0,
                    "rate_a": 45_178.0,
                    "echo_us_a": echo,
                },
                "same": {"ratios": [0.97, 1.05], "echo_us_a": echo},
            }
            for held, ratio in zip((10, 1_000), ratios, strict=True)
            for how in ("close", "reset")
        ],
    }


def test_rejection_cost_is_judged_by_its_targets() -> None:
    text = rejecting(rejections([1.38, 1.40]))
    assert "| 10 | 13.8 µs | 10.0 µs | 1.38 | 0.97-1.05 | 45,178 |" in text
    assert "does not grow with the connections held: 1.01 times" in text
    assert "At most 1.40 times the floor: not yet the 1.1 times" in text
    assert "Medians of 8 interleaved ABBA pairs" in text
    grown = rejecting(rejections([1.0, 1.09]))
    assert "The cost grows with the connections held: 1.09 times" in grown
    assert "At most 1.09 times the floor: within the 1.1 times" in grown


def test_echo_in_a_flood_stands_beside_the_quiet_one_and_the_floors_with_its_count() -> None:
    found = rejections([1.0, 1.0])
    text = rejecting(found)
    assert "| 10 | reset | 80 / 634 (1,000) | 80 / 634 (1,000) | 80 / 634 (1,000) |" in text
    assert "In none of them longer than the floor's." in text
    # Also where clients reset: the last row.
    last = found["rows"][-1]
    last["quiet_us"] = {"p50": 70.0, "n": 900}
    last["pair"]["echo_us_a"] = {"p50": 84.0, "p99": 28_991.4, "n": 3_818}
    text = rejecting(found)
    assert "| 1,000 | reset | 70 / - (900) | 84 / 28,991 (3,818) | 80 / 634 (1,000) |" in text
    assert "Longer than the floor's" in text
    assert ": p50 at 1,000 held, reset (1.05 times); p99 at 1,000 held, reset (46 times)." in text


def test_place_is_filled_when_its_results_are_there_and_kept_when_not(tmp_path: Path) -> None:
    text = "a\n<!-- bench reject-cost -->\nby hand\n<!-- /bench -->\nb\n"
    assert rewritten(text, tmp_path) == text
    (tmp_path / "reject-cost.json").write_text(json.dumps(rejections([1.38, 1.40])))
    filled = rewritten(text, tmp_path)
    assert "by hand" not in filled
    assert filled.startswith("a\n<!-- bench reject-cost -->\nMedians of 8")
    assert filled.endswith("\n<!-- /bench -->\nb\n")
    assert rewritten(filled, tmp_path) == filled


def test_warnings_that_differ_in_their_numbers_alone_are_said_once_with_the_worst() -> None:
    found = {"warnings": ["10 held: 5 thrown away", "20 held: 7 thrown away", "too slow"]}
    assert list(caveats(found)) == ["Warnings: 7 thrown away, at worst of 2; too slow."]
