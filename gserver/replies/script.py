"""What a busy reply is: a pure function from the bytes received to the bytes to send.

A script keeps no state and knows no socket and no clock. Whoever drives it
(``gserver/net/linger.py``) keeps what the client has sent so far and how much of the answer is
already out, so the same script object serves every client at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, Protocol

from gserver.errors import SettingError

__all__ = ["HANG_UP", "WAIT", "Dialogue", "Reply", "Script", "Turn"]


class Turn(NamedTuple):
    """The script's word on what was received so far."""

    due: bytes
    """*All* bytes due to the client up to now, those already sent included. What is due never
    shrinks or changes when more is received: it only grows at its end."""

    finished: bool
    """Nothing more will be said, whatever else the client sends: send what is due and close."""


WAIT: Final = Turn(b"", False)  # nothing to say yet
HANG_UP: Final = Turn(b"", True)  # nothing to say at all: not a client of this protocol


class Script(Protocol):
    """A bounded exchange that tells a client of one protocol that the server is full."""

    @property
    def max_received(self) -> int:
        """Bytes of the client's that :meth:`turn` looks at. With that many it is finished."""

    @property
    def tls(self) -> bool:
        """True when the bytes are TLS records, which only a TLS client understands; False when
        they are the protocol's own plaintext, which only a plaintext client does."""

    def turn(self, received: bytes) -> Turn:
        """Say what is due after ``received``, all that the client has sent so far.

        Never raises, whatever the bytes are.
        """


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that waits for nothing: its bytes go out as soon as the client is turned away.

    :param payload: the bytes, one or more, ending as a message of the protocol ends.
    :param tls: see :attr:`Script.tls`.
    :raises SettingError: the payload is not bytes or is empty.
    """

    payload: bytes
    tls: bool = False
    max_received: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not isinstance(self.payload, bytes) or not self.payload:
            raise SettingError(
                "reply", self.payload, 'must be bytes, at least one; for example b"busy\\r\\n"'
            )

    def turn(self, received: bytes) -> Turn:
        return Turn(self.payload, True)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A reply that depends on what the client says first.

    :param answer: what is due after the bytes it is given, which are at most ``max_received``.
        Pure; never raises; its ``due`` for some bytes begins with its ``due`` for fewer of them.
    :param max_received: see :attr:`Script.max_received`. 1 or more.
    """

    answer: Callable[[bytes], Turn]
    max_received: int
    tls: ClassVar[bool] = False

    def turn(self, received: bytes) -> Turn:
        due, finished = self.answer(received[: self.max_received])
        return Turn(due, finished or len(received) >= self.max_received)
