"""``probe slow``: who holds a slot to the end, and whose fault it is when nobody can say."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable

import gevent
import pytest

from gserver.probe import slow
from gserver.probe.attempt import Patience
from gserver.probe.calibrate import calibrate
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import PROFILES
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.slow import SlowSettings, run_slow
from gserver.probe.target import parse_target

pytestmark = pytest.mark.long

#: The command, on a machine where no slow client's connect succeeds.
COMMAND = """
import os, sys
from gevent import socket
from gserver.probe.cli import probe

class Failing(socket.socket):
    def connect(self, address):
        number = int(sys.argv.pop())
        raise OSError(number, os.strerror(number))

socket.socket = Failing
probe(sys.argv[1:-1])
"""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (
            errno.EADDRNOTAVAIL,
            3,
            "INVALID: this machine could not make a connection: Cannot assign",
        ),
        (errno.ECONNREFUSED, 1, "a silent client could not connect: "),
    ],
)
def test_connect_that_fails_here_is_not_the_targets_fault(
    start_server: Callable[..., int], number: int, status: int, said: str
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"
    words = ["slow", target, "--cap", "3", "--duration", "1s", "--profile", "echo"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, str(number)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def measure(port: int, settings: SlowSettings, run: Run, deadline_s: float = 2.0) -> Result:
    target, result = parse_target(f"127.0.0.1:{port}"), Result("slow", "t")
    calibration = calibrate(target, PROFILES["echo"], Patience(deadline_s=deadline_s), run)
    try:
        run_slow(target, calibration, run, settings, result)
    finally:
        calibration.close()
    return result


@pytest.mark.parametrize("policy", ["brief", "brief_slow"])
def test_slots_that_ordinary_clients_lost_are_not_taken_for_those_of_slow_ones(
    start_server: Callable[..., int], policy: str
) -> None:
    """Who is idle for a second is ended, the ordinary ones with the silent: who trickles stays."""
    port = start_server("limited_server", 5, policy, 1.0)
    with Run(60, stream=None) as run:
        figures = measure(port, SlowSettings(cap=5, count=2, duration_s=2.0), run).figures
    assert figures["silent.slots"] == figures["trickle.slots"] == 2
    assert (figures["silent.closed"], figures["trickle.closed"]) == (2, 0)
    assert (figures["silent.slots_at_end"], figures["trickle.slots_at_end"]) == (0, 2)


def test_where_the_server_cannot_be_filled_again_nobody_says_who_holds_a_slot(
    start_server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends an ordinary client, and its slot is lost."""
    watch = slow._watch

    def losing(run: Run, clients: list[slow._Client], kind: str, duration_s: float) -> float:
        for holder in list(filled[-1].held):
            filled[-1].release(holder)
        return watch(run, clients, kind, duration_s)

    class Noted(slow.Holders):
        def fill(self, count: int) -> None:
            filled.append(self)
            super().fill(count)

    filled: list[slow.Holders] = []
    monkeypatch.setattr(slow, "_watch", losing)
    monkeypatch.setattr(slow, "Holders", Noted)
    monkeypatch.setattr(slow, "_check_cap", lambda *args: None)
    monkeypatch.setattr(slow, "KINDS", ("silent",))
    port = start_server("limited_server", 6, "leaky")
    with Run(60, stream=None) as run:
        result = measure(port, SlowSettings(cap=2, count=1, duration_s=0.3), run)
    assert "silent.slots_at_end" not in result.figures
    assert [text for text in result.warnings if text.startswith("silent: ")]
    assert "silent" not in result.headline


def test_stopped_in_the_last_look_nobody_is_said_to_hold_a_slot(
    start_server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that queues: a look lasts as long as the deadline."""
    room = slow._room
    looks: list[None] = []

    def stopped_in_the_second(*args: object) -> list[Outcome | None]:
        looks.append(None)
        if len(looks) == 2:
            gevent.spawn_later(0.2, run.stop, "enough")
        return room(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(slow, "_room", stopped_in_the_second)
    port = start_server("limited_server", 2, "queue")
    with Run(60, stream=None) as run:
        result = measure(port, SlowSettings(cap=2, count=1, duration_s=0.3), run, 1.0)
    assert result.figures["silent.slots"] == 1
    assert "silent.slots_at_end" not in result.figures
    assert "interrupted" in dict(result.lines)["silent"]
    assert not result.headline


@pytest.mark.parametrize(
    ("outcomes", "taken"),
    [
        ([Outcome.ADMITTED, Outcome.ADMITTED], 0),
        ([Outcome.FIN, Outcome.ADMITTED], 1),
        ([Outcome.QUEUED, Outcome.SYN_PENDING, Outcome.HANG], 3),
        ([Outcome.UNKNOWN, Outcome.FIN], None),
        ([None, Outcome.FIN], None),
    ],
)
def test_only_who_was_surely_kept_out_stands_for_a_slot_that_is_taken(
    outcomes: list[Outcome | None], taken: int | None
) -> None:
    assert slow._taken(outcomes) == taken
