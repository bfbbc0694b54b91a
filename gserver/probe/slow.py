"""``probe slow``: silent, byte-trickling and half-closing clients. Who holds a slot, how long?"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns
from typing import Any

import gevent
from gevent import socket as gsocket

from gserver.probe.calibrate import Calibration
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.holders import Holders
from gserver.probe.outcomes import Outcome, of_errno
from gserver.probe.profiles import Profile
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["KINDS", "WAITS", "SlowSettings", "run_slow"]

KINDS = ("silent", "trickle", "half_close")

#: How often it waits for clients beyond the cap: a whole deadline, where the server queues them.
WAITS = 1 + 2 * len(KINDS)

_TRICKLE_S = 0.5
_SETTLE_S = 0.3
_LOOKS = 3  # in each of which the server ends an ordinary client, before nobody can say


@dataclass(frozen=True, slots=True)
class SlowSettings:
    """:param count: slow clients of each kind, at most the cap.
    :param duration_s: how long to watch each kind.
    """

    cap: int
    count: int
    duration_s: float


@dataclass(slots=True)
class _Client:
    """One slow client. Times are monotonic ns: of its connect, and of the server's end of it.

    ``ended_by``: how it did that; None, and ``ended`` 0, when it did not. ``received``: bytes.
    """

    kind: str
    sock: gsocket.socket
    began: int = field(default_factory=monotonic_ns)
    ended: int = 0
    ended_by: Outcome | None = None
    received: int = 0

    @property
    def closed_s(self) -> float | None:
        """Seconds from connect until the server ended it; None: it did not."""
        return (self.ended - self.began) / 1e9 if self.ended else None

    def behave(self, profile: Profile) -> None:
        """Until the server ends the connection, or this greenlet is killed."""
        text = profile.send or b"x"
        try:
            if self.kind == "half_close":
                self.sock.sendall(text)
                self.sock.shutdown(socket.SHUT_WR)
            sender = gevent.spawn(self._trickle, text) if self.kind == "trickle" else None
            try:
                while data := self.sock.recv(4096):
                    self.received += len(data)
            finally:
                if sender is not None:
                    sender.kill()
            self.ended_by = Outcome.FIN
        except OSError as error:
            self.ended_by = of_errno(error.errno or 0)
        self.ended = monotonic_ns()

    def _trickle(self, text: bytes) -> None:
        # The first half of the probe over and over, never its end: a request that does not finish.
        half = text[: max(1, len(text) // 2)]
        try:
            while True:
                for i in range(len(half)):
                    self.sock.send(half[i : i + 1])
                    gevent.sleep(_TRICKLE_S)
        except OSError:
            pass


def run_slow(
    target: Target, calibration: Calibration, run: Run, settings: SlowSettings, result: Result
) -> None:
    """Each kind in turn: *count* of them beside ``cap - count`` ordinary clients.

    :raises TargetError: *cap* ordinary clients are not admitted or one more is, or a slow one
        cannot connect.
    :raises LocalError: this machine could not make the connections.
    """
    cap, count = settings.cap, settings.count
    _check_cap(target, calibration, run, cap)
    result.lines.append(("cap", f"{cap} connections, {count} of them slow"))
    for kind in KINDS:
        if not run.stopped:
            _one_kind(target, calibration, run, result, kind, cap, count, settings.duration_s)
    held = [
        f"{kind.replace('_', '-')} {result.figures[f'{kind}.slots_at_end']}"
        for kind in KINDS
        if f"{kind}.slots_at_end" in result.figures
    ]
    if held:
        result.headline = f"of {count} slow clients hold a slot to the end: {', '.join(held)}"


def _check_cap(target: Target, calibration: Calibration, run: Run, cap: int) -> None:
    """Below the real limit nobody who is slow would seem to hold a slot."""
    holders = Holders(target, calibration, run)
    try:
        holders.fill(cap)
        if not run.stopped:
            began = monotonic()
            holders.check_full()
            waited_s = monotonic() - began
            if waited_s >= calibration.patience.deadline_s:
                run.announce(
                    f"who comes at the cap is not answered within {waited_s:.0f} s: about "
                    f"{waited_s * (WAITS - 1):.0f} s longer"
                )
    finally:
        holders.close()
        run.pause(_SETTLE_S)


def _one_kind(
    target: Target,
    calibration: Calibration,
    run: Run,
    result: Result,
    kind: str,
    cap: int,
    count: int,
    duration_s: float,
) -> None:
    holders = Holders(target, calibration, run)
    clients: list[_Client] = []
    greenlets: list[gevent.Greenlet[..., None]] = []
    try:
        if cap > count:
            holders.fill(cap - count)
        for _ in range(count):
            sock = gsocket.socket(target.family, socket.SOCK_STREAM)
            client = _Client(kind, sock)
            clients.append(client)
            sock.settimeout(calibration.patience.deadline_s)
            try:
                sock.connect(target.sockaddr)
            except OSError as error:
                if error.errno and of_errno(error.errno) is Outcome.LOCAL:  # a timeout has none
                    raise LocalError(
                        f"this machine could not make a connection: {error.strerror}"
                    ) from None
                raise TargetError(
                    f"{target.text}: a {kind} client could not connect: {error}"
                ) from None
            sock.settimeout(None)
            greenlets.append(gevent.spawn(client.behave, calibration.profile))
        run.pause(_SETTLE_S)
        turned_away = _look(holders, run, calibration, cap, count)
        if run.stopped:
            return
        taken = _taken(turned_away)
        run.tell(f"{kind}: {_said(taken)} of {count} hold a slot; watching for {duration_s:g} s")
        watched_s = _watch(run, clients, kind, duration_s)
        closed = sorted(c.closed_s for c in clients if c.closed_s is not None)
        if closed:
            run.pause(_SETTLE_S)  # their slots may come back a little later than their end
        still = _look_again(holders, run, calibration, cap, count)
        if run.stopped:
            at_end = f"interrupted after {watched_s:.1f} s"
        else:
            taken_at_end = _taken(still)
            at_end = f"{_said(taken_at_end)} after {watched_s:.1f} s"
            if taken_at_end is None:
                result.warnings.append(
                    f"{kind}: who holds a slot at the end is not known: the server could not be "
                    "filled again with ordinary clients, or whether it admits them could not be "
                    "seen"
                )
            else:
                result.figures[f"{kind}.slots_at_end"] = taken_at_end
    finally:
        gevent.killall(greenlets)
        for client in clients:
            client.sock.close()
        holders.close()
        run.pause(_SETTLE_S)  # for their slots to come back before the next kind
    answered = sum(client.received > 0 for client in clients)
    when = f"after {closed[0]:.2f} to {closed[-1]:.2f} s" if closed else "none"
    others = {o.value for o in turned_away if o is not None and o is not Outcome.ADMITTED}
    result.lines.append(
        (
            kind.replace("_", "-"),
            f"{_said(taken)} of {count} hold a slot at first, {at_end}; "
            f"ended by the server: {len(closed)} of {count} ({when}); answered: {answered}"
            + (f"; ordinary clients that it ended: {len(holders.dropped)}" * bool(holders.dropped))
            + (f"; an ordinary client then sees {', '.join(sorted(others))}" if others else ""),
        )
    )
    if taken is not None:
        result.figures[f"{kind}.slots"] = taken
    result.figures |= {
        f"{kind}.closed": len(closed),
        f"{kind}.answered": answered,
    }
    if closed:
        result.figures[f"{kind}.closed_after_max"] = closed[-1]
    result.details.setdefault("slow", {})[kind] = {
        "clients": count,
        "watched_s": watched_s,
        "closed_after_s": closed,
        "turned_away": sorted(others),
        "records": _raw(clients, result.start_ns),
    }


def _raw(clients: list[_Client], origin_ns: int) -> dict[str, Any]:
    """Columns, a row a slow client: the run's other records are of the ordinary ones."""
    return {
        "unit": "ns since the start",
        "started": [client.began - origin_ns for client in clients],
        "ended": [client.ended - origin_ns if client.ended else None for client in clients],
        "ended_by": [client.ended_by for client in clients],
        "received_bytes": [client.received for client in clients],
    }


