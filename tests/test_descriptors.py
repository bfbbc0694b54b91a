"""The descriptor limit: raised to what the cap needs, or one line that says it cannot be."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from support import LOCAL, greet, running

from gserver import Close, Reply, SettingError, StreamServer
from gserver.candidates import MAX_CANDIDATES, MOST_HELD
from gserver.daemon.descriptors import PER_LISTENER, SPARE, Share, ensure_descriptors

OTHERS = MOST_HELD + PER_LISTENER + SPARE
UNLIMITED = resource.RLIM_INFINITY


def cap_of(number: int) -> Share:
    return Share("--max-connections", number)


class Limits:
    """setrlimit(2) without its effect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda _which: self.now)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _which: int, limits: tuple[int, int]) -> None:
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "cap", "expected"),
    [
        (1024, 4096, 100, 1024),  # enough: left alone
        (1024, 4096, 1024 - OTHERS, 1024),  # just enough
        (1024, 4096, 1025 - OTHERS, 1025),  # raised to what is needed and no further
        (1024, 4096, 4096 - OTHERS, 4096),
        (1024, UNLIMITED, 10_000, 10_000 + OTHERS),
        (UNLIMITED, UNLIMITED, 10_000, UNLIMITED),
    ],
)
def test_the_soft_limit_becomes_what_the_cap_needs(
    soft: int, hard: int, cap: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(monkeypatch, soft, hard)
    ensure_descriptors([cap_of(cap)])
    assert limits.now == (expected, hard)


def test_a_cap_above_the_hard_limit_is_told_the_highest_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(monkeypatch, 1024, 4096)
    with pytest.raises(SettingError) as caught:
        ensure_descriptors([cap_of(4000)])
    most = 4096 - OTHERS
    assert str(caught.value) == (
        f"--max-connections 4000: needs {4000 + OTHERS:,} descriptors and the hard limit is "
        f"4,096; give at most {most:,}, or raise the limit (ulimit -Hn, LimitNOFILE=)"
    )
    assert limits.now == (1024, 4096)
    ensure_descriptors([cap_of(most)])
    assert limits.now == (4096, 4096)


def test_the_setting_that_takes_most_is_named_and_told_what_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(monkeypatch, 1024, 4096)
    shares = [cap_of(100), Share("--wait-queue", 5000), Share("--other", 10, 3)]
    with pytest.raises(SettingError, match=r"^--wait-queue 5000: needs 5,") as caught:
        ensure_descriptors(shares)
    most = 4096 - OTHERS - 130
    assert f"; give at most {most:,}, or" in str(caught.value)
    shares = [cap_of(most), Share("--other", 33, 4)]
    with pytest.raises(SettingError, match=r"^--max-connections "):
        ensure_descriptors(shares)
    shares = [cap_of(100), Share("--other", 1500, 3)]
    with pytest.raises(SettingError, match=r"^--other 1500: ") as caught:
        ensure_descriptors(shares)
    most = (4096 - OTHERS - 100) // 3
    assert f"; give at most {most:,}, or" in str(caught.value)
    ensure_descriptors([cap_of(100), Share("--other", most, 3)])
    assert limits.now[0] == 100 + 3 * most + OTHERS


def test_each_further_listener_is_made_of_three_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(monkeypatch, 64, UNLIMITED)
    needed = []
    for listeners in (1, 2, 12):
        ensure_descriptors([cap_of(100)], listeners=listeners)
        needed.append(limits.now[0] - 100 - OTHERS)
    assert needed == [0, PER_LISTENER, 11 * PER_LISTENER]


def test_where_no_cap_fits_none_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    Limits(monkeypatch, 64, 64)
    with pytest.raises(SettingError, match=r"the hard limit is 64; raise the limit \("):
        ensure_descriptors([cap_of(1)])


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), ValueError("no")])
def test_a_limit_that_the_system_does_not_raise_is_the_users_to_know(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    Limits(monkeypatch, 64, UNLIMITED)

    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(SettingError, match="the limit cannot be raised to that"):
        ensure_descriptors([cap_of(10_000)])


REPLY = Reply("http", max_lingering=30)


@pytest.mark.parametrize(
    ("arguments", "besides"),
    [
        ({}, 0),
        ({"rejection": {"capacity": REPLY, "source": REPLY, "rate": Close()}}, 30),
        ({"rejection": {"capacity": REPLY, "source": Reply("http", max_lingering=5)}}, 35),
        ({"proxy_protocol_from": ["all"]}, 0),
        ({"evict_idle": 1.0}, 0),
        ({"proxy_protocol_from": ["all"], "evict_idle": 1.0}, MAX_CANDIDATES),
    ],
    ids=str,
)
def test_a_server_of_a_library_warns_of_a_limit_below_all_that_its_clients_may_take(
    arguments: Any, besides: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    most = 10 + MOST_HELD + besides
    for soft, warned in (most, 1), (most + 1, 0):
        caplog.clear()
        Limits(monkeypatch, soft, UNLIMITED)
        with running(StreamServer(LOCAL, greet, max_connections=10, **arguments)):
            pass
        assert caplog.text.count(f"it takes {most:,} descriptors") == warned
