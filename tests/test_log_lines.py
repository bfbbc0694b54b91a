"""The log lines of a server at work: a flood never floods the log."""

from __future__ import annotations

import pytest
from support import LOCAL, Holding, clients, eventually, load, running, visit

import gserver.rejection_log
from gserver import StreamServer


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
