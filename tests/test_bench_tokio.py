"""The peers in Rust: a build that fails leaves them out and says why, and ends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.compare import find_all
from bench.peers import PEERS, article_tokio

TOKIO = [PEERS[name] for name in ("tokio", "tokio-threads", "tokio-wait", "tokio-sequential")]


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Put a shell script in cargo's place, with nothing built; returns where it notes its calls."""
    (tmp_path / "tokio-1.0").mkdir()
    monkeypatch.setattr(article_tokio, "REGISTRY", tmp_path)
    monkeypatch.setattr(article_tokio, "PROGRAM", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def script(text: str) -> Path:
        program, calls = tmp_path / "cargo", tmp_path / "calls"
        program.write_text(f"#!/bin/sh\necho >>{calls}\n{text}\n")
        program.chmod(0o755)
        return calls

    article_tokio.fault.cache_clear()
    yield script
    article_tokio.fault.cache_clear()


def test_build_that_fails_leaves_the_peers_out_with_the_compilers_words(
    cargo: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = cargo("echo 'warning: x' >&2; echo 'error[E1]: no such crate' >&2; exit 101")
    found, missing = find_all(TOKIO)
    assert not found
    why = "bench/peers/tokio could not be built: error[E1]: no such crate"
    assert missing == {peer.name: why for peer in TOKIO}
    assert len(calls.read_text().splitlines()) == 1  # once for all of them
    assert "building the Tokio servers" in capsys.readouterr().err


def test_build_that_takes_too_long_is_given_up(
    cargo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(article_tokio, "BUILD_TIMEOUT", 0.2)
    cargo("exec sleep 60")
    assert find_all(TOKIO[:1])[1] == {
        "tokio": "bench/peers/tokio could not be built: not done after 0.2 s"
    }


def test_build_that_cannot_be_started_is_no_traceback(cargo: Callable[[str], Path]) -> None:
    calls = cargo("")
    (calls.parent / "cargo").write_text("#!/no/such/interpreter\n")
    assert "No such file" in find_all(TOKIO[:1])[1]["tokio"]
