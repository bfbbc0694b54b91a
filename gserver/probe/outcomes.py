"""Outcomes: what a client observed, and the pure rules that say so.

No sockets, no gevent, no clock: ``engine.py`` reads the socket and asks these functions. The
server's gate gives *verdicts*; what arrives at a client is an *outcome*, and the two must not be
mixed: a server may believe that it rejected someone who sees nothing but silence.
"""

from __future__ import annotations

import enum
import errno
from typing import Final

from gserver.probe.profiles import Profile, Speaks

__all__ = [
    "CODE_OF",
    "HANGS",
    "OUTCOMES",
    "REJECTIONS",
    "Next",
    "Outcome",
    "of_close",
    "of_data",
    "of_deadline",
    "of_errno",
    "of_quiet",
    "unexpected",
]


class Outcome(enum.StrEnum):
    """What one connection attempt came to. Closed: every value is a table row."""

    ADMITTED = "admitted"  # the expected greeting or reply; silent server: quiet and accepted
    FIN = "fin"  # end of file before any sign of admission
    RST = "rst"  # ECONNRESET, from whichever call reported it
    MESSAGE = "message"  # the reject pattern, or text that was not expected
    REFUSED = "refused"  # ECONNREFUSED: nobody listens, or the kernel refuses for the server
    QUEUED = "queued"  # connected, quiet, and the server has not accepted it
    UNKNOWN = "unknown"  # connected, quiet, and nobody can say whether it was accepted
    SYN_PENDING = "syn_pending"  # the handshake was not complete on both sides by the deadline
    HANG = "hang"  # accepted, and no verdict by the deadline although one was due
    LOCAL = "local"  # our own fault (descriptors, ports): makes the run invalid


#: Outcomes by the code that stands for them in the record arrays.
OUTCOMES: Final = tuple(Outcome)
CODE_OF: Final = {outcome: code for code, outcome in enumerate(OUTCOMES)}

#: The four ways of being told at once. Their latency is the rejection latency, each kind apart.
REJECTIONS: Final = (Outcome.FIN, Outcome.RST, Outcome.MESSAGE, Outcome.REFUSED)

#: The three ways of waiting a whole deadline for nothing. To the client they are one: whether it is
#: the kernel or the server that leaves it there, it hangs.
HANGS: Final = (Outcome.HANG, Outcome.QUEUED, Outcome.SYN_PENDING)


class Next(enum.Enum):
    """What to do when quiet-time has passed without a verdict."""

    WAIT = "wait"
    SEND = "send"


# By errno, not by call: a reset that arrives during the handshake is reported by connect, one
# that arrives after it by recv or send, and the client sees the same thing. EPIPE is a reset
# received after a FIN (tcp_reset() in net/ipv4/tcp_input.c).
_BY_ERRNO: Final = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.RST,
    errno.ECONNABORTED: Outcome.RST,
    errno.EPIPE: Outcome.RST,
    errno.ETIMEDOUT: Outcome.SYN_PENDING,
}


def of_errno(number: int) -> Outcome:
    """The outcome behind an error number of connect, send or recv; unknown ones are ours."""
    return _BY_ERRNO.get(number, Outcome.LOCAL)


def of_close(received: bytes, number: int = 0) -> Outcome:
    """The server ended the connection before any sign of admission.

    :param received: what had come before the end.
    :param number: 0 for end of file, else the error number.
    """
    if received:
        return Outcome.MESSAGE
    return of_errno(number) if number else Outcome.FIN


def unexpected(profile: Profile, received: bytes) -> bytes:
    """What of *received* the admitted are not told before they are: all but the known greeting."""
    if profile.greeting is not None and profile.greeting.match(received):
        return received.lstrip().partition(b"\n")[2]
    return received


def of_data(profile: Profile, received: bytes, *, probed: bool) -> Outcome | None:
    """Judge all that has arrived so far.

    :param probed: our probe has been sent, so a reply can be one.
    :return: the outcome, or None: not decided by this text alone. Text that nobody expected
        becomes MESSAGE when the connection ends after it, or at the deadline.
    """
    if profile.reject is not None and profile.reject.search(received):
        return Outcome.MESSAGE
    if profile.admits_any_greeting and profile.greeting and b"\n" in received.lstrip():
        return None if profile.greeting.match(received) else Outcome.MESSAGE
    if profile.expect is None or (profile.speaks is Speaks.CLIENT and not probed):
        return None
    if profile.expect.search(received):
        return Outcome.ADMITTED
    answered = profile.status is not None and profile.status.search(received)
    return Outcome.MESSAGE if answered else None


def of_quiet(
    profile: Profile, received: bytes, *, probed: bool, accepted: bool | None
) -> Outcome | Next:
    """Quiet-time has passed on a connected socket since it opened or last received.

    :param accepted: what the oracle says; None when there is none.
    """
    if profile.speaks is Speaks.CLIENT:
        return Next.WAIT if probed else Next.SEND
    if profile.speaks is Speaks.SERVER:
        # A greeting without a pattern counts once the server has let it stand: a busy message
        # is followed by the end within quiet-time.
        if not received or profile.expect is not None:
            return Next.WAIT
        fits = profile.greeting is None or profile.greeting.match(received)
        return Outcome.ADMITTED if fits else Next.WAIT
    # Text is no silence.
    return Outcome.ADMITTED if accepted and not received else Next.WAIT


def of_deadline(
    profile: Profile, received: bytes, *, connected: bool, accepted: bool | None
) -> Outcome:
    """Nothing decided the attempt in time."""
    if not connected:
        return Outcome.SYN_PENDING
    if accepted is False:
        return Outcome.QUEUED
    # Who was told something else than the admitted are has been accepted, and is not in line for
    # anything, though the server may leave the connection open.
    if unexpected(profile, received):
        return Outcome.MESSAGE
    if profile.speaks is Speaks.NOBODY:
        return Outcome.ADMITTED if accepted else Outcome.UNKNOWN
    # Silence alone does not tell a server that has accepted from one that has not.
    return Outcome.HANG if accepted else Outcome.UNKNOWN
