"""Console: the server of the article this project starts from. Prints what clients send."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any, Final

from gserver.net.listeners import describe

__all__ = ["Console", "escape"]

_CHUNK: Final = 4096  # bytes read at once


def escape(text: str) -> str:
    """``text`` with everything that could steer a terminal made visible.

    Control characters, line separators and the invisible formatting characters (those that
    reorder text among them) become ``\\x1b`` and the like; a backslash becomes two, so that what
    a client sends cannot pass for an escape.
    """
    return "".join(
        char
        if char.isprintable() and char != "\\"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


class Console:
    """A handler that prints each client's lines, with its address.

    :param write: takes one finished line, newline included; must not block.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __call__(self, sock: Any, address: Any) -> None:
        name = describe(address) if address else "unix"
        # Bytes that are no UTF-8 come out as \xNN; a character split over two reads stays whole.
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._write(f"{name} connected\n")
        try:
            while data := sock.recv(_CHUNK):
                for line in decoder.decode(data).splitlines():
                    self._write(f"{name}: {escape(line)}\n")
        finally:
            self._write(f"{name} disconnected\n")
