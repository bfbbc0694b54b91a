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
    reorder text among them) become ``\\x1b`` and the like; a byte that was no UTF-8 (a lone
    surrogate, PEP 383) becomes ``\\xff``; a backslash becomes two, so that nothing a client sends
    can pass for an escape.
    """
    return "".join(char if char.isprintable() and char != "\\" else _visible(char) for char in text)


def _visible(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


class Console:
    """A handler that prints each client's lines, with its address.

    :param write: takes one finished line, newline included; must not block.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __call__(self, sock: Any, address: Any) -> None:
        name = describe(address) if address else "unix"
        # Incremental: a character split over two reads stays whole.
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._write(f"{name} connected\n")
        try:
            while data := sock.recv(_CHUNK):
                for line in decoder.decode(data).splitlines():
                    self._write(f"{name}: {escape(line)}\n")
        finally:
            self._write(f"{name} disconnected\n")
