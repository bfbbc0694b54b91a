"""The options of ``gserver serve`` about who gets in and how the others are turned away."""

from __future__ import annotations

import contextlib
import inspect
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from support import DEADLINE, eventually

from gserver import (
    Close,
    Keepalive,
    Limits,
    Reason,
    Refuse,
    Reply,
    Reset,
    SettingError,
    Timeouts,
)
from gserver.admission.limits import _NEEDS
from gserver.candidates import MOST_HELD
from gserver.daemon.admission_options import admission_options
from gserver.daemon.connection_options import TimeoutSettings, timeout_options
from gserver.daemon.descriptors import PER_LISTENER, SPARE, Share, ensure_descriptors, shares_of
from gserver.daemon.flags import flag
from gserver.daemon.rejection_options import Rejections, rejection_options
from gserver.net.rejection import by_reason


@click.command()
@click.option("--max-connections", type=int, default=100)
@admission_options
def command(limits: Limits) -> Limits:
    return limits


@click.command()
@rejection_options()
def rejecting(rejections: Rejections) -> Rejections:
    return rejections


@click.command()
@timeout_options
def timing(of_timeouts: TimeoutSettings) -> TimeoutSettings:
    return of_timeouts


def limits_of(*arguments: str) -> Any:
    return command.main(list(arguments), standalone_mode=False)


def rejections_of(*arguments: str) -> Any:
    return rejecting.main(list(arguments), standalone_mode=False)


# ---- who gets in ---------------------------------------------------------------------------


def test_without_options_there_is_only_the_cap() -> None:
    assert limits_of() == Limits(max_connections=100)


GIVEN: dict[str, tuple[Any, list[str]]] = {
    "max_connections": (50, ["50"]),
    "reserved": (5, ["5"]),
    "reserved_for": (("10.0.0.0/8", "::1"), ["10.0.0.0/8", "::1"]),
    "per_source": (3, ["3"]),
    "source_prefix_v4": (24, ["24"]),
    "source_prefix_v6": (56, ["56"]),
    "source_exempt": (("unix", "192.0.2.1"), ["unix", "192.0.2.1"]),
    "rate": (0.5, ["0.5"]),
    "rate_burst": (7, ["7"]),
    "source_rate": (20.0, ["20"]),
    "source_rate_burst": (8, ["8"]),
    "source_table": (1000, ["1000"]),
    "allow": (("all",), ["all"]),
    "deny": (("192.0.2.0/24",), ["192.0.2.0/24"]),
    "early_drop": ("40:30:50", ["40:30:50"]),
    "penalty": (1.5, ["1.5"]),
    "penalty_threshold": (3.0, ["3"]),
    "penalty_max": (60.0, ["60"]),
    "wait": (0.05, ["0.05"]),
    "wait_queue": (30, ["30"]),
    "wait_order": ("lifo", ["lifo"]),
    "dry_run": (("source", "rate"), ["source", "rate"]),
}


def test_every_setting_has_its_flag() -> None:
    assert set(GIVEN) == {field.name for field in fields(Limits)}
    arguments: list[str] = []
    for setting, (_, texts) in GIVEN.items():
        for text in texts:
            arguments += [f"--{setting.replace('_', '-')}", text]
    assert limits_of(*arguments) == Limits(**{name: value for name, (value, _) in GIVEN.items()})


#: By setting; each with another value than its default.
OF_TIMEOUTS: dict[str, tuple[Any, list[str]]] = {
    "first_byte": (3.0, ["--first-byte-timeout", "3"]),
    "idle": (4.5, ["--idle-timeout", "4.5"]),
    "lifetime": (60.0, ["--lifetime", "60"]),
    "keepalive": (None, ["--no-keepalive"]),
    "user_timeout": (7.0, ["--tcp-user-timeout", "7"]),
    "grace": (0.5, ["--grace", "0.5"]),
}
OF_KEEPALIVE = {"idle": 9, "interval": 8, "count": 7}
OF_REPLY = {"timeout": 5.0, "max_lingering": 10}


def test_every_timeout_has_its_flag() -> None:
    assert set(OF_TIMEOUTS) == {field.name for field in fields(Timeouts)}
    arguments = [text for _, texts in OF_TIMEOUTS.values() for text in texts]
    found = timing.main(arguments, standalone_mode=False)["timeouts"]
    assert found == Timeouts(**{name: value for name, (value, _) in OF_TIMEOUTS.items()})
    assert timing.main([], standalone_mode=False)["timeouts"] == Timeouts()