def _taken(outcomes: Sequence[Outcome | None]) -> int | None:
    """Slots that those slow hold, when so many ordinary clients as there are slow ones come to
    *outcomes* beside all the others; None: nobody can say."""
    if not outcomes or None in outcomes or Outcome.UNKNOWN in outcomes:
        return None
    return sum(outcome is not Outcome.ADMITTED for outcome in outcomes)


def _said(taken: int | None) -> str:
    return "an unknown number" if taken is None else str(taken)


def _look_again(
    holders: Holders, run: Run, calibration: Calibration, cap: int, count: int
) -> list[Outcome | None]:
    """As :func:`_look`; nothing when the server does not let in the others any more."""
    try:
        return _look(holders, run, calibration, cap, count)
    except TargetError:
        return []


def _look(
    holders: Holders, run: Run, calibration: Calibration, cap: int, count: int
) -> list[Outcome | None]:
    """What *count* ordinary clients come to beside ``cap - count`` others, who are there all the
    time: the server may have ended some of them, for being idle. Nothing when that went wrong.

    :raises TargetError: the server does not let in those others.
    """
    for _ in range(_LOOKS):
        if cap > count:
            holders.fill(cap - count)
        found = _room(holders, run, calibration, count)
        if run.stopped:
            break
        if len(holders.held) == cap - count:
            return found
    return []


def _room(holders: Holders, run: Run, calibration: Calibration, count: int) -> list[Outcome | None]:
    """What *count* ordinary clients come to now; all closed again."""
    batch = [holders.engine.start(keep=True) for _ in range(count)]
    run.until(lambda: all(a.outcome for a in batch), calibration.patience.deadline_s + 1)
    for attempt in batch:
        holders.engine.end(attempt, reset=False)
    if any(attempt.outcome is Outcome.LOCAL for attempt in batch):
        raise LocalError("this machine could not make a connection (descriptors or ports)")
    return [attempt.outcome for attempt in batch]


def _watch(run: Run, clients: list[_Client], kind: str, duration_s: float) -> float:
    """Until all are closed, at most *duration_s*; how long it was."""
    began = monotonic()
    ends = began + duration_s
    while monotonic() < ends and not run.stopped:
        open_still = sum(client.closed_s is None for client in clients)
        if not open_still:
            break
        run.tell(f"{kind}: {open_still} still open, {ends - monotonic():.0f} s left")
        run.pause(min(0.1, duration_s))
    return monotonic() - began
