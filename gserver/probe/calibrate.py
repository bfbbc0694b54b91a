"""Calibration: what one admitted client sees when the server is far below its limit."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

import gevent
from gevent import socket as gsocket

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.engine import Engine, ignore
from gserver.probe.errors import TargetError
from gserver.probe.learned import learned
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Outcome
from gserver.probe.own_slots import Slots, gives_up_at
from gserver.probe.profiles import PROBE_LINE, PROFILE_BY_PORT, PROFILES, Profile, Speaks
from gserver.probe.records import Records
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["Calibration", "calibrate", "watch_s"]

_GREETING_S: Final = 0.3  # how long a server that speaks first may take before we do
_REPLY_S: Final = 0.7
_HOLD_S: Final = 0.5
_AFTER_DEADLINE_S: Final = 1.0  # who is turned away as the deadline passes is still seen
_SURELY_BEFORE: Final = 0.7  # earlier than that, it is not the server's own time limit
_TRIES: Final = 3
_BETWEEN_S: Final = 0.05
_MORE_GREETINGS: Final = 3  # they may take turns, or come from one server or another by chance
_TCPI_RTT: Final = 68  # offset in struct tcp_info (linux/tcp.h), microseconds, u32


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was learned at concurrency 1.

    :param admitted_s: connect to the sign of admission, median, seconds, quiet-time included.
    :param closes_after_s: the server ended the held connection by itself after that long;
        None: not within half a second, nor, where silence is the only evidence of admission,
        within :attr:`watch_s`.
    :param oracle: answers for this target; None: on another host. Closed by :meth:`close`.
    :param round_trip_s: the network's, as the kernel measured it (``TCP_INFO``), seconds.
    :param slot_back_s: the longest that a slot of ours took to come back, seconds; 0: none was seen
        to be missing.
    :param records: where the attempts of :meth:`engine` go; None: nowhere.
    """

    profile: Profile
    patience: Patience
    admitted_s: float
    closes_after_s: float | None
    oracle: Oracle | None
    round_trip_s: float = 0.0
    records: Records | None = None
    slot_back_s: float = 0.0

    @property
    def grace_s(self) -> float:
        """How long after our close word of it may still be on its way (``ledger.py``).

        One round trip: a FIN and the SYN of the next attempt may change places on the way. 0 on
        this host, where both go through one queue.
        """
        return self.round_trip_s if self.oracle is None else 0.0

    @property
    def watch_s(self) -> float:
        """How long after its connect somebody may still be turned away whom silence admitted."""
        longest = watch_s(self.patience)
        if self.closes_after_s is None:
            return longest
        return min(longest, self.closes_after_s * _SURELY_BEFORE)

    def hearing_out(self, late_s: float) -> Calibration:
        """The same with a quiet-time for a server that takes *late_s* to turn somebody away.

        It shares the oracle: close one of the two.
        """
        # An engine waits for quiet twice: until the connection is seen accepted, and from then.
        quiet_s = max(self.patience.quiet_s, late_s)
        deadline_s = max(self.patience.deadline_s, 3 * quiet_s)
        return replace(
            self,
            patience=Patience(quiet_s, deadline_s),
            admitted_s=max(self.admitted_s, 2 * quiet_s),
        )

    def lines(self) -> list[tuple[str, str]]:
        """Label and sentence each, for the result of whatever is measured by it."""
        lines = [("profile", self.profile.name)]
        if self.closes_after_s is not None:
            lines.append(
                (
                    "ends by itself",
                    "the server ends connections by itself after "
                    f"{self.closes_after_s:.2g} s, seen in calibration",
                )
            )
        return lines

    def caveats(self, watched_s: float) -> list[str]:
        """What a reader must know about the evidence, one sentence each.

        :param watched_s: how long a silent connection was watched before it counted.
        """
        if self.profile.half_way:
            return [
                f"profile {self.profile.name} leaves those it holds in the middle of the "
                "handshake: a server that limits its time ends them, which shows as dropped while "
                "held and as admissions at a full cap; keep the run shorter than that limit, or "
                "raise it"
            ]
        if not self.profile.judges_by_silence:
            return []
        return [
            f"silence is the only evidence of admission (profile {self.profile.name}): who is "
            f"turned away later than {watched_s:.3g} s after connecting counts as admitted; if the "
            "server answers anything, give --send and --expect"
        ]

    def engine(
        self,
        target: Target,
        *,
        on_outcome: Callable[[Attempt], None] = ignore,
        on_change: Callable[[Attempt], None] = ignore,
    ) -> Engine:
        """An engine that judges as was learned; the caller closes it before :meth:`close`."""
        records = self.records

        def record(attempt: Attempt) -> None:
            if records is not None:
                records.append(attempt)
            on_outcome(attempt)

        return Engine(
            target,
            self.profile,
            self.patience,
            oracle=self.oracle,
            on_outcome=record,
            on_change=on_change,
        )

    def close(self) -> None:
        """Close the oracle's socket. May be called again."""
        if self.oracle is not None:
            self.oracle.close()

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "profile": self.profile.name,
            "expects": _text(self.profile.expect or self.profile.greeting),
            "quiet_time_s": self.patience.quiet_s,
            "deadline_s": self.patience.deadline_s,
            "admitted_s": self.admitted_s,
            "closes_by_itself_after_s": self.closes_after_s,
            "oracle": self.oracle is not None,
            "round_trip_s": self.round_trip_s,
            "slot_back_after_s": self.slot_back_s,
        }


