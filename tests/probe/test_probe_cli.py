"""The commands as a user runs them: exit statuses, reports, Ctrl-C."""

from __future__ import annotations

import csv
import itertools
import json
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import gevent
import pytest

from gserver.probe.figures import FIGURES
from gserver.probe.oracle import Oracle
from gserver.probe.version import version

pytestmark = pytest.mark.long

ENTRY = "from gserver.probe.cli import probe; probe()"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", ENTRY, *map(str, arguments)]


def probe(*arguments: object, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout)


def read(report: Path) -> dict[str, Any]:
    """The JSON report; every figure in it is one that a threshold may name, and all are numbers."""
    found: dict[str, Any] = json.loads(report.read_text())
    known = FIGURES[found["command"]]
    assert [name for name in found["figures"] if name not in known] == []
    assert all(isinstance(value, int | float) for value in found["figures"].values())
    return found


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["cap", "nonsense"], "TARGET"),
        (["cap", "127.0.0.1:1", "--profile", "nonsense"], "--profile"),
        (["cap", "127.0.0.1:1", "--threshold", "p99 is low"], "--threshold"),
        (["cap", "127.0.0.1:1", "--threshold", "no_such.figure<1"], "limit, peak"),
        (["cap", "127.0.0.1:1", "--threshold", "reject.p99<2ms"], "limit, peak"),
        (["storm", "127.0.0.1:1", "--threshold", "reject.p98<2ms"], "p99|p999|max|count of reject"),
        (["churn", "127.0.0.1:1", "--threshold", "reject.p99<2ms"], "reconnect.rejected"),
        (["slow", "127.0.0.1:1", "--threshold", "closed==0"], "silent.closed"),
        (["isolation", "127.0.0.1:1", "--threshold", "goodput>1"], "isolation.goodput"),
        (["selftest", "--threshold", "rate>1"], "ceiling"),
        (["cap", "127.0.0.1:1", "--json", "/nowhere/x.json"], "--json"),
        (["cap", "127.0.0.1:1", "--quiet-time", "3s"], "--quiet-time"),
        (["cap", "127.0.0.1:1", "--cap", "50", "--max", "50"], "--max"),
        (["storm", "127.0.0.1:1", "--rate", "0"], "--rate"),
        (["storm", "127.0.0.1:1", "--rate", "1000000", "--duration", "60m"], "--duration 3600.0"),
        (["isolation", "127.0.0.1:1", "--victim-rate", "1e6", "--duration", "9m"], "--victim-rate"),
        (["storm", "127.0.0.1:1", "--cap", "0"], "--cap"),
        (["storm", "127.0.0.1:1", "--pid", "99999999"], "--pid"),
        (["storm", "127.0.0.1:1", "--sources", "60001"], "--sources"),
        (["storm", "[::1]:1", "--sources", "2"], "--sources"),
        (["cap", "127.0.0.1:1", "--send", "x", "--profile", "redis", "--expect", "("], "--expect"),
        (["cap", "127.0.0.1:1", "--send", r"\x"], "--send"),
    ],
)
def test_usage_is_status_2_and_names_the_setting(arguments: list[str], word: str) -> None:
    done = probe(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "--threshold" not in arguments or len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_nobody_there_is_status_1_in_one_line(zoo: Callable[..., int]) -> None:
    done = probe("cap", f"127.0.0.1:{zoo('refuse')}")
    assert done.returncode == 1
    assert "refused" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_cap_reports_limit_policy_and_thresholds(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 5, 'fin')}"
    report = tmp_path / "cap.json"
    words = ["cap", target, "--json", report, "--threshold", "limit==5", "--seed", 7]
    done = probe(*words)
    assert done.returncode == 0, done.stderr
    assert "5 connections served at once" in done.stdout
    assert "FIN" in done.stdout
    found = read(report)
    assert found["figures"]["limit"] == 5
    assert found["details"]["cap"]["policy"] == "fin"
    assert found["version"] == version()
    where = found["environment"]
    assert where["command_line"][1:] == [str(word) for word in words]
    assert where["seed"] == 7
    assert (where["kernel"], where["python"]) == (platform.release(), platform.python_version())
    assert where["gevent"] == gevent.__version__
    assert where["cpu"]
    assert where["cpus"] >= 1
    assert where["sysctls"]["net.core.somaxconn"].isdecimal()
    assert re.fullmatch(r"\d+ \d+", where["sysctls"]["net.ipv4.ip_local_port_range"])
    assert probe("cap", target, "--threshold", "limit>5").returncode == 99