def test_every_setting_of_keepalive_has_its_flag() -> None:
    assert set(OF_KEEPALIVE) == {field.name for field in fields(Keepalive)}
    arguments = [f"--keepalive-{name}={value}" for name, value in OF_KEEPALIVE.items()]
    found = timing.main(arguments, standalone_mode=False)["timeouts"]
    assert found.keepalive == Keepalive(**OF_KEEPALIVE)


def test_every_setting_of_a_reply_has_its_flag() -> None:
    settings = inspect.signature(Reply).parameters.values()
    assert set(OF_REPLY) == {each.name for each in settings if each.kind is each.KEYWORD_ONLY}
    flags = [f"--reply-{name.replace('_', '-')}={value}" for name, value in OF_REPLY.items()]
    rejections = rejections_of(*flags, "--reject", "reply:http", "--reject-on", "source=reply:ftp")
    rejections.check_replies()
    for reply in rejections.by_reason.values():
        assert (reply._timeout, reply.max_lingering) == (5.0, 10)
    assert rejections.shares() == [Share("--reply-max-lingering", 10, 2)]
    rejections_of(*flags).or_by_default("reply:http").check_replies()
    with pytest.raises(SettingError, match=r"^--reply-timeout 5.0: needs a reply"):
        rejections_of(*flags).check_replies()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keepalive-idle", "0"], "--keepalive-idle 0: must be a whole number, 1 to 32,767"),
        (["--keepalive-count", "x"], "--keepalive-count 'x': must be a whole number"),
        (["--keepalive-count", "2", "--no-keepalive"], "--keepalive-count 2: goes without --no-"),
        (["--grace", "0", "--lifetime", "9"], "--grace '0': must be a number of seconds, above 0"),
        (["--grace", "2"], "--grace 2.0: needs --first-byte-timeout, --idle-timeout, --lifetime"),
    ],
    ids=" ".join,
)
def test_an_error_of_a_timeout_names_its_flag(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        timing.main(arguments, standalone_mode=False)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--per-source", "x"], "--per-source 'x': must be a whole number"),
        (["--per-source", "0"], "--per-source 0: must be a whole number, 1 to 10,000,000"),
        (["--rate", "often"], "--rate 'often': must be a number"),
        (["--rate", "nan"], "--rate nan: must be from"),
        (["--rate-burst", "3"], "--rate-burst 3: needs --rate"),
        (["--source-rate", "-1"], "--source-rate -1.0: must be from"),
        (
            ["--source-prefix-v4", "33"],
            "--source-prefix-v4 33: must be a whole number",
        ),
        (["--source-table", "0"], "--source-table 0: must be"),
        (["--reserved", "5"], "--reserved 5: is for nobody: name networks in --reserved-for"),
        (["--reserved-for", "::1"], "--reserved-for '::1': needs --reserved: how"),
        (
            ["--reserved", "100", "--reserved-for", "all"],
            "--reserved 100: leaves nothing of --max-connections 100",
        ),
        (["--allow", "10.0.0.1/8"], "--allow '10.0.0.1/8': has bits set beyond its prefix"),
        (["--deny", "example.org"], "--deny 'example.org': is not a network"),
        (["--allow", "::1", "--deny", "::1"], "--deny '::1': is in the allow list too"),
        (["--source-exempt", "x"], "--source-exempt 'x': is not a network"),
        (["--early-drop", "5"], "--early-drop '5': start:rate:full is accepted"),
        (["--penalty", "-1"], "--penalty -1.0: must be from"),
        (["--penalty-max", "0"], "--penalty-max 0.0: must be from 1 "),
        (
            ["--penalty-threshold", "700", "--penalty", "5"],
            "--penalty-threshold 700.0: must be at most --penalty-max, 600",
        ),
        (
            ["--penalty-max", "9", "--penalty", "5"],
            "--penalty-max 9.0: must be at least --penalty-threshold, 15",
        ),
        (["--penalty-threshold", "inf"], "--penalty-threshold inf: must be from"),
        (["--wait", "-1"], "--wait -1.0: must be from"),
        (["--wait-queue", "0"], "--wait-queue 0: must be"),
        (["--wait-order", "random"], "--wait-order 'random': 'fifo' and 'lifo' are accepted"),
        (
            ["--dry-run", "capacity"],
            "--dry-run 'capacity': is no rule to try out",
        ),
        (
            ["--penalty-max", "9", "--penalty", "20"],
            "--penalty-max 9.0: must be at least --penalty, 20",
        ),
        (["--dry-run", "source"], "--dry-run 'source': that rule is off"),
    ],
    ids=" ".join,
)
def test_an_error_names_the_flag_as_it_was_written(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        limits_of(*arguments)
    assert str(caught.value).startswith(message)
    assert caught.value.setting in arguments


@pytest.mark.parametrize(("setting", "rules"), _NEEDS.items())
def test_what_a_setting_needs_is_named_by_its_flag(setting: str, rules: tuple[str, ...]) -> None:
    with pytest.raises(SettingError) as caught:
        limits_of(flag(setting), GIVEN[setting][1][0])
    assert caught.value.setting == flag(setting)
    assert caught.value.problem == f"needs {' or '.join(map(flag, rules))}"


# ---- how the others are turned away --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [("close", Close), ("reset", Reset), ("refuse", Refuse), ("reply:http", Reply)],
)
def test_a_rejection_is_given_by_name(text: str, kind: Any) -> None:
    rejections = rejections_of("--reject", text)
    assert isinstance(rejections.by_reason["capacity"], kind)
    assert rejections.refuses == (kind is Refuse)
    lingering = [Share("--reply-max-lingering", 256, 3)]
    assert rejections.shares(listeners=3) == (lingering if kind is Reply else [])
    assert str(rejections) == text


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (r"busy\r\n", b"busy\r\n"),
        (r"a\\n\t", b"a\\n\t"),
        (r"\x00\xFF", b"\x00\xff"),
        ("voll: später", "voll: später".encode()),
        ("a:b", b"a:b"),
    ],
)
def test_a_reply_of_ones_own_has_the_escapes_of_c(text: str, payload: bytes) -> None:
    reply = rejections_of("--reject", f"reply-text:{text}").by_reason["capacity"]
    assert reply.script.payload == payload


