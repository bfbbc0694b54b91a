"""An admitted client is told what the calibration's clients were: another answer is none."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing

import gevent
import pytest
from probe_attempts import run_attempts
from probe_finding import find

from gserver.probe.attempt import Patience
from gserver.probe.engine import Engine
from gserver.probe.learned import learned
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import Next, Outcome, of_data, of_deadline, of_quiet
from gserver.probe.profiles import PROFILES, Profile, profile_named
from gserver.probe.target import parse_target

HTTP, BANNER, ECHO = PROFILES["http"], PROFILES["banner"], PROFILES["echo"]


def response(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("ordinary", "text", "outcome"),
    [
        (["200 OK"], "200 OK", Outcome.ADMITTED),
        (["200 OK"], "403 Forbidden", Outcome.MESSAGE),
        (["200 OK"], "500 Internal Server Error", Outcome.MESSAGE),
        (["200 OK"], "302 Found", Outcome.MESSAGE),
        (["200 OK"], "503 Service Unavailable", Outcome.MESSAGE),
        (["404 Not Found"], "404 Not Found", Outcome.ADMITTED),
        (["404 Not Found"], "403 Forbidden", Outcome.MESSAGE),
        (["401 Unauthorized"], "401 Unauthorized", Outcome.ADMITTED),
        (["302 Found"], "302 Found", Outcome.ADMITTED),
        (["200 OK", "302 Found"], "302 Found", Outcome.ADMITTED),
        (["200 OK", "302 Found"], "301 Moved Permanently", Outcome.MESSAGE),
        ([], "404 Not Found", Outcome.ADMITTED),
    ],
)
def test_an_admitted_clients_status_is_the_calibrations(
    ordinary: list[str], text: str, outcome: Outcome
) -> None:
    profile = learned(HTTP, [response(status) for status in ordinary])
    assert of_data(profile, response(text), probed=True) is outcome


@pytest.mark.parametrize("length", range(len("HTTP/1.1 200")))
def test_half_a_status_is_none(length: int) -> None:
    for profile in (HTTP, learned(HTTP, [response("200 OK")])):
        assert of_data(profile, response("200 OK")[:length], probed=True) is None
        assert of_data(profile, response("403 Forbidden")[:length], probed=True) is None


def test_the_users_pattern_is_the_users() -> None:
    """It may be about what comes after the status."""
    profile = learned(profile_named("http", expect="hello"), [response("200 OK") + b"hello"])
    assert of_data(profile, response("200 OK"), probed=True) is None
    assert of_data(profile, response("404 Not Found") + b"hello", probed=True) is Outcome.ADMITTED


@pytest.mark.parametrize(
    ("greetings", "later"),
    [
        ([b"HELLO server\r\n"] * 3, b"HELLO server\r\n"),
        ([b"\r\nhello\r\n"] * 3, b"\r\nhello\r\n"),
        ([b"login: "] * 3, b"login: "),
        ([b"client %d\r\n" % n for n in (1, 2, 3)], b"client 10\r\n"),
        ([b"%d of all\r\n" % n for n in (101, 102, 103)], b"104 of all\r\n"),
        ([b"[%4d] client\r\n" % n for n in (1, 2, 3)], b"[1000] client\r\n"),
        ([b"Tue Dec  1 05:59:59 2026\r\n"] * 3, b"Tue Dec 10 06:00:07 2026\r\n"),
        ([b"2026-12-01T05:59:59Z\r\n"] * 3, b"2026-12-01T06:00:01Z\r\n"),
        ([b"+OK <7.%d@mx>\r\n" % n for n in (97, 98, 101)], b"+OK <1234.5678@mx>\r\n"),
        ([b"host-%s ready\r\n" % n for n in (b"a", b"b", b"c")], b"host-d ready\r\n"),
        ([b"challenge a8==\r\n", b"challenge xyz+\r\n"], b"challenge +/00\r\n"),
        ([b"8.0\x00%s" % n for n in (b"a", b"b", b"c")], b"9\x00d"),
        ([n.to_bytes(4) for n in (3_990_000_000, 3_990_000_000)], (3_990_000_999).to_bytes(4)),
        ([b"one", b"two"], b"three\r\n"),
        ([b""], b"anything\r\n"),
        ([], b"anything\r\n"),
    ],
)
def test_an_admitted_clients_greeting_fits_the_calibrations(
    greetings: list[bytes], later: bytes
) -> None:
    """Whatever number, time or secret is in it."""
    profile = learned(BANNER, greetings)
    assert of_data(profile, later, probed=False) is None
    assert of_quiet(profile, later, probed=False, accepted=True) is Outcome.ADMITTED


@pytest.mark.parametrize(
    ("greetings", "told"),
    [
        ([b"HELLO server\r\n"] * 3, b"BUSY\r\n"),
        ([b"HELLO server\r\n"] * 3, b"HELLO, no\r\n"),
        ([b"HELLO %d\r\n" % n for n in (1, 2, 3)], b"busy: 4\r\n"),
        ([b"Tue Dec  1 05:59:59 2026\r\n"] * 3, b"full up\r\n"),
        ([b"login: "] * 3, b"too many users\r\n"),
        ([b"200 news\r\n"] * 3, b"400 news\r\n"),
        ([b"host-%s ready\r\n" % n for n in (b"a", b"b", b"c")], b"\r\nno room\r\n"),
    ],
)
def test_another_greeting_is_no_admission(greetings: list[bytes], told: bytes) -> None:
    profile = learned(BANNER, greetings)
    assert of_data(profile, told, probed=False) is Outcome.MESSAGE
    part = told.rstrip()  # more of it may come
    assert of_data(profile, part, probed=False) is None
    assert of_quiet(profile, part, probed=False, accepted=True) is Next.WAIT


def test_a_greeting_that_fits_must_stand_all_the_same() -> None:
    """It may be the same for those who are turned away at once."""
    profile = learned(BANNER, [b"HELLO server\r\n"] * 3)
    assert profile.judges_by_silence
    assert of_data(profile, b"HELLO server\r\n", probed=False) is None


@pytest.mark.parametrize(
    ("answers", "received", "outcome"),
    [
        ([b"220 mx\r\nPING\r\n"] * 3, b"220 mx\r\n", Outcome.HANG),
        ([b"220 mx\r\nPING\r\n"] * 3, b"", Outcome.HANG),
        ([b"220 mx\r\nPING\r\n"] * 3, b"421 mx\r\n", Outcome.MESSAGE),
        ([b"220 mx\r\nPING\r\n"] * 3, b"220 mx\r\nbusy\r\n", Outcome.MESSAGE),
        ([b"PING\r\n"] * 3, b"220 mx\r\n", Outcome.MESSAGE),
    ],
)
def test_who_is_greeted_and_then_not_served_hangs(
    answers: list[bytes], received: bytes, outcome: Outcome
) -> None:
    profile = learned(ECHO, answers)
    assert of_deadline(profile, received, connected=True, accepted=True) is outcome


@pytest.mark.long
@pytest.mark.parametrize(
    ("admitted", "others"),
    [
        (r"HELLO server\r\n", r"BUSY\r\n"),
        (r"HELLO number {n}\r\n", r"BUSY, number {n}\r\n"),
        (r"{n} ready\r\n", r"no room\r\n"),
    ],
)
def test_another_greeting_on_an_open_connection_is_no_admission(
    start_server: Callable[..., int], admitted: str, others: str
) -> None:
    finding = find(start_server("worded_server", 12, "greets", admitted, others), maximum=60)
    assert (finding.limit, finding.peak, finding.over_admissions) == (12, 12, 0)
    assert (finding.policy, finding.fits_after_close) == (Outcome.MESSAGE, 1)
    assert finding.dropped_while_held == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "profile"),
    [
        ("greets", profile_named("banner", expect="^HELLO")),
        ("answers", None),
        ("answers", profile_named("echo", expect="^HELLO")),
    ],
    ids=["greets", "answers, found out", "answers"],
)
def test_who_is_told_something_else_and_left_open_is_not_in_line(
    start_server: Callable[..., int], how: str, profile: Profile | None
) -> None:
    port = start_server("worded_server", 7, how, r"HELLO\r\n", r"BUSY\r\n")
    finding = find(port, profile, maximum=40)
    assert (finding.limit, finding.peak, finding.over_admissions) == (7, 7, 0)
    assert (finding.fits_after_close, finding.listen_queue) == (1, None)
    assert set(finding.turned_away) == {Outcome.MESSAGE}
    assert finding.message == b"BUSY\r\n"


@pytest.mark.long
def test_a_silent_servers_message_on_an_open_connection_is_no_silence(
    start_server: Callable[..., int],
) -> None:
    port = start_server("worded_server", 7, "silent", "", r"full\r\n")
    patience = Patience(quiet_s=0.15, deadline_s=1.0)
    finding = find(port, PROFILES["silent"], maximum=40, patience=patience)
    assert (finding.limit, finding.peak, finding.fits_after_close) == (7, 7, 1)
    assert set(finding.turned_away) == {Outcome.MESSAGE}


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "admitted", "others", "told_s", "outcome", "message"),
    [
        ("silent", "", "server full", 0.1, Outcome.MESSAGE, b"server full"),
        ("greets", r"\x01HELLO", r"\x01BUSY", 0.0, Outcome.MESSAGE, b"\x01BUSY"),
        ("greets", r"HI\r\n", r"HI\r\nno room\r\n", 0.0, Outcome.MESSAGE, b"HI\r\nno room\r\n"),
        ("greets", r"HELLO\r\n", r"HELLO\r\n", 0.0, Outcome.FIN, b""),
    ],
)  # fmt: skip
def test_what_is_said_to_those_whom_silence_admits_is_not_lost(
    start_server: Callable[..., int],
    how: str,
    admitted: str,
    others: str,
    told_s: float,
    outcome: Outcome,
    message: bytes,
) -> None:
    """Ended 100 ms later, they were never admitted: how were they turned away?"""
    port = start_server("worded_server", 7, how, admitted, others, told_s, 0.1)
    patience = Patience(quiet_s=0.01, deadline_s=1.5)
    profile = PROFILES["silent" if how == "silent" else "banner"]
    finding = find(port, profile, maximum=40, patience=patience, expected=7)
    assert (finding.limit, finding.peak, finding.over_admissions) == (7, 7, 0)
    assert set(finding.turned_away) == {outcome}
    assert finding.message == message
    assert finding.late_s > 0


def test_what_is_kept_of_what_comes_after_silence_is_bounded(zoo: Callable[..., int]) -> None:
    """It may come for as long as the connection is held."""
    target, seen = parse_target(f"127.0.0.1:{zoo('echo')}"), []
    with closing(Oracle()) as oracle:
        engine = Engine(
            target, PROFILES["silent"], Patience(), oracle=oracle, on_outcome=seen.append
        )
        with closing(engine), gevent.Timeout(20):
            attempt = engine.start(keep=True)
            while not seen:
                gevent.sleep(0.005)
            assert attempt.is_held
            attempt.sock.send(b"x" * 5000)
            while len(attempt.received) < 1024:
                gevent.sleep(0.005)
            attempt.sock.shutdown(socket.SHUT_WR)
            while not attempt.ended:
                gevent.sleep(0.005)
        assert engine.failure is None
    assert attempt.received == b"x" * 1024
    assert attempt.ended_by is Outcome.MESSAGE


def test_a_message_has_come_when_its_text_did(start_server: Callable[..., int]) -> None:
    """Not at the deadline, until which more might have followed."""
    patience = Patience(quiet_s=0.05, deadline_s=1.0)
    port = start_server("worded_server", 0, "greets", "", r"BUSY\r\n")
    attempts = run_attempts(port, profile_named("banner", expect="^HELLO"), 20, patience)
    assert {a.outcome for a in attempts} == {Outcome.MESSAGE}
    assert all(a.started < a.heard == a.finished for a in attempts)


@pytest.mark.long
@pytest.mark.parametrize("ended_s", ["0", "inf"])
@pytest.mark.parametrize(
    ("ordinary", "others"),
    [
        ("200 OK", "403 Forbidden"),
        ("200 OK", "500 Internal Server Error"),
        ("404 Not Found", "403 Forbidden"),
        ("302 Found", "503 Service Unavailable"),
    ],
)
def test_an_answer_of_another_status_is_no_admission(
    start_server: Callable[..., int], ordinary: str, others: str, ended_s: str
) -> None:
    texts = [
        f"HTTP/1.1 {status}\\r\\nContent-Length: 0\\r\\n\\r\\n" for status in (ordinary, others)
    ]
    finding = find(start_server("worded_server", 7, "answers", *texts, 0, ended_s), maximum=40)
    assert (finding.limit, finding.peak, finding.over_admissions) == (7, 7, 0)
    assert (finding.policy, finding.fits_after_close) == (Outcome.MESSAGE, 1)
    assert finding.message.startswith(b"HTTP/1.1 " + others.encode())
