"""An admitted client is told what the calibration's clients were: another answer is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from probe_finding import find

from gserver.probe.learned import learned
from gserver.probe.outcomes import Outcome, of_data
from gserver.probe.profiles import PROFILES, profile_named

HTTP = PROFILES["http"]


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