def test_an_asserted_cap_must_be_the_limit_found(
    start_server: Callable[..., int], zoo: Callable[..., int]
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 10, 'fin')}"
    assert probe("cap", target, "--cap", 10).returncode == 0
    for other in (9, 11):
        done = probe("cap", target, "--cap", other)
        assert done.returncode == 99, done.stdout
        assert f"threshold limit=={other} (--cap): NOT MET" in done.stdout
    unlimited = probe("cap", f"127.0.0.1:{zoo('echo')}", "--cap", 10, "--max", 50)
    assert unlimited.returncode == 99, unlimited.stdout
    assert "none found" in unlimited.stdout
    target = f"127.0.0.1:{zoo('echo')}"
    unlimited = probe("cap", target, "--max", 50, "--threshold", "limit==10")
    assert unlimited.returncode == 99, unlimited.stdout  # it has no limit of 10: that is certain


def test_a_server_that_ends_connections_by_itself_is_said_with_its_time(
    zoo: Callable[..., int], start_server: Callable[..., int]
) -> None:
    said = "the server ends connections by itself after 0."
    ends = probe("cap", f"127.0.0.1:{zoo('closes_by_itself', 0.3)}", "--max", 20)
    assert said in ends.stdout, ends.stdout + ends.stderr
    target = f"127.0.0.1:{start_server('limited_server', 3, 'brief', 0.3)}"
    storm = probe(
        "storm", target, "--cap", 3, "--rate", 100, "--duration", "1s", "--profile", "echo"
    )
    assert said in storm.stdout, storm.stdout + storm.stderr
    assert "INVALID: the cap was not held: the server ended" in storm.stdout
    assert storm.returncode == 3, storm.stdout  # places that are free reject nobody
    target = f"127.0.0.1:{start_server('limited_server', 12, 'brief', 1.5)}"
    isolation = probe(
        "isolation", target, "--cap", 12, "--rate", 100, "--duration", "1s", "--profile", "echo"
    )
    assert "INVALID: the cap was not held: the server ended" in isolation.stdout
    assert isolation.returncode == 3, isolation.stdout
    stays = probe("cap", f"127.0.0.1:{start_server('limited_server', 3, 'fin')}")
    assert "by itself" not in stays.stdout


def test_cap_gives_up_where_clients_are_ended_faster_than_they_can_be_counted(
    start_server: Callable[..., int],
) -> None:
    """Not "no limit", and not only once its time is over: it would never fill up one by one."""
    target = f"127.0.0.1:{start_server('limited_server', 40, 'brief', 0.2)}"
    done = probe("cap", target, "--profile", "echo", "--cap", 40)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "PARTIAL" not in done.stdout
    assert "threshold" not in done.stdout
    assert "the limit was not found: the server ends clients faster" in done.stdout