def _text(pattern: re.Pattern[bytes] | None) -> str | None:
    return None if pattern is None else pattern.pattern.decode("latin-1")


def watch_s(patience: Patience) -> float:
    """How long a client is watched whom only silence admits, unless the server ends it before."""
    return patience.deadline_s + _AFTER_DEADLINE_S


def calibrate(target: Target, profile: Profile | None, patience: Patience, run: Run) -> Calibration:
    """Connect a few times, one after the other, and learn what admission looks like.

    :param profile: None: find out what the server speaks.
    :raises TargetError: it cannot be reached, or nobody is admitted.
    :raises Stopped: the run was, before all was learned.
    """
    run.tell(f"calibrating against {target.text}")
    found_out = profile is None
    if profile is None:
        profile = run.result_of(lambda: _detect(target, patience))
    oracle: Oracle | None
    try:
        oracle = Oracle()
    except OSError:
        oracle = None
    engine = Engine(target, profile, patience, oracle=oracle)
    engine.sees_rows = False
    try:
        latencies: list[float] = []
        answers: list[bytes] = []
        slots = Slots(engine, run, patience, gives_up_at(run))
        if found_out:
            slots.were_used(certainly=_has_served(profile, target))
        while True:
            given_time = slots.are_slow
            attempt = slots.take()
            if attempt.sock is not None and engine.accepted(attempt) is None:
                engine.oracle = None  # the kernel has no such row: a server of another host
            slots.must_be_admitted(attempt, target, profile)
            answers.append(attempt.received)
            latencies.append((attempt.finished - attempt.started) / 1e9)
            rtt_s = _round_trip_s(attempt)
            if len(latencies) > _TRIES or (given_time and slots.are_slow):
                break
            engine.end(attempt)
            slots.were_used(certainly=True)
        hold_s = _HOLD_S
        if profile.judges_by_silence:
            hold_s = watch_s(patience)
            if found_out:  # else it was reckoned with
                run.announce(
                    f"the server answers nothing: {hold_s:g} s longer, here and again at its "
                    "limit, to see whom it turns away late"
                )
            run.tell(f"does the server end a silent connection by itself? {hold_s:g} s to see")
        run.until(lambda: attempt.ended, hold_s)
        closes_after = (attempt.ended - attempt.finished) / 1e9 if attempt.ended else None
        engine.end(attempt)
        if profile.admits_any_greeting and not slots.are_slow:
            answers += _greetings(engine, run, patience)
        usable = engine.oracle
    except BaseException:
        if oracle is not None:
            oracle.close()
        raise
    finally:
        engine.close()
    if oracle is not None and usable is None:
        oracle.close()
    if rtt_s * 4 > patience.quiet_s:
        patience = replace(patience, quiet_s=rtt_s * 4)
    # Some may have waited in a queue for a slot of ours, where those are slow.
    usual_s = min(latencies) if slots.are_slow else sorted(latencies)[len(latencies) // 2]
    return Calibration(
        learned(profile, answers),
        patience,
        usual_s,
        closes_after,
        usable,
        rtt_s,
        slot_back_s=slots.back_s,
    )


def _has_served(profile: Profile, target: Target) -> bool:
    """Whether who found *profile* out was served: not if a port's number, any greeting (which may
    say that the server is full) or silence was enough for it."""
    return profile.name not in ("banner", "silent") and target.address[1] not in PROFILE_BY_PORT


def _greetings(engine: Engine, run: Run, patience: Patience) -> list[bytes]:
    """Some more, for what they have in common; fewer, where a slot is not back at once."""
    found = []
    for _ in range(_MORE_GREETINGS):
        run.pause(_BETWEEN_S)
        attempt = engine.start(keep=True)
        run.until(lambda a=attempt: a.outcome, patience.deadline_s + 1)  # type: ignore[misc]
        engine.end(attempt)
        if attempt.outcome is not Outcome.ADMITTED:
            break
        found.append(attempt.received)
    return found


def _round_trip_s(attempt: Attempt) -> float:
    if attempt.sock is None:
        return 0.0
    info = attempt.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT + 4)
    return int(struct.unpack_from("=I", info, _TCPI_RTT)[0]) / 1e6


