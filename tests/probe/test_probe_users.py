"""Scenario files: users, tasks, shapes and events as a Locust user would write them."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import gevent
import pytest

from gserver.errors import SettingError
from gserver.probe import LoadShape, Outcome, SocketUser, between, constant, events, task
from gserver.probe.attempt import Patience
from gserver.probe.profiles import PROFILES
from gserver.probe.result import Result
from gserver.probe.run import Run
from gserver.probe.swarm import load_scenario, run_scenario, scenario_of
from gserver.probe.target import parse_target

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "bench" / "scenarios").glob("*.py"))


def scenario(*classes: type):
    module = ModuleType("made_up")
    for cls in classes:
        cls.__module__ = "made_up"
        setattr(module, cls.__name__, cls)
    return scenario_of(module, "made_up")


def drive(loaded, port: int, *, users: int = 5, seconds: float = 0.4, cap: int | None = None):
    result = Result("made_up", "t")
    with Run(60, stream=None) as run:
        run_scenario(
            loaded, parse_target(f"127.0.0.1:{port}"), PROFILES["echo"], Patience(), run, result,
            users=users, spawn_rate=1000, run_time_s=seconds, cap=cap, seed=1,
        )  # fmt: skip
    return result


def test_there_are_scenarios() -> None:
    assert {"spikes", "full_house", "churners", "slow_clients"} <= {p.stem for p in SCENARIOS}


@pytest.mark.long
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_every_scenario_runs_as_its_first_lines_say(
    start_server: Callable[..., int], tmp_path: Path, path: Path
) -> None:
    assert f"python -m bench run bench/scenarios/{path.name} " in path.read_text()
    report, page = tmp_path / "run.json", tmp_path / "run.html"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", str(path),
         f"127.0.0.1:{start_server('limited_server', 4, 'fin')}",
         "--users", "12", "--spawn-rate", "100", "--run-time", "2s", "--cap", "4",
         "--json", str(report), "--html", str(page)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["figures"]["over_admissions"] == 0
    assert found["figures"]["user_failures"] == 0
    assert "admitted" in found["records"]["outcome"]
    assert "How many there were" in page.read_text()


def test_a_bad_scenario_is_the_users_fault(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("x = 1\n")
    broken.write_text("import no_such_module\n")
    for path in (empty, broken, tmp_path / "absent.py"):
        with pytest.raises(SettingError):
            load_scenario(str(path))


def test_tasks_by_weight_start_and_stop_once_and_events(start_server: Callable[..., int]) -> None:
    seen: Counter[str] = Counter()

    class Visitor(SocketUser):
        wait_time = constant(0)

        def on_start(self) -> None:
            seen["start"] += 1

        def on_stop(self) -> None:
            seen["stop"] += 1

        @task(4)
        def often(self) -> None:
            seen["often"] += 1
            with self.connect() as session:
                if session.admitted:
                    assert session.ask() == b"PING\r\n"

        @task
        def seldom(self) -> None:
            seen["seldom"] += 1
            self.connect().reset()

    def listener(user: SocketUser, outcome: Outcome, latency_s: float) -> None:
        assert isinstance(user, Visitor)
        assert latency_s > 0
        seen[outcome.value] += 1

    events.outcome.add_listener(listener)
    try:
        result = drive(scenario(Visitor), start_server("limited_server", 3, "fin"), users=6, cap=3)
    finally:
        events.outcome.remove_listener(listener)
    assert (seen["start"], seen["stop"]) == (6, 6)
    assert seen["often"] > seen["seldom"] > 0
    assert seen["admitted"] == result.figures["admitted.count"]
    assert result.figures["user_failures"] == 0
    assert result.figures["peak"] <= 3
    assert result.figures["request.count"] > 0


@pytest.mark.long
def test_users_that_wait_in_the_kernels_queue_hang(start_server: Callable[..., int]) -> None:
    class Guest(SocketUser):
        @task
        def stay(self) -> None:
            with self.connect() as session:
                if session.admitted:
                    gevent.sleep(20)

    port = start_server("pool_server", 1)
    figures = drive(scenario(Guest), port, users=3, seconds=2.5, cap=1).figures
    assert figures["hangs"] == figures["queued"] == figures["queued.count"] >= 2


def test_no_garbage_is_collected_while_users_run(start_server: Callable[..., int]) -> None:
    enabled: list[bool] = []

    class Looker(SocketUser):
        @task
        def look(self) -> None:
            enabled.append(gc.isenabled())

    drive(scenario(Looker), start_server("limited_server", 3, "fin"), users=1)
    assert enabled
    assert not any(enabled)
    assert gc.isenabled()


def test_fixed_counts_come_first_and_held_sessions_count(
    start_server: Callable[..., int],
) -> None:
    class Holder(SocketUser):
        fixed_count = 3
        wait_time = constant(0)

        @task
        def hold(self) -> None:
            with self.connect() as session:
                if session.admitted:
                    session.hold(60)

    class Knocker(SocketUser):
        wait_time = between(0.01, 0.02)

        @task
        def knock(self) -> None:
            self.connect().close()

    result = drive(
        scenario(Holder, Knocker), start_server("limited_server", 3, "rst"), users=6, cap=3
    )
    assert result.figures["peak"] == 3
    assert result.figures["rst.count"] > 10
    assert result.figures["over_admissions"] == 0


def test_who_was_ended_by_the_server_is_not_held_though_nobody_looked(
    start_server: Callable[..., int],
) -> None:
    """Users that never read: the server ends each after 400 ms, and its answer lies before that."""

    class Blind(SocketUser):
        wait_time = constant(0.01)

        @task
        def sit(self) -> None:
            with self.connect() as session:
                if session.admitted:
                    session.sock.sendall(b"unread")
                    gevent.sleep(1.0)

    port = start_server("limited_server", 3, "brief", 0.4)
    result = drive(scenario(Blind), port, users=12, seconds=3, cap=3)
    assert result.figures["admitted.count"] > 6
    assert result.figures["peak"] == 3
    assert result.figures["over_admissions"] == 0


def test_over_admissions_of_a_scenario_are_counted(start_server: Callable[..., int]) -> None:
    class Holder(SocketUser):
        @task
        def hold(self) -> None:
            with self.connect() as session:
                session.hold(60)

    result = drive(scenario(Holder), start_server("limited_server", 5, "fin"), users=5, cap=3)
    assert (result.figures["peak"], result.figures["over_admissions"]) == (5, 2)
    assert ("over-admissions", "2 certain (most served at once: 5)") in result.lines


def test_a_shape_sets_the_users_and_ends_the_run(start_server: Callable[..., int]) -> None:
    class Idle(SocketUser):
        @task
        def nothing(self) -> None:
            pass

    asked_at: list[float] = []

    class Steps(LoadShape):
        def tick(self) -> tuple[int, float] | None:
            asked_at.append(self.get_run_time())
            if len(asked_at) > 6:
                return None
            return (9, 1000) if len(asked_at) <= 3 else (2, 1000)

    result = drive(scenario(Idle, Steps), start_server("limited_server", 3, "fin"), seconds=60)
    timeline = result.details["users"]
    assert asked_at == sorted(set(asked_at))
    assert [t[0] for t in timeline] == asked_at[:-1]
    assert max(t[1] for t in timeline) == 9
    assert timeline[-1][1] == 2


def test_a_task_that_raises_ends_its_user_and_is_counted(start_server: Callable[..., int]) -> None:
    class Clumsy(SocketUser):
        fixed_count = 2

        @task
        def stumble(self) -> None:
            raise RuntimeError("oops")

    result = drive(scenario(Clumsy), start_server("limited_server", 3, "fin"), users=2)
    assert result.figures["user_failures"] == 2
    assert any("oops" in text for text in result.warnings)


class Lingering(SocketUser):
    @task
    def nothing(self) -> None:
        pass

    def on_stop(self) -> None:
        gevent.sleep(100)


@pytest.mark.long
def test_users_that_do_not_stop_are_failures_and_do_not_hold_up_the_end(
    start_server: Callable[..., int],
) -> None:
    """Neither at the end of the run, nor when the shape wants fewer."""

    class Fewer(LoadShape):
        def tick(self) -> tuple[int, float] | None:
            return (3, 1000) if self.get_run_time() < 0.15 else (1, 1000)

    result, target = (
        Result("t", "t"),
        parse_target(f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"),
    )
    began = time.monotonic()
    with gevent.Timeout(60), Run(4, stream=None) as run:
        run_scenario(
            scenario(Lingering, Fewer), target, PROFILES["echo"], Patience(), run, result,
            users=3, spawn_rate=1000, run_time_s=0.5, cap=None, seed=1,
        )  # fmt: skip
    assert time.monotonic() - began < 20
    assert not run.partial  # they have had all the time that they were to have
    assert result.figures["user_failures"] == 3
    assert any(text.startswith("3 users failed: Lingering: ") for text in result.warnings)
    assert [users for _, users, _ in result.details["users"]][-1] == 1


@pytest.mark.long
def test_users_that_stop_within_the_time_of_the_run_are_waited_for(
    start_server: Callable[..., int],
) -> None:
    farewells: list[int] = []

    class Polite(SocketUser):
        @task
        def nothing(self) -> None:
            pass

        def on_stop(self) -> None:
            gevent.sleep(1.0)  # longer than a stopped run waits
            farewells.append(1)

    result = drive(scenario(Polite), start_server("limited_server", 3, "fin"), users=2)
    assert len(farewells) == 2
    assert result.figures["user_failures"] == 0


@pytest.mark.long
def test_a_stopped_run_does_not_wait_for_users_that_do_not_stop(
    start_server: Callable[..., int],
) -> None:
    result, port = Result("t", "t"), start_server("limited_server", 3, "fin")
    began = time.monotonic()
    with gevent.Timeout(60), Run(50, stream=None) as run:
        gevent.spawn_later(2.0, run.stop, "enough")
        run_scenario(
            scenario(Lingering), parse_target(f"127.0.0.1:{port}"), PROFILES["echo"], Patience(),
            run, result, users=2, spawn_rate=1000, run_time_s=40, cap=None, seed=1,
        )  # fmt: skip
    assert time.monotonic() - began < 30
    assert result.figures["user_failures"] == 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["127.0.0.1:1"], 1, "connection refused"),
        (["127.0.0.1:0"], 2, "127.0.0.1:0"),
        (["127.0.0.1:1", "--spawn-rate", "-1"], 2, "--spawn-rate -1.0: must be above 0"),
        (["127.0.0.1:1", "--spawn-rate", "nan"], 2, "--spawn-rate"),
        (["127.0.0.1:1", "--cap", "3", "--threshold", "limit==1"], 2, "--threshold"),
    ],
)
def test_faults_of_a_scenarios_run_are_called_by_its_own_name(
    words: list[str], status: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", str(SCENARIOS[0]), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("bench run: ")
    assert said in last
    assert "gserver probe" not in done.stdout + done.stderr
