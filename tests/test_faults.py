"""Whose fault an ending was, and who hears of it: the log, the counters, the program."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from gevent.event import Event
from support import (
    DEADLINE,
    LOCAL,
    Holding,
    clients,
    connect,
    eventually,
    greet,
    outcome,
    running,
    vanish,
    visit,
)

from gserver import StreamServer
from gserver.net.listeners import describe
from gserver.stats import Ending


def test_all_slots_return_when_the_server_stops() -> None:
    handler = Holding()
    server = StreamServer(LOCAL, handler, max_connections=5)
    with running(server), clients(server, 5) as socks:
        server.stop(0.0)
        assert server.stats.active == 0
        assert server.stats.finished[Ending.KILLED] == 5
        assert handler.inside == 0
        assert {outcome(sock) for sock in socks} == {"closed"}


def test_sys_exit_in_a_handler_does_not_stop_the_server() -> None:
    def handler(sock: Any, address: Any) -> None:
        greet(sock, address)
        sys.exit("on purpose")

    with running(StreamServer(LOCAL, handler, max_connections=1)) as server:
        for _ in range(3):
            assert visit(server) == "served"
            eventually(lambda: server.stats.active == 0)
        assert server.started
        assert server.stats.finished[Ending.EXITED] == 3


def test_ctrl_c_that_lands_in_a_handler_reaches_the_program_and_frees_the_slot(
    hub_errors: list[BaseException],
) -> None:
    def handler(_sock: Any, _address: Any) -> None:
        raise KeyboardInterrupt

    with running(StreamServer(LOCAL, handler, max_connections=1)) as server:
        with connect(server):
            with pytest.raises(KeyboardInterrupt):
                Event().wait(DEADLINE)
            assert server.stats.active == 0
            assert server.stats.balanced
    hub_errors.clear()


def test_a_handlers_error_is_logged_once_with_the_peer_and_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(_sock: Any, _address: Any) -> None:
        raise RuntimeError("on purpose")

    with running(StreamServer(LOCAL, handler, max_connections=1)) as server:
        with connect(server) as client:
            name = describe(client.getsockname())
            assert outcome(client) == "closed"
        eventually(lambda: server.stats.active == 0)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert name in record.getMessage()
    assert record.exc_info is not None


def test_a_peer_that_resets_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1)) as server:
        client = connect(server)
        assert outcome(client) == "served"
        vanish(client)
        eventually(lambda: server.stats.finished[Ending.PEER_GONE] == 1)
    assert not caplog.records
