"""The log lines of a server at work: a flood never floods the log."""

from __future__ import annotations

import pytest
from support import LOCAL, Holding, clients, eventually, load, running, visit

import gserver.rejection_log
from gserver import Limiter, Limits, StreamServer


def test_thousands_of_rejections_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1)) as server:
        with clients(server, 1), load("burst", server, 3000) as burst:
            assert burst.read()["closed"] == 3000
        # 3,000 take some tenths of a second; a summary comes after ten.
        assert [r.getMessage() for r in caplog.records] == ["full 1/1, rejecting"]


def test_accepting_again_is_said_once_there_is_room_and_calm(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gserver.rejection_log, "CALM_S", 0.02)
    with running(StreamServer(LOCAL, Holding(), max_connections=1)) as server:
        with clients(server, 1):
            for _ in range(3):
                assert visit(server) == "closed"
        server.limiter.max_connections = 2
        eventually(lambda: len(caplog.records) == 2)
    first, second = [r.getMessage() for r in caplog.records]
    assert first == "full 1/1, rejecting"
    assert second.startswith("accepting again after ")
    assert second.endswith(" s, 3 rejected")
    assert {r.name for r in caplog.records} == {"gserver"}


def test_what_is_not_in_the_log_yet_is_when_the_last_server_of_a_limiter_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = Limiter(Limits(max_connections=2, per_source=1, dry_run=["source"]))
    first, second, later = (StreamServer(LOCAL, Holding(), limiter=limiter) for _ in range(3))
    with running(first):
        with running(second), clients(first, 2):
            assert visit(second) == "closed"
        assert [r.getMessage() for r in caplog.records] == ["full 2/2, rejecting"]
    _, rejected, tried = [r.getMessage() for r in caplog.records]
    assert rejected.startswith("rejecting: ")
    assert rejected.endswith(" s (capacity 1): 1 from 127.0.0.1")
    assert tried.startswith("dry run: 2 would have been rejected in ")
    with running(later), clients(later, 2):  # and it begins anew
        pass
    assert caplog.records[3].getMessage().startswith("dry run: 1 would have been rejected in ")
    assert len(caplog.records) == 4
