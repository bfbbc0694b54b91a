"""TIME_WAITs left by rejections are counted right, from however many addresses they came."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Outcome
from gserver.probe.procstat import measure
from gserver.probe.time_wait import left_in_time_wait

S = 1_000_000_000
A, B = 0x7F010001 << 16, 0x7F010002 << 16


@pytest.mark.parametrize(
    ("what", "attempts", "waiting", "overflow", "resets", "made", "thrown", "rejected"),
    [
        ("one each", [(1, "fin", A | 5), (2, "fin", B | 5)], {A | 5, B | 5}, 0, False, 2, 0, 2),
        ("taken over", [(1, "fin", A | 5), (2, "fin", A | 5)], {A | 5}, 0, False, 2, 0, 2),
        ("another address", [(1, "fin", A | 5)], {B | 5, A | 6}, 0, False, 0, 0, 1),
        ("a reset leaves none", [(1, "rst", A | 5)], {A | 5}, 9, False, 0, 0, 1),
        ("nor do the admitted", [(1, "admitted", A | 5)], {A | 5}, 9, False, 0, 0, 0),
        ("the kernel's address", [(1, "message", 5)], {A | 5}, 0, False, 1, 0, 1),
        ("thrown away", [(1, "fin", A | 5), (2, "fin", A | 6)], {A | 5}, 9, False, 1, 1, 2),
        ("never more than that", [(1, "fin", A | 5)], {A | 5}, 9, False, 1, 0, 1),
        ("we reset", [(1, "fin", A | 5)], set(), 9, True, 0, 0, 1),
        ("long ago", [(-55 * S, "fin", A | 5)], set(), 0, False, 0, 0, 0),
    ],
)
def test_each_rejection_is_looked_up_by_its_own_end(
    what: str,
    attempts: list[tuple[int, str, int]],
    waiting: set[int],
    overflow: int,
    resets: bool,
    made: int,
    thrown: int,
    rejected: int,
) -> None:
    rows = [(finished, Outcome(outcome), source) for finished, outcome, source in attempts]
    left = left_in_time_wait(rows, waiting, 10, overflow=overflow, client_resets=resets)
    assert (left.made, left.thrown_away, left.rejected) == (made, thrown, rejected), what


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_oracle_names_the_clients_ends_of_sixteen_addresses(family: int) -> None:
    """A dual-stack listener's rows are of ::ffff:127.1.0.x."""
    overflow = measure(None).time_wait_overflow
    with socket.socket(family) as listener, closing(Oracle()) as oracle:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ends = set()
        for i in range(48):
            with socket.create_connection(
                ("127.0.0.1", port), source_address=(f"127.1.0.{1 + i % 16}", 0)
            ) as client:
                host, source = client.getsockname()
                ends.add(int.from_bytes(socket.inet_aton(host), "big") << 16 | source)
                listener.accept()[0].close()
                assert client.recv(1) == b""
        found = oracle.time_waits(port)
    assert found <= ends
    if measure(None).time_wait_overflow == overflow:  # else others have filled the table
        assert found == ends
