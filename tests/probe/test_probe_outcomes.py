"""The pure rules: who was admitted, and what the rest saw."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver.errors import SettingError
from gserver.probe.attempt import Patience
from gserver.probe.calibrate import Calibration
from gserver.probe.finding import CapFinding
from gserver.probe.outcomes import (
    Next,
    Outcome,
    of_close,
    of_data,
    of_deadline,
    of_errno,
    of_quiet,
)
from gserver.probe.pacing import ConstantRate
from gserver.probe.profiles import PROFILES, Speaks, profile_named
from gserver.probe.target import parse_target, source_addresses

profiles = st.sampled_from(list(PROFILES.values()))


@given(profiles, st.binary(max_size=20), st.sampled_from([0, errno.ECONNRESET, errno.EPIPE]))
def test_a_close_before_evidence_is_never_admitted(
    profile: object, received: bytes, number: int
) -> None:
    outcome = of_close(received, number)
    assert outcome in (Outcome.FIN, Outcome.RST, Outcome.MESSAGE)
    assert (outcome is Outcome.MESSAGE) == bool(received)


@given(profiles, st.binary(max_size=20), st.booleans())
def test_silence_without_an_oracle_is_never_admitted(
    profile, received: bytes, connected: bool
) -> None:
    assert (
        of_deadline(profile, received, connected=connected, accepted=None) is not Outcome.ADMITTED
    )
    assert of_quiet(profile, b"", probed=True, accepted=None) is Next.WAIT


@given(profiles, st.binary(max_size=20), st.sampled_from([None, False]))
def test_who_is_not_known_to_be_accepted_does_not_hang(
    profile, received: bytes, accepted: bool | None
) -> None:
    found = of_deadline(profile, received, connected=True, accepted=accepted)
    quiet = Outcome.MESSAGE if received else Outcome.UNKNOWN
    assert found is (quiet if accepted is None else Outcome.QUEUED)


@given(profiles, st.binary(min_size=1, max_size=20), st.sampled_from([None, True]))
def test_who_is_told_something_is_not_in_line(
    profile, received: bytes, accepted: bool | None
) -> None:
    """By the deadline nothing in it was an admission, and silence it was not."""
    found = of_deadline(profile, received, connected=True, accepted=accepted)
    assert found is Outcome.MESSAGE
    if profile.speaks is Speaks.NOBODY:
        assert of_quiet(profile, received, probed=False, accepted=accepted) is Next.WAIT


@given(profiles, st.binary(max_size=20))
def test_what_is_not_accepted_is_never_admitted(profile, received: bytes) -> None:
    assert of_deadline(profile, received, connected=True, accepted=False) is Outcome.QUEUED


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [
        ("redis", b"+PONG\r\n", Outcome.ADMITTED),
        ("redis", b"-NOAUTH Authentication required.\r\n", Outcome.ADMITTED),
        ("redis", b"-ERR max number of clients reached\r\n", Outcome.MESSAGE),
        ("redis", b"-LOADING\r\n", None),
        ("postgres", b"R\0\0\0\x08\0\0\0\x03", Outcome.ADMITTED),
        ("postgres", b"E\0\0\0\x20SFATAL\0VFATAL\0C53300\0Msorry\0\0", Outcome.MESSAGE),
        ("mysql", b"\x4a\0\0\0\x0a8.0.36\0", Outcome.ADMITTED),
        ("mysql", b"\x17\0\0\0\xff\x10\x04Too many connections", Outcome.MESSAGE),
        ("http", b"HTTP/1.1 200 OK\r\n", Outcome.ADMITTED),
        ("http", b"HTTP/1.1 404 Not Found\r\n", Outcome.ADMITTED),
        ("http", b"HTTP/1.1 503 Service Unavailable\r\n", Outcome.MESSAGE),
        ("http", b"HTTP/1.1 429 Too Many Requests\r\n", Outcome.MESSAGE),
        ("smtp", b"220 mx ESMTP\r\n", Outcome.ADMITTED),
        ("smtp", b"421 too busy\r\n", Outcome.MESSAGE),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", Outcome.ADMITTED),
        ("ssh", b"Exceeded MaxStartups\r\n", Outcome.MESSAGE),
        ("echo", b"PING\r\n", Outcome.ADMITTED),
        ("echo", b"busy\r\n", None),
    ],
)
def test_profiles_read_their_protocol(name: str, text: bytes, outcome: Outcome | None) -> None:
    assert of_data(PROFILES[name], text, probed=True) is outcome


def test_a_text_that_comes_before_our_probe_is_not_its_reply() -> None:
    assert of_data(PROFILES["echo"], b"PING\r\n", probed=False) is None


def test_unknown_error_numbers_are_our_own_fault() -> None:
    assert of_errno(errno.EMFILE) is Outcome.LOCAL
    assert of_errno(errno.EADDRNOTAVAIL) is Outcome.LOCAL
    assert of_errno(errno.ECONNREFUSED) is Outcome.REFUSED


@given(
    st.floats(0.5, 100_000),
    st.floats(0.01, 5),
    st.floats(0, 0.99),
    st.integers(0, 5_000_000_000),
)
def test_an_arrival_is_due_exactly_from_its_time_on(
    rate: float, duration: float, phase: float, elapsed: int
) -> None:
    pace = ConstantRate(rate, duration, phase)
    due = pace.due(elapsed)
    assert 0 <= due <= pace.planned
    if due:
        assert pace.at(due - 1) <= elapsed + 1
    if due < pace.planned:
        assert pace.at(due) >= elapsed - 1


def test_a_rate_for_a_time_is_that_many_arrivals() -> None:
    assert ConstantRate(1000, 2.0).planned == 2000
    assert [ConstantRate(4, 1.0).at(k) for k in range(4)] == [0, 250e6, 500e6, 750e6]


def test_name_of_several_addresses_says_which_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """localhost may be ::1 first, where nobody listens."""
    rows = [
        (family, socket.SOCK_STREAM, 6, "", (host, 80))
        for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: rows)
    target = parse_target("localhost:80")
    assert (target.family, target.address) == (socket.AF_INET6, ("::1", 80))
    assert target.tried == "localhost:80 (::1; the name is 127.0.0.1, too)"


@pytest.mark.parametrize(
    "text", ["", "6379", "host:", "h:0", "h:65536", "h:x", "a b:80", "unix:/x"]
)
def test_a_bad_target_is_one_line(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)


def test_targets() -> None:
    assert parse_target(":80").address == ("127.0.0.1", 80)
    assert parse_target("[::1]:80").address == ("::1", 80)
    assert parse_target("[::1]:80").sockaddr == ("::1", 80)
    scoped = parse_target("[fe80::1%lo]:80")
    assert scoped.sockaddr == ("fe80::1", 80, 0, socket.if_nametoindex("lo"))
    for target in (scoped, parse_target("[::1]:80"), parse_target(":80")):  # as a flood is told
        assert parse_target(target.numeric).sockaddr == target.sockaddr
    assert source_addresses(parse_target(":80"), 3) == ["127.1.0.1", "127.1.0.2", "127.1.0.3"]
    with pytest.raises(SettingError):
        source_addresses(parse_target("[::1]:80"), 3)


def test_bad_patterns_and_escapes_are_the_users_fault() -> None:
    for more in ({"expect": "("}, {"reject": "("}, {"send": "\\x"}):
        with pytest.raises(SettingError):
            profile_named("echo", **more)
    with pytest.raises(SettingError):
        profile_named("nonsense")
    assert profile_named("echo", send="hi\\r\\n").send == b"hi\r\n"


@pytest.mark.parametrize("name", ["tls", "postgres", "mysql", "ssh"])
def test_who_is_held_in_the_middle_of_a_handshake_is_said_to_be(name: str) -> None:
    (said,) = Calibration(PROFILES[name], Patience(), 0.01, None, None).caveats(0.02)
    assert f"profile {name} leaves those it holds in the middle of the handshake" in said


@pytest.mark.parametrize("name", ["echo", "redis", "http"])
def test_who_has_been_answered_needs_no_caveat(name: str) -> None:
    assert Calibration(PROFILES[name], Patience(), 0.01, None, None).caveats(0.02) == []


@pytest.mark.parametrize(
    ("drops", "after_s"),
    [
        ([], None),
        ([(3.0, 2.0), (4.0, 2.0)], None),  # two may be chance
        ([(3.0, 2.00), (3.4, 2.05), (4.0, 2.01)], 2.01),
        ([(5.0, 2.0), (5.0, 2.2), (5.01, 2.1)], None),  # all at once: the server's own end
        ([(3.0, 2.0), (4.0, 1.0), (5.0, 2.1)], None),
    ],
)
def test_a_time_limit_is_shown_by_equal_ages_at_different_moments(
    drops: list[tuple[float, float]], after_s: float | None
) -> None:
    finding = CapFinding(drops=drops)
    assert finding.ends_after_s == after_s
    assert finding.dropped_while_held == len(drops)