def test_cap_says_after_what_time_the_server_ends_silent_clients(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    """Too late for the calibration to see; those who are held show it."""
    target = f"127.0.0.1:{start_server('limited_server', 30, 'brief', 0.7)}"
    report = tmp_path / "cap.json"
    done = probe(
        "cap", target, "--profile", "echo", "--quiet-time", "50ms", "--duration", "4s",
        "--json", report,
    )  # fmt: skip
    assert "warning: the server ends silent clients after about 0." in done.stdout, done.stdout
    assert re.search(r"dropped while held +\d+ by the server, 0\.\d+ to 0\.\d+ s", done.stdout)
    found = read(report)["details"]["cap"]
    assert found["ends_silent_clients_after_s"] == pytest.approx(0.7, abs=0.15)


def test_storm_reports_by_outcome(start_server: Callable[..., int], tmp_path: Path) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 5, 'message')}"
    report, rows = tmp_path / "storm.json", tmp_path / "storm.csv"
    done = probe(
        "storm", target, "--rate", 200, "--duration", "2s", "--json", report, "--csv", rows,
        "--quiet-time", "100ms",  # spoken to, a busy machine's server would reset
        "--threshold", "hangs==0", "--threshold", "over_admissions==0",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(report)
    figures = found["figures"]
    assert figures["message.count"] == figures["rejected"] == 360  # a tenth is warm-up
    assert 0.9 <= figures["time_wait_per_rejection"] <= 1  # the server closes first
    assert figures["cpu_per_rejection"] > 1e-6  # the listening process was found
    assert figures["message.p90"] <= figures["message.response.p90"]
    assert "message.p99" not in figures  # three samples beyond it
    assert len(found["records"]["outcome"]) == 400
    assert found["exit_status"] == 0
    assert found["thresholds"] == [
        {"text": "hangs==0", "met": True},
        {"text": "over_admissions==0", "met": True},
    ]
    with rows.open() as stream:
        assert len(list(csv.DictReader(stream))) == 400


def test_storm_counts_all_who_are_served_at_once_beyond_the_cap(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "storm.json"
    target = f"127.0.0.1:{start_server('limited_server', 6, 'sloppy')}"
    done = probe(
        "storm", target, "--cap", 6, "--rate", 2000, "--duration", "1s", "--json", report,
        "--threshold", "over_admissions>0",
    )  # fmt: skip
    figures = read(report)["figures"]
    assert figures["over_admissions"] == 0 or done.returncode == 0, done.stdout


def test_storm_at_a_silent_server_waits_for_its_late_rejections(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "storm.json"
    target = f"127.0.0.1:{start_server('limited_server', 4, 'late', 0.4)}"
    done = probe(
        "storm", target, "--cap", 4, "--rate", 50, "--duration", "1s", "--profile", "silent",
        "--deadline", "1s", "--json", report, "--threshold", "over_admissions==0",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(report)
    assert found["figures"]["fin.count"] == found["figures"]["rejected"] == 45
    assert any("silence is the only evidence" in text for text in found["warnings"])


def test_probe_and_answer_of_ones_own_tell_the_admitted(
    start_server: Callable[..., int], zoo: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "cap.json"
    target = f"127.0.0.1:{start_server('limited_server', 4, 'message')}"
    own = ["--send", r"HELLO\x20you\r\n", "--expect", "^HELLO you\r\n$"]
    done = probe("cap", target, *own, "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(report)["details"]["cap"]
    assert (found["limit"], found["policy"], found["over_admissions"]) == (4, "message", 0)
    # Nobody answers so: who is not told what was expected is not admitted.
    none = probe("cap", target, "--send", "HELLO", "--expect", "^WELCOME", "--deadline", "500ms")
    assert none.returncode == 1, none.stdout
    assert "--expect" in none.stderr.splitlines()[-1]
    greets = probe("cap", f"127.0.0.1:{zoo('banner_late')}", "--expect", "^220", "--max", 5)
    assert greets.returncode == 0, greets.stdout + greets.stderr
    assert "none found: 5 served at once" in greets.stdout


def test_storm_comes_from_as_many_addresses_as_were_asked_for(
    start_server: Callable[..., int],
) -> None:
    port = start_server("limited_server", 2, "fin")
    words = ["--cap", 2, "--rate", 60, "--duration", "1s", "--sources", 3, "--processes", 2]
    done = probe("storm", f"127.0.0.1:{port}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(Oracle()) as oracle:  # the server closes first, and remembers who came
        seen = {IPv4Address(client >> 16) for client in oracle.time_waits(port)}
    ours = {IPv4Address(f"127.1.0.{i}") for i in (1, 2, 3)}
    assert seen - {IPv4Address("127.0.0.1")} == ours


def test_storm_by_two_processes_makes_every_arrival_once(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 2, 'rst')}"
    report = tmp_path / "storm.json"
    done = probe(
        "storm", target, "--cap", 2, "--rate", 300, "--duration", "1s", "--processes", 2,
        "--client-close", "rst", "--json", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(report)
    assert found["figures"]["time_wait_per_rejection"] == 0
    records = found["records"]
    intended = sorted(records["intended"])
    gaps = [b - a for a, b in itertools.pairwise(intended)]
    assert len(intended) == 300
    assert max(gaps) - min(gaps) <= 2  # ns: the two interleave evenly


def test_a_queueing_server_is_reported_as_unanswered_clients(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server('pool_server', 3)}"
    done = probe(
        "storm", target, "--cap", 3, "--rate", 50, "--duration", "1s", "--deadline", "500ms",
        "--threshold", "queued==0", "--threshold", "hangs==0",
    )  # fmt: skip
    assert done.returncode == 99, done.stdout
    assert "threshold queued==0: NOT MET" in done.stdout
    assert "threshold hangs==0: NOT MET" in done.stdout
    assert re.search(r"\d+ queued: clients waited their whole deadline for nothing", done.stdout)
    assert re.search(r"0 of \d+ told that .*; without an answer: \d+ queued", done.stdout)


def test_a_latency_that_the_server_has_not_is_a_threshold_not_met(
    start_server: Callable[..., int],
) -> None:
    """Who queues everybody rejects nobody quickly: that is an answer, and not a spoiled run."""
    target = f"127.0.0.1:{start_server('pool_server', 3)}"
    done = probe(
        "storm", target, "--cap", 3, "--rate", 50, "--duration", "1s", "--deadline", "500ms",
        "--threshold", "reject.p99<2ms", "--threshold", "fin.p50<1s", "--threshold", "slip.p99<1s",
    )  # fmt: skip
    assert "threshold reject.p99<2ms: NOT MET" in done.stdout, done.stdout + done.stderr
    assert "no figure reject" not in done.stdout
    assert "no figure fin" not in done.stdout
    # Too few arrivals for a p99 are another matter: there were some, and nobody can say.
    assert "INVALID: threshold 'slip.p99<1s': this run has no figure" in done.stdout
    assert done.returncode == 3
    done = probe(
        "storm", target, "--cap", 3, "--rate", 50, "--duration", "1s", "--deadline", "500ms",
        "--threshold", "reject.p99<2ms",
    )  # fmt: skip
    assert done.returncode == 99, done.stdout + done.stderr


@pytest.mark.parametrize("given", [True, False])
def test_memory_a_client_is_no_figure_where_the_search_had_filled_the_server_before(
    start_server: Callable[..., int], tmp_path: Path, given: bool
) -> None:
    report = tmp_path / "storm.json"
    target = f"127.0.0.1:{start_server('limited_server', 120, 'fin')}"
    words = ["--rate", 50, "--duration", "1s", "--profile", "echo", "--json", report]
    done = probe("storm", target, *words, *(["--cap", 120] if given else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("memory_per_held" in read(report)["figures"]) == given
    assert ("of the server: not measured" in done.stdout) != given


def test_refusals_that_cost_the_server_nothing_cost_zero(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "storm.json"
    target = f"127.0.0.1:{start_server('limited_server', 3, 'refuse')}"
    done = probe(
        "storm", target, "--cap", 3, "--rate", 200, "--duration", "1s", "--profile", "echo",
        "--json", report, "--threshold", "cpu_per_rejection<5us",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert read(report)["figures"]["cpu_per_rejection"] == 0


def test_a_rate_that_cannot_be_kept_is_invalid(start_server: Callable[..., int]) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 2, 'fin')}"
    done = probe("storm", target, "--cap", 2, "--rate", 300_000, "--duration", "1s")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "INVALID: the rate was not kept" in done.stdout


@pytest.mark.parametrize("name", ["storm", "churn", "slow", "isolation"])
def test_a_wrong_cap_is_said_not_measured(start_server: Callable[..., int], name: str) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 4, 'fin')}"
    low = probe(name, target, "--cap", 3, "--duration", "1s")
    high = probe(name, target, "--cap", 9, "--duration", "1s")
    assert (low.returncode, high.returncode) == (1, 1)
    assert "admits more than 3" in low.stderr
    assert "only 4 of 9" in high.stderr


def test_ctrl_c_gives_the_partial_result(start_server: Callable[..., int]) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 2, 'fin')}"
    child = subprocess.Popen(
        command("storm", target, "--cap", 2, "--rate", 200, "--duration", "60s"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stderr is not None
        while not re.search(r" [1-9]\.\d of 60 s", line := child.stderr.readline()):
            assert line
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 3
    assert time.monotonic() - began < 30
    assert "PARTIAL: interrupted by SIGINT" in out
    assert "fin" in out


def test_selftest_reports_ceiling_and_noise(tmp_path: Path) -> None:
    report = tmp_path / "self.json"
    done = probe("selftest", "--blocks", 2, "--json", report)
    assert done.returncode in (0, 3), done.stderr  # a busy machine's run may not count
    found = read(report)
    figures = found["figures"]
    assert found["exit_status"] == done.returncode
    assert {"ceiling, 2000 a second", "A/A block 1, server A", "A/A block 2, server B"} < set(
        found["floods"]
    )
    assert len(found["floods"]["A/A block 1, server A"]["outcome"]) > 1000
    if len(found["details"]["ceiling"]) == 10 and found["details"]["ceiling"][-1]["valid"]:
        assert "at least 30000 attempts a second" in done.stdout
    else:
        assert "this client makes up to" in done.stdout
    assert figures["fin.count"] > 1000
    if done.returncode == 0:  # else a block may have been left out
        assert figures["noise.p50.low"] <= figures["noise.p50.high"]
    assert figures["ceiling"] >= 0


def test_churn_counts_false_rejections(start_server: Callable[..., int], tmp_path: Path) -> None:
    """A server whose slot comes back 100 ms late rejects who reconnects, with certainty."""
    report = tmp_path / "churn.json"
    target = f"127.0.0.1:{start_server('limited_server', 3, 'slow_to_free')}"
    done = probe(
        "churn", target, "--cap", 3, "--tries", 5, "--duration", "1s", "--rate", 20,
        "--json", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = read(report)["figures"]
    assert figures["reconnect.tries"] == 5
    assert figures["reconnect.first_try"] == 0
    assert figures["reconnect.rejected"] == 5
    assert "5 of 5 rejected at the first try" in done.stdout
    assert figures["false_rejections.certain"] >= 5
    assert figures["over_admissions"] == 0
    assert figures["reconnect.connect_lag.max"] > 0.05


def test_churn_at_a_server_that_loses_slots_says_so_and_ends(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "churn.json"
    # The calibration's four never come back: three are left.
    target = f"127.0.0.1:{start_server('limited_server', 7, 'leaky')}"
    done = probe(
        "churn", target, "--cap", 3, "--profile", "echo", "--deadline", "500ms", "--duration", "1s",
        "--json", report, "--threshold", "reconnect.slots_lost==0",
    )  # fmt: skip
    assert done.returncode == 99, done.stdout + done.stderr
    assert "a slot did not come back" in done.stdout
    assert read(report)["figures"]["reconnect.rejected"] == 1


def with_few_files(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = ["sh", "-c", 'ulimit -n 70 && exec "$@"', "-", *command(*arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    "arguments",
    [
        ["churn", "--cap", 60],
        ["storm", "--cap", 60],
        ["slow", "--cap", 60],
        ["isolation", "--cap", 60],
        ["cap", "--cap", 60],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_cap_beyond_our_descriptors_is_refused_before_the_run(arguments: list[object]) -> None:
    done = with_few_files(*arguments, "127.0.0.1:1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(r"gserver probe: --cap 60: .*limit on open files.*\n", done.stderr)


def test_a_run_is_invalid_when_this_machine_fails_and_nobody_dies_of_it(
    start_server: Callable[..., int],
) -> None:
    """Descriptors run out at the joiners: counted, exit 3, no traceback."""
    target = f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"
    done = with_few_files("churn", "--cap", 3, "--tries", 3, "--joiners", 80, target)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "INVALID" in done.stdout
    assert "this machine" in done.stdout
    assert "Traceback" not in done.stderr


def test_churn_at_a_server_that_lets_in_too_many(start_server: Callable[..., int]) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 3, 'sloppy')}"
    done = probe(
        "churn", target, "--cap", 3, "--tries", 0, "--duration", "2s", "--joiners", 20,
        "--threshold", "over_admissions==0",
    )  # fmt: skip
    assert done.returncode == 99, done.stdout + done.stderr


def test_slow_clients_hold_slots_until_they_end(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "slow.json"
    target = f"127.0.0.1:{start_server('limited_server', 4, 'fin')}"
    done = probe("slow", target, "--cap", 4, "--duration", "1s", "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(report)
    figures = found["figures"]
    assert (figures["silent.slots"], figures["silent.closed"]) == (3, 0)
    assert (figures["trickle.slots"], figures["trickle.closed"]) == (3, 0)
    # Echo returns at end of file: a client that half-closes gives its slot back.
    assert (figures["half_close.slots"], figures["half_close.closed"]) == (0, 3)
    for kind, ended_by in (("silent", None), ("trickle", None), ("half_close", "fin")):
        raw = found["details"]["slow"][kind]["records"]
        assert raw["ended_by"] == [ended_by] * 3
        assert [at is None for at in raw["ended"]] == [ended_by is None] * 3
        assert all(at > 0 for at in raw["started"])
    assert all(count > 0 for count in raw["received_bytes"])  # half-closed: answered first


def test_isolation_compares_the_flood_with_a_control_flood(
    start_server: Callable[..., int], tmp_path: Path
) -> None:
    report = tmp_path / "isolation.json"
    target = f"127.0.0.1:{start_server('limited_server', 6, 'fin')}"
    done = probe(
        "isolation", target, "--cap", 6, "--duration", "1s", "--rate", 300, "--victim-rate", 200,
        "--json", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(report)
    figures = found["figures"]
    assert len(found["floods"]["control"]["outcome"]) == len(found["records"]["outcome"]) == 300
    assert figures["cpu_per_rejection_with_answers"] > 0  # not what a storm measures
    for phase in ("quiet", "control", "flood", "recovery"):
        assert 150 <= figures[f"{phase}.count"] <= 200
    assert figures["victims_lost"] == 0
    assert figures["isolation.p50"] > 0
    assert figures["isolation.goodput"] > 0.7
    # Loopback charges the client with handshakes: neither figure goes without the other.
    assert figures["machine_cpu_per_attempt"] > 0
    assert figures["machine_cpu"] > figures["server_cpu"] > 0
    assert "us an attempt, client, victims and all else included" in done.stdout
