"""Profiles: how an admitted client can tell, protocol by protocol. Data, no I/O."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import Final

from gserver.errors import SettingError

__all__ = [
    "PROBE_LINE",
    "PROFILES",
    "PROFILE_BY_PORT",
    "STATUS",
    "Profile",
    "Speaks",
    "profile_named",
]

#: Sent to find out what a server speaks, and by the echo profile: Redis answers +PONG, an echo
#: server the line itself, an HTTP server 400.
PROBE_LINE: Final = b"PING\r\n"

#: The group of :attr:`Profile.status`.
STATUS: Final = rb"(\d{3})"


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
    :param reject: what a rejected client is told; None: any text that is not expected.
    :param status: an answer that has come so far can be judged: unless it is expected, it turns
        its client away. Its group is what tells the answers apart (``learned.py``).
    :param greeting: how the first line of any greeting begins, as calibration has learned; None:
        nothing is known of it. It admits nobody that the server does not let stand.
    :param ping: sent by a held connection to see that it is still served; empty: cannot be done.
    :param half_way: an admitted client is left in the middle of a handshake. Servers limit its
        time: MySQL's ``connect_timeout`` 10 s, PostgreSQL's ``authentication_timeout`` 60 s,
        OpenSSH's ``LoginGraceTime`` 120 s, our TLS 10 s.
    """

    name: str
    speaks: Speaks
    send: bytes = b""
    expect: re.Pattern[bytes] | None = None
    reject: re.Pattern[bytes] | None = None
    status: re.Pattern[bytes] | None = None
    greeting: re.Pattern[bytes] | None = None
    ping: bytes = b""
    half_way: bool = False

    @property
    def judges_by_silence(self) -> bool:
        """Whether nothing but silence shows that a client was admitted.

        Who is turned away late cannot be told, before that, from who was let in.
        """
        return self.speaks is Speaks.NOBODY or self.admits_any_greeting

    @property
    def admits_any_greeting(self) -> bool:
        """Whether the server greets in words of its own, which count if it lets them stand."""
        return self.speaks is Speaks.SERVER and self.expect is None


def _pattern(text: bytes) -> re.Pattern[bytes]:
    return re.compile(text, re.DOTALL)


def _postgres_startup() -> bytes:
    # Protocol 3.0 StartupMessage. PostgreSQL says 53300 (too_many_connections) only after it.
    body = (196608).to_bytes(4, "big") + b"user\0probe\0database\0probe\0\0"
    return (len(body) + 4).to_bytes(4, "big") + body


def _sized(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size, "big") + body


def _client_hello() -> bytes:
    # RFC 8446, 4.1.2, which every version from 1.2 on answers. The suites, groups and signatures
    # are what servers usually have. No key share: a server of 1.3 asks for one, and that it asks
    # is answer enough.
    suites = bytes.fromhex("130113021303c02bc02fc02cc030cca9cca8009c009d002f0035")
    extensions = (
        bytes.fromhex("000a") + _sized(2, _sized(2, bytes.fromhex("001d00170018")))
        + bytes.fromhex("000b") + _sized(2, _sized(1, b"\0"))
        + bytes.fromhex("000d")
        + _sized(2, _sized(2, bytes.fromhex("040305030603080408050806040105010601")))
        + bytes.fromhex("002b") + _sized(2, _sized(1, bytes.fromhex("03040303")))
        + bytes.fromhex("0033") + _sized(2, _sized(2, b""))
    )  # fmt: skip
    body = b"\x03\x03" + bytes(range(32)) + b"\0" + _sized(2, suites) + b"\x01\0"
    return b"\x16\x03\x01" + _sized(2, b"\x01" + _sized(3, body + _sized(2, extensions)))


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
            half_way=True,
        ),
        Profile(
            "mysql",
            Speaks.SERVER,
            expect=_pattern(rb"^....\x0a"),  # handshake, protocol version 10
            reject=_pattern(rb"^....\xff(\x10\x04|\x11\x04)"),  # errors 1040 and 1041
            half_way=True,
        ),
        Profile(
            "http",
            Speaks.CLIENT,
            send=b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: keep-alive\r\n\r\n",
            expect=_pattern(rb"^HTTP/1\.[01] (?!503|429)\d{3}"),
            reject=_pattern(rb"^HTTP/1\.[01] (503|429)"),
            status=_pattern(rb"^HTTP/1\.[01] " + STATUS),
            ping=b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: keep-alive\r\n\r\n",
        ),
        Profile(
            "tls",
            Speaks.CLIENT,
            send=_client_hello(),
            expect=_pattern(rb"^\x16\x03"),  # a handshake record
            reject=_pattern(rb"^\x15\x03"),  # an alert
            half_way=True,
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
            half_way=True,
        ),
    )
}

#: Tried first when no profile is named: protocols whose server waits for more than a line.
PROFILE_BY_PORT: Final = {
    22: "ssh", 25: "smtp", 443: "tls", 587: "smtp", 3306: "mysql", 5432: "postgres"
}  # fmt: skip


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
        # The user's word for it, of which any part of the answer may decide.
        base = replace(base, speaks=speaks, expect=_compiled("--expect", expect), status=None)
    if reject is not None:
        base = replace(base, reject=_compiled("--reject-pattern", reject))
    if base.speaks is Speaks.CLIENT and base.expect is None:
        raise SettingError("--send", send, "give --expect too: what does an admitted client get?")
    return base
