"""The shared flags, as they are read."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from gserver.probe.options import Command, report_options


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
