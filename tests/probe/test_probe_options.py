"""The shared flags, as they are read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gserver.probe.options import Command, report_options

ROOT = Path(__file__).parents[2]
PROBE = "from gserver.probe.cli import probe; probe()"
BENCH = "from bench.__main__ import main; main()"


@click.command(cls=Command)
@click.argument("target")
@click.option("--expect")
@report_options
def command(target: str, thresholds: tuple[str, ...], expect: str | None, **flags: object) -> None:
    click.echo(repr((target, thresholds, expect)))


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["T"], ("T", (), None)),
        (["T", "--threshold", "a<1"], ("T", ("a<1",), None)),
        (["T", "--threshold", "a<1", "b==0", "c>2"], ("T", ("a<1", "b==0", "c>2"), None)),
        (["--threshold", "a<1", "b==0", "T"], ("T", ("a<1", "b==0"), None)),
        (["T", "--threshold", "a<1", "--threshold", "b==0"], ("T", ("a<1", "b==0"), None)),
        (["T", "--threshold=a<1", "b==0"], ("T", ("a<1", "b==0"), None)),
        (["T", "--threshold", "a<1", "b==0", "--expect", "x=y"], ("T", ("a<1", "b==0"), "x=y")),
        (["T", "--threshold", "a<1", "--seed", "3", "--expect", "<"], ("T", ("a<1",), "<")),
    ],
)
def test_several_thresholds_may_follow_the_option(words: list[str], read: object) -> None:
    done = CliRunner().invoke(command, words)
    assert done.output == f"{read!r}\n"


@pytest.mark.parametrize("words", [["T", "a<1"], ["T", "--threshold", "a<1", "U"]])
def test_what_is_no_threshold_is_still_one_word_too_many(words: list[str]) -> None:
    assert CliRunner().invoke(command, words).exit_code == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "about", "most"),
    [
        # What is beyond the cap is waited for seven times, the deadline and a second each.
        ("slow --cap 1 --duration 1s --deadline 40s --profile echo", 8, 6 + 7 * 41),
        # Silence is watched for the deadline and a second, in calibration and at the limit.
        ("cap --profile silent", 2 + 3 + 6, 60),
        ("storm --cap 1 --profile silent --duration 5s", 2 + 5 + 6, 11),
        (
            "run bench/scenarios/full_house.py --profile silent --deadline 40s -t 1s",
            44,
            50 + 4 * 40,
        ),
        # Each of the tries lasts as long as calibration finds out, up to a bound.
        ("churn --cap 1 --duration 1s --tries 500", 10, 1 + 30 + 60),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_the_stated_time_reckons_with_the_waits_of_a_server_that_takes_its_time(
    words: str, about: float, most: float
) -> None:
    command, *flags = words.split()
    tool = BENCH if command == "run" else PROBE
    flags.insert(1 if command == "run" else 0, "127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-c", tool, command, *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = re.search(r"about (\d+) s, at most (\d+) s", done.stderr)
    assert said is not None, done.stderr
    assert int(said[1]) >= about
    assert int(said[2]) >= most
