"""Profiles: how an admitted client can tell, protocol by protocol. Data, no I/O."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import Final

from gserver.errors import SettingError

__all__ = ["PROBE_LINE", "PROFILES", "PROFILE_BY_PORT", "Profile", "Speaks", "profile_named"]

#: Sent to find out what a server speaks, and by the echo profile: Redis answers +PONG, an echo
#: server the line itself, an HTTP server 400.
PROBE_LINE: Final = b"PING\r\n"


class Speaks(enum.Enum):
    """Whose word shows that the client was admitted."""

    SERVER = "server"  # a greeting
    CLIENT = "client"  # a reply to our probe
    NOBODY = "nobody"  # neither: only the kernel's rows can tell (``oracle.py``)


@dataclass(frozen=True, slots=True)
class Profile:
    """What to send, and how the answers read.

    :param send: the probe, sent once after quiet-time; empty when the server speaks first or
        nobody does.
    :param expect: what an admitted client receives; None: any greeting will do.
    :param reject: what a rejected client is told; None: an unexpected text followed by the end.
    :param ping: sent by a held connection to see that it is still served; empty: cannot be done.
    """

    name: str
    speaks: Speaks
    send: bytes = b""
    expect: re.Pattern[bytes] | None = None
    reject: re.Pattern[bytes] | None = None
    ping: bytes = b""

    @property
    def judges_by_silence(self) -> bool:
        """Whether nothing but silence shows that a client was admitted.

        Who is turned away late cannot be told, before that, from who was let in.
        """
        return self.speaks is Speaks.NOBODY or (
            self.speaks is Speaks.SERVER and self.expect is None
        )


def _pattern(text: bytes) -> re.Pattern[bytes]:
    return re.compile(text, re.DOTALL)


def _postgres_startup() -> bytes:
    # Protocol 3.0 StartupMessage. PostgreSQL says 53300 (too_many_connections) only after it.
    body = (196608).to_bytes(4, "big") + b"user\0probe\0database\0probe\0\0"
    return (len(body) + 4).to_bytes(4, "big") + body


PROFILES: Final = {
    p.name: p
    for p in (
        Profile(
            "echo",
            Speaks.CLIENT,
            send=PROBE_LINE,
            expect=_pattern(re.escape(PROBE_LINE)),
            ping=PROBE_LINE,
        ),
        Profile("banner", Speaks.SERVER),
        Profile("silent", Speaks.NOBODY),
        Profile(
            "redis",
            Speaks.CLIENT,
            send=PROBE_LINE,
            expect=_pattern(rb"^(\+PONG|-NOAUTH)"),
            reject=_pattern(rb"^-ERR max number of clients"),
            ping=PROBE_LINE,
        ),
        Profile(
            "postgres",
            Speaks.CLIENT,
            send=_postgres_startup(),
            expect=_pattern(rb"^R"),  # an authentication request
            reject=_pattern(rb"^E.*C(53300|57P03)\0"),
        ),
        Profile(
            "mysql",
            Speaks.SERVER,
            expect=_pattern(rb"^....\x0a"),  # handshake, protocol version 10
            reject=_pattern(rb"^....\xff(\x10\x04|\x11\x04)"),  # errors 1040 and 1041
        ),
        Profile(
            "http",
            Speaks.CLIENT,
            send=b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: keep-alive\r\n\r\n",
            expect=_pattern(rb"^HTTP/1\.[01] (?!503|429)"),
            reject=_pattern(rb"^HTTP/1\.[01] (503|429)"),
            ping=b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: keep-alive\r\n\r\n",
        ),
        Profile(
            "smtp",
            Speaks.SERVER,
            expect=_pattern(rb"^220[ -]"),
            reject=_pattern(rb"^(421|554)[ -]"),
        ),
        Profile(
            "ssh",
            Speaks.SERVER,
            expect=_pattern(rb"^SSH-"),
            reject=_pattern(rb"^(Exceeded MaxStartups|Not allowed at this time)"),
        ),
    )
}

#: Tried first when no profile is named: protocols whose server waits for more than a line.
PROFILE_BY_PORT: Final = {22: "ssh", 25: "smtp", 587: "smtp", 3306: "mysql", 5432: "postgres"}


def _compiled(setting: str, text: str | None) -> re.Pattern[bytes] | None:
    if text is None:
        return None
    try:
        return _pattern(text.encode())
    except re.error as error:
        raise SettingError(setting, text, f"not a regular expression: {error}") from None


def profile_named(
    name: str,
    *,
    send: str | None = None,
    expect: str | None = None,
    reject: str | None = None,
) -> Profile:
    """A profile of the table, with the user's own texts laid over it.

    :param send: the probe, with Python's backslash escapes (``PING\\r\\n``).
    :param expect: regular expression over bytes for an admitted client's answer.
    :param reject: the same for a rejected one.
    :raises SettingError: unknown name, a bad expression, a bad escape.
    """
    base = PROFILES.get(name)
    if base is None:
        raise SettingError("--profile", name, f"unknown; use one of {', '.join(PROFILES)}")
    if send is not None:
        try:
            probe = send.encode().decode("unicode_escape").encode("latin-1")
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise SettingError("--send", send, f"bad escape: {error}") from None
        answer = _pattern(re.escape(probe)) if base.name == "echo" else base.expect
        base = replace(base, speaks=Speaks.CLIENT, send=probe, ping=probe, expect=answer)
    if expect is not None:
        speaks = Speaks.CLIENT if base.send else Speaks.SERVER
        base = replace(base, speaks=speaks, expect=_compiled("--expect", expect))
    if reject is not None:
        base = replace(base, reject=_compiled("--reject-pattern", reject))
    if base.speaks is Speaks.CLIENT and base.expect is None:
        raise SettingError("--send", send, "give --expect too: what does an admitted client get?")
    return base