def _detect(target: Target, patience: Patience) -> Profile:
    found = _ask(target, patience, PROBE_LINE)
    if found is not None:
        return found
    # Ended for a line of text: by a server that waits for binary, TLS above all. It may still be
    # giving back the slot of that connection, or limit how often one source comes.
    gives_up = monotonic() + 2 * patience.deadline_s
    while monotonic() < gives_up:
        gevent.sleep(_BETWEEN_S)
        try:
            found = _ask(target, patience, PROFILES["tls"].send)
        except TargetError:
            continue
        break
    return found or PROFILES["silent"]


def _ask(target: Target, patience: Patience, line: bytes) -> Profile | None:
    """What the server speaks, by its greeting or its answer to *line*; None: that ended it.

    :raises TargetError: the connection could not be made, or ended before *line* was sent.
    """
    sock = gsocket.socket(target.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(patience.deadline_s)
        sock.connect(target.sockaddr)
        greeting = _hear(sock, _GREETING_S)
        if greeting is None:
            raise TargetError(
                f"{target.tried}: a single client is turned away: is it full already?"
            )
        if greeting:
            return _who_greets(greeting, target)
        named = PROFILE_BY_PORT.get(target.address[1])
        if named is not None:
            return PROFILES[named]
        try:
            sock.sendall(line)
            reply = _hear(sock, _REPLY_S)
        except ConnectionError:  # as it ended, what we had sent was unread
            return None
        return None if reply is None else _who_replies(reply, line)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, ConnectionRefusedError):
            reason = "connection refused: is the server running there?"
        elif isinstance(error, TimeoutError):
            reason = "no answer to the handshake: is the address right?"
        raise TargetError(f"{target.tried}: {reason}") from None
    finally:
        sock.close()


def _hear(sock: gsocket.socket, seconds: float) -> bytes | None:
    """What comes within *seconds*: text, empty for nothing, None for the end."""
    sock.settimeout(seconds)
    try:
        return sock.recv(4096) or None
    except TimeoutError:
        return b""


def _who_greets(greeting: bytes, target: Target) -> Profile:
    for profile in PROFILES.values():
        if profile.speaks is Speaks.SERVER and profile.expect is not None:
            if profile.reject is not None and profile.reject.search(greeting):
                raise TargetError(
                    f"{target.tried}: a single client is told {greeting[:60]!r}: full already?"
                )
            if profile.expect.search(greeting):
                return profile
    return PROFILES["banner"]


def _who_replies(reply: bytes, line: bytes) -> Profile:
    for name in ("redis", "echo"):
        profile = PROFILES[name]
        if profile.expect is not None and profile.expect.search(reply):
            return profile
    if reply.startswith((b"\x15\x03", b"\x16\x03")):  # an alert, or a handshake
        return PROFILES["tls"]
    if reply.startswith(b"HTTP/"):
        return PROFILES["http"]
    if not reply:
        return PROFILES["silent"]
    # Some protocol of lines: an admitted client gets at the cap what it got here.
    same = re.compile(re.escape(reply[:64].splitlines()[0]))
    return Profile("line", Speaks.CLIENT, send=line, expect=same, ping=line)
