"""Console: the server of the article this project starts from. Prints what clients send."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any, Final

from gserver.net.listeners import describe

__all__ = ["Console", "escape"]

_CHUNK: Final = 4096  # bytes read at once


def escape(text: str, leave: str = "") -> str:
    """``text`` with everything that could steer a terminal made visible.

    :param leave: characters that are to stay as they are.

    Control characters, line separators and the invisible formatting characters (those that
    reorder text among them) become ``\\x1b`` or ``\\u202e``; a byte that was no UTF-8 (a lone
    surrogate, PEP 383) becomes ``\\xff``, which no character does; a backslash becomes two. So
    nothing a client sends can pass for an escape.
    """
    return "".join(
        char if (char.isprintable() and char != "\\") or char in leave else _visible(char)
        for char in text
    )


def _visible(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    if "\x80" <= char <= "\xff":
        return f"\\u{ord(char):04x}"
    return char.encode("unicode_escape").decode("ascii")


class Console:
    """A handler that prints each client's lines, with its address.

    :param write: takes one finished line, newline included; must not block.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __call__(self, sock: Any, address: Any) -> None:
        # Escaped: a unix client names its own socket file.
        name = escape(describe(address)) if address else "unix"
        # Incremental: a character split over two reads stays whole.
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._write(f"{name} connected\n")
        try:
            data = b"."
            while data:
                data = sock.recv(_CHUNK)
                # At the end, what a character left unfinished is printed as the bytes it is.
                for line in decoder.decode(data, final=not data).splitlines():
                    self._write(f"{name}: {escape(line)}\n")
        finally:
            self._write(f"{name} disconnected\n")