def test_another_reason_can_have_another_rejection() -> None:
    rejections = rejections_of(
        *("--reject", "reset", "--reject-on", "denied=close", "--reject-on", "source=reply:redis")
    )
    found = rejections.by_reason
    assert isinstance(found[Reason.DENIED], Close)
    assert isinstance(found[Reason.SOURCE], Reply)
    assert isinstance(found[Reason.CAPACITY], Reset)
    assert str(rejections) == "reset, denied=close, source=reply:redis"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reject", "drop"], "--reject 'drop': accepted: close, reset, refuse, reply:NAME"),
        (["--reject", "reply"], "--reject 'reply': no such reply; one of ftp"),
        (["--reject", "reply:htp"], "--reject 'reply:htp': no such reply; one of ftp"),
        (["--reject", "reply-text:"], "--reject 'reply-text:': must be bytes, at least one"),
        (["--reject", r"reply-text:a\q"], r"--reject 'reply-text:a\\q': after a backslash"),
        (["--reject", "reply-text:a\\"], r"--reject 'reply-text:a\\': after a backslash"),
        (["--reject-on", "denied"], "--reject-on 'denied': give REASON=HOW"),
        (["--reject-on", "full=reset"], "--reject-on 'full=reset': give REASON=HOW"),
        (["--reject-on", "denied=x"], "--reject-on 'denied=x': accepted: close"),
        (["--reject-on", "rate=refuse"], "--reject-on 'rate=refuse': is for the reason capacity"),
        (
            ["--reject-on", "descriptors=reply:http"],
            "--reject-on 'descriptors=reply:http': is not for the reason descriptors",
        ),
        (["--reject-on", "capacity=reset"], "--reject-on 'capacity=reset': give --reject reset"),
        (
            ["--reject-on", "rate=reset", "--reject-on", "rate=close"],
            "--reject-on 'rate=close': there is one for rate already",
        ),
    ],
    ids=" ".join,
)
def test_what_is_no_rejection_is_told_by_its_flag(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        rejections_of(*arguments)
    assert str(caught.value).startswith(message)


def test_the_help_says_who_gets_no_reply_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    """And it is so."""
    with pytest.raises(SystemExit):
        rejecting.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    found = re.search(
        r"Any but (\w+) may have a reply.* but ([\w, ]+) have no reply: they are ", text
    )
    assert found, text
    assert "closed if --reject is close, and reset if it is anything else]" in text
    unexplained = found[2].split(", ")
    for how in ("close", "reset", "refuse", "reply:http"):
        for reason, rejection in by_reason(rejections_of("--reject", how).by_reason).items():
            if reason in unexplained:
                assert rejection.name == ("close" if how == "close" else "reset")
            else:
                assert rejection.name == how.partition(":")[0]
    for reason in set(Reason) - {Reason.CAPACITY, found[1]}:
        given = rejections_of("--reject-on", f"{reason}=reply:http")
        assert isinstance(given.by_reason[reason], Reply)


# ---- descriptors ---------------------------------------------------------------------------


def test_the_descriptor_limit_counts_those_who_wait_and_those_who_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    raised: list[int] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _which, both: raised.append(both[0]))
    shares = shares_of(Limits(max_connections=1000, wait=1.0, wait_queue=400))
    ensure_descriptors(shares, others=100)
    ours = MOST_HELD + PER_LISTENER + SPARE
    assert raised == [1500 + ours]
    with pytest.raises(SettingError, match=f"give at most {4096 - 3000 - ours}"):
        ensure_descriptors(shares[:1], others=3000)


