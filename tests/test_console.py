"""The console: every byte a client sends is shown, and none steers the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver.handlers.console import Console, escape

ADDRESS = ("192.0.2.1", 4711)


class Peer:
    """A socket whose client sends these, one a read."""

    def __init__(self, *chunks: bytes, error: OSError | None = None) -> None:
        self._chunks = iter(chunks)
        self._error = error

    def recv(self, size: int) -> bytes:
        chunk = next(self._chunks, b"")
        assert len(chunk) <= size
        if not chunk and self._error is not None:
            raise self._error
        return chunk


def printed(*chunks: bytes, address: Any = ADDRESS) -> list[str]:
    lines: list[str] = []
    Console(lines.append)(Peer(*chunks), address)
    return lines


def said(*chunks: bytes) -> list[str]:
    """What is printed between "connected" and "disconnected", without the address."""
    first, *lines, last = printed(*chunks)
    assert first == "192.0.2.1:4711 connected\n"
    assert last == "192.0.2.1:4711 disconnected\n"
    assert all(line.startswith("192.0.2.1:4711: ") and line.endswith("\n") for line in lines)
    return [line.removeprefix("192.0.2.1:4711: ").removesuffix("\n") for line in lines]


def test_each_line_is_printed_with_the_clients_address() -> None:
    assert printed(b"hello\nworld\n") == [
        "192.0.2.1:4711 connected\n",
        "192.0.2.1:4711: hello\n",
        "192.0.2.1:4711: world\n",
        "192.0.2.1:4711 disconnected\n",
    ]


def test_what_has_no_newline_is_printed_when_it_comes() -> None:
    assert said(b"hel", b"lo") == ["hel", "lo"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"\x1b[2J", r"\x1b[2J"),
        (b"\x1b]0;title\x07", r"\x1b]0;title\x07"),
        (b"\x08\x7f\x00\t", r"\x08\x7f\x00\t"),
        ("\x9b31m".encode(), r"\u009b31m"),  # CSI in one character
        ("a\u202eb".encode(), r"a\u202eb"),  # right-to-left override
        ("a\u200bb\U000e0041".encode(), r"a\u200bb\U000e0041"),  # invisible
        (b"\xff\xfe", r"\xff\xfe"),
        (b"\\x1b", r"\\x1b"),  # cannot pass for an escape
        ("grüße, 世界 🙂".encode(), "grüße, 世界 🙂"),
    ],
)
def test_what_could_steer_a_terminal_is_made_visible(sent: bytes, shown: str) -> None:
    assert said(sent) == [shown]


@given(st.lists(st.binary(min_size=1, max_size=64)))
def test_whatever_is_sent_each_line_is_printable(chunks: list[bytes]) -> None:
    for line in printed(*chunks):
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert not any(unicodedata.category(char).startswith("C") for char in line[:-1])
        line.encode("utf-8")  # no surrogate either


@st.composite
def _split(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
    data = text.encode()
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8)))
    ends = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
    return text, [data[a:b] for a, b in pairwise(ends) if a < b]


@given(_split())
def test_however_it_is_split_into_reads_a_character_stays_whole(
    case: tuple[str, list[bytes]],
) -> None:
    text, chunks = case
    assert "".join(said(*chunks)) == escape("".join(text.splitlines()))


@given(st.binary(max_size=64))
def test_nothing_sent_is_lost_up_to_the_last_unfinished_character(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert "".join(said(*_bytes(data))) == escape("".join(text.splitlines()))


def _bytes(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def test_a_character_left_unfinished_is_printed_as_bytes() -> None:
    assert said("ü".encode()[:1]) == [r"\xc3"]


_ODD = st.text(st.sampled_from("\\x80ufc\x80\xff\udc80\udcff\n"), max_size=6)


@given(_ODD, _ODD)
def test_two_different_texts_never_look_the_same(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        ("", "unix"),
        (b"", "unix"),
        ("/run/a.sock", "unix:/run/a.sock"),
        (b"\0name", "unix:@name"),
        ("/tmp/\x1b[2J\nforged", r"unix:/tmp/\x1b[2J\nforged"),
        (b"\0\xff\x07", r"unix:@\xff\x07"),
    ],
)
def test_a_client_is_named_by_its_address_and_cannot_steer_by_that(address: Any, name: str) -> None:
    assert printed(address=address) == [f"{name} connected\n", f"{name} disconnected\n"]


def test_a_client_that_is_reset_has_disconnected_too() -> None:
    lines: list[str] = []
    with pytest.raises(ConnectionResetError):
        Console(lines.append)(Peer(b"hi\n", error=ConnectionResetError()), ADDRESS)
    assert lines[-2:] == ["192.0.2.1:4711: hi\n", "192.0.2.1:4711 disconnected\n"]
