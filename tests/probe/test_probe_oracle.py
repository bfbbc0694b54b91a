"""The oracle knows who has been accepted, and how long the queue is."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, closing

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
            for host in (dialled, None):
                rows = oracle.listeners(port, host)
                assert [(row.waiting, row.backlog) for row in rows] == [(1, 5)]
            served, _ = listener.accept()
            with served:
                assert oracle.accepted(*pair) is True
                assert oracle.listeners(port)[0].waiting == 0
        assert oracle.accepted(*pair) is None


def listener_on(
    stack: ExitStack, host: str, port: int, backlog: int, *, dual: bool = False, reuse: bool = False
) -> int:
    sock = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
    sock.bind((host, port))
    sock.listen(backlog)
    return int(sock.getsockname()[1])


def listeners_on(
    stack: ExitStack, hosts: list[str], *, dual: bool = False, reuse: bool = False
) -> int:
    """One on each of them, of one port; the backlogs are 1, 2, 3 …"""
    while True:
        with ExitStack() as these:
            port = 0
            try:
                for n, host in enumerate(hosts, 1):
                    port = listener_on(these, host, port, n, dual=dual, reuse=reuse)
            except OSError as error:
                # Free where it was chosen, it may be somebody's on another address.
                if error.errno == errno.EADDRINUSE and port:
                    continue
                raise
            stack.push(these.pop_all())
            return port


@pytest.mark.parametrize(
    ("hosts", "dialled", "backlogs"),
    [
        (["127.0.0.1", "127.0.0.2", "::1"], "127.0.0.1", [1]),
        (["127.0.0.1", "127.0.0.2", "::1"], "127.0.0.2", [2]),
        (["127.0.0.1", "127.0.0.2", "::1"], "::1", [3]),
        (["127.0.0.1", "127.0.0.2", "::1"], "::ffff:127.0.0.2", [2]),
        (["0.0.0.0", "::1"], "127.0.0.3", [1]),
        (["127.0.0.1", "::"], "127.0.0.1", [1]),
        (["127.0.0.2", "::"], "127.0.0.1", []),  # the wildcard is of IPv6 alone
        (["127.0.0.2", "::"], "::1", [2]),
        (["127.0.0.2"], "127.0.0.1", []),
        (["127.0.0.1"], "0.0.0.0", [1]),
        (["::1"], "::", [1]),
    ],
)
def test_the_listeners_are_those_of_the_address(
    hosts: list[str], dialled: str, backlogs: list[int]
) -> None:
    with ExitStack() as stack, closing(Oracle()) as oracle:
        port = listeners_on(stack, hosts)
        assert [row.backlog for row in oracle.listeners(port, dialled)] == backlogs


@pytest.mark.parametrize(
    "hosts",
    [
        ["127.0.0.1", "0.0.0.0"],
        ["127.0.0.1", "::"],
        ["::ffff:127.0.0.1", "0.0.0.0", "::"],
        ["0.0.0.0", "::"],
        ["::", "127.0.0.2"],
        ["127.0.0.1", "::ffff:127.0.0.1"],
    ],
)
def test_of_several_listeners_it_is_the_one_that_the_kernel_takes(hosts: list[str]) -> None:
    with ExitStack() as stack, closing(Oracle()) as oracle:
        port = listeners_on(stack, hosts, dual=True, reuse=True)
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        rows = oracle.listeners(port, "127.0.0.1")
        assert [(row.waiting, row.backlog) for row in rows] == [(1, 1)]


def test_listeners_that_share_an_address_are_all_seen() -> None:
    with ExitStack() as stack, closing(Oracle()) as oracle:
        port = listeners_on(stack, ["127.0.0.1"] * 3, reuse=True)
        rows = oracle.listeners(port, "127.0.0.1")
        assert sorted(row.backlog for row in rows) == [1, 2, 3]