# ---- the command ---------------------------------------------------------------------------


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """The first line of ``gserver serve echo``, and where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gserver", "serve", "echo", "--listen", "127.0.0.1:0", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], DEADLINE)[0]
        line = process.stdout.readline()
        yield line, ("127.0.0.1", int(line.split(";")[0].split(",")[0].rpartition(":")[2]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait(DEADLINE)
        process.stdout.close()


def held(address: tuple[str, int], source: str = "127.0.0.1") -> socket.socket:
    sock = socket.create_connection(address, DEADLINE, (source, 0))
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    return sock


def serves(address: tuple[str, int]) -> bool:
    with contextlib.suppress(ConnectionRefusedError), held(address):
        return True
    return False


def test_rules_and_a_reply_hold_in_the_daemon_and_the_first_line_says_how_it_rejects() -> None:
    arguments = ["--max-connections", "5", "--per-source", "1", "--deny", "127.0.0.3"]
    arguments += ["--reject", "reply:redis"]
    with serving(*arguments) as (line, address), held(address), held(address, "127.0.0.2"):
        assert line.endswith("; cap 5; the excess is turned away by reply:redis\n")
        with socket.create_connection(address, DEADLINE) as sock:
            assert sock.recv(100) == b"-ERR max number of clients reached\r\n"
        with pytest.raises(ConnectionResetError):  # by connect() already, if it comes that soon
            with socket.create_connection(address, DEADLINE, ("127.0.0.3", 0)) as sock:
                sock.recv(1)


def test_the_daemon_refuses_on_a_port_that_the_system_chose_again_and_again() -> None:
    with serving("--max-connections", "1", "--reject", "refuse") as (_, address):
        with held(address):
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, DEADLINE)
        eventually(lambda: serves(address))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reject", "refuse", "--listen", "unix:@gserver-refuse"], "needs TCP"),
        (
            ["--reject", "refuse", "--settle", "1"],
            "goes without --settle: who is refused cannot wait",
        ),
        (["--reject", "refuse", "--wait", "1"], "goes without --wait: who is refused cannot wait"),
        (["--reject", "refuse", "--evict-idle", "1"], "goes without --evict-idle"),
        (["--evict-idle", "1", "--wait", "1"], "goes without --wait"),
        (["--reject", "reply:tls-alert"], "is a TLS alert"),
        (["--settle", "1", "--wait", "1"], "goes without --wait, which"),
        (["--reply-timeout", "1"], "needs a reply"),
        (["--proxy-timeout", "-5"], "needs --proxy-protocol-from"),
        (["--proxy-timeout", "x", "--proxy-protocol-from", "all"], "must be a number"),
        (["--reply-max-lingering", "100000", "--reject", "reply:http"], "needs 100,"),
        (["--wait-queue", "5000000", "--wait", "1"], "needs 5,000,"),
        (["--tcp-user-timeout", "3000000"], "above 0 and up to 2,147,483"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_one_line_by_its_flag(
    arguments: list[str], message: str, refusal: Callable[..., str]
) -> None:
    said = refusal("serve", "--listen", "127.0.0.1:0", *arguments)
    assert said.startswith(f"gserver: {arguments[0]} ")
    assert message in said


@pytest.mark.parametrize("option", ["--first-byte-timeout", "--idle-timeout", "--evict-idle"])
def test_a_timeout_without_effect_on_any_listener_is_one_line(
    option: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    said = refusal("serve", "--listen", f"unix:{tmp_path}/s", option, "9")
    assert said.startswith(f"gserver: {option} 9.0: has no effect on unix sockets")


def test_a_timeout_without_effect_on_one_of_the_listeners_is_no_error(tmp_path: Path) -> None:
    for more in (["--listen", f"unix:{tmp_path}/s"], ["--deferred-start"]):
        with serving(*more, "--first-byte-timeout", "9") as (line, _):
            assert "listening on" in line
