"""The oracle knows who has been accepted, and how long the queue is."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from gserver.probe.oracle import Oracle


@pytest.mark.parametrize(
    ("family", "bound", "dialled"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),  # dual-stack: the row is ::ffff:127.0.0.1
    ],
)
def test_accepted_tells_queued_from_served(family: int, bound: str, dialled: str) -> None:
    with socket.socket(family) as listener, closing(Oracle()) as oracle:
        if bound == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((bound, 0))
        listener.listen(5)
        port = listener.getsockname()[1]
        with socket.create_connection((dialled, port)) as client:
            pair = client.getpeername()[:2], client.getsockname()[:2]
            assert oracle.accepted(*pair) is False
            assert [(row.waiting, row.backlog) for row in oracle.listeners(port)] == [(1, 5)]
            served, _ = listener.accept()
            with served:
                assert oracle.accepted(*pair) is True
                assert oracle.listeners(port)[0].waiting == 0
        assert oracle.accepted(*pair) is None
