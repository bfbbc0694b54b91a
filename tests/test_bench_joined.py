"""Several runs of a comparison taken together: their rounds add up, and each keeps its origin."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.page import page
from bench.peers.base import ROOT
from bench.ratios import comparison
from bench.results import Block, Figure, Group, Origin, PeerInfo, Result, Series, merged

FIGURES = [Figure("number", "number", "us", compared=True)]
VALUES = [100.0, 101.0, 99.0, 100.0, 102.0, 98.0]


def series(peer: str, values: Sequence[float], *, twin: bool = False) -> Series:
    return Series(peer, "fin", twin, [Block({"number": value}) for value in values])


def run(hour: int, *rows: Series) -> Result:
    """One of several runs of a day on the same machine."""
    return Result(
        environment={
            "command_line": ["python"],
            "started_at": f"2026-01-02T{hour:02}:00:00Z",
            "kernel": "Linux",
            "load_average": [hour / 10],
        },
        seed=hour,
        peers={row.peer: PeerInfo("", "", "fin", "", "", 128) for row in rows},
        missing={},
        groups=[Group("asked", "Asked", 10, FIGURES, list(rows))],
    )


def both(hour: int, values: Sequence[float]) -> Result:
    return run(hour, series("a", values), series("b", values), series("a", values, twin=True))


def again(result: Result) -> Result:
    return Result.from_json(json.loads(json.dumps(result.to_json())))


def test_short_runs_add_up_to_a_long_one() -> None:
    three, fourteen = both(3, VALUES[:2]), both(14, VALUES[2:])
    found = merged([three, fourteen])
    assert found.groups == both(3, VALUES).groups
    assert found.rounds == 6
    assert three.rounds == 2  # it is not changed


def test_each_of_the_runs_keeps_its_environment_its_seed_and_its_rounds() -> None:
    three, fourteen, twenty = both(3, VALUES[:2]), both(14, VALUES[2:]), both(20, VALUES)
    # Also when what was joined is joined with more, and after JSON.
    whole = merged([again(merged([three, fourteen])), twenty])
    assert whole.joined == [
        Origin(three.environment, 3, 2, ["asked"]),
        Origin(fourteen.environment, 14, 4, ["asked"]),
        Origin(twenty.environment, 20, 6, ["asked"]),
    ]
    assert (whole.environment, whole.seed) == (three.environment, 3)
    text = html.unescape(page(whole))
    for origin in whole.origins:
        assert f"Environment, {origin.rounds} rounds" in text
        assert f'"started_at": "{origin.environment["started_at"]}"' in text


def test_one_run_alone_is_what_it_was() -> None:
    three = both(3, VALUES)
    assert merged([three]) == three
    assert page(three).count("<h2>Environment, 6 rounds</h2>") == 1


def test_json_of_before_there_were_several_runs_in_one_is_read() -> None:
    three = both(3, VALUES)
    data = three.to_json()
    del data["joined"]
    assert Result.from_json(data) == three


def test_run_that_is_given_twice_is_not_counted_twice(tmp_path: Path) -> None:
    three, fourteen = both(3, VALUES[:2]), both(14, VALUES[2:])
    with pytest.raises(ValueError, match="2026-01-02T03:00:00Z is given twice"):
        merged([three, again(three)])
    files = [tmp_path / f"{name}.json" for name in ("joined", "alone")]
    for file, each in zip(files, (merged([three, fourteen]), fourteen), strict=True):
        file.write_text(json.dumps(each.to_json()))
    shown = subprocess.run(
        [sys.executable, "-m", "bench", "show", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 2
    assert "the run of 2026-01-02T14:00:00Z is given twice" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_ratio_is_made_of_figures_of_the_same_run() -> None:
    twice = [2 * value for value in VALUES[:3]]
    # The first run was ended inside its second round, and had no second run of a.
    first = run(3, series("a", VALUES[:2]), series("b", VALUES[:1]))
    found = merged([first, both(14, twice)])
    _, b, again = found.groups[0].series
    ratio = comparison(b, FIGURES[0], found.groups[0], 1)
    assert ratio is not None
    assert ratio.ratio == pytest.approx(1.0)
    assert b.values("number") == [VALUES[0], None, *twice]
    assert again.values("number") == [None, None, *twice]
    assert found.gaps() == []


def test_server_installed_in_one_of_the_runs_is_not_missing() -> None:
    without = run(3, series("a", VALUES))
    without.missing["b"] = "b is missing"
    assert merged([without, run(14, series("b", VALUES))]).missing == {}


def test_runs_of_different_machines_are_not_taken_together() -> None:
    elsewhere = both(14, VALUES)
    elsewhere.environment["kernel"] = "another"
    with pytest.raises(ValueError, match="kernel differs"):
        merged([both(3, VALUES), elsewhere])


def test_floods_of_different_rates_are_not_taken_together() -> None:
    slower = both(14, VALUES)
    slower.groups[0].title = "Asked at another rate"
    with pytest.raises(ValueError, match="asked differs: 'Asked' and 'Asked at another rate'"):
        merged([both(3, VALUES), slower])


def test_runs_with_different_versions_of_a_peer_are_not_taken_together() -> None:
    newer = both(14, VALUES)
    newer.peers["a"] = PeerInfo("", "", "fin", "", "2.0", 128)
    with pytest.raises(ValueError, match="a differs"):
        merged([both(3, VALUES), newer])
