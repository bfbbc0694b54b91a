"""The swarm: runs a scenario file's users, by number or by shape, and makes a result of it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Final

import gevent
from gevent.event import Event

from gserver.errors import SettingError
from gserver.probe.attempt import Attempt, Patience
from gserver.probe.calibrate import Calibration, calibrate
from gserver.probe.events import events
from gserver.probe.figures import latency_names
from gserver.probe.outcomes import HANGS, OUTCOMES, REJECTIONS, Outcome
from gserver.probe.profiles import Profile
from gserver.probe.records import Records
from gserver.probe.result import Result
from gserver.probe.run import Run, collector_off
from gserver.probe.shape import LoadShape
from gserver.probe.stats import summarise
from gserver.probe.target import Target
from gserver.probe.users import Session, SocketUser
from gserver.probe.validity import ClientHealth, judge

__all__ = ["Scenario", "Swarm", "check_spawn_rate", "load_scenario", "run_scenario"]

_TICK_S: Final = 0.1
_MOST_STARTED: Final = 100_000
_TO_STOP_S: Final = 0.5  # that users have when the run has no time left: for a line of farewell


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a scenario file holds: user classes, and perhaps a shape."""

    name: str
    users: Sequence[type[SocketUser]]
    shape: type[LoadShape] | None


def load_scenario(path: str) -> Scenario:
    """Import the file at *path*.

    :raises SettingError: it is not there, fails, or has no :class:`SocketUser` with a task.
    """
    file = Path(path)
    spec = importlib.util.spec_from_file_location(f"scenario_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SettingError("SCENARIO", path, "no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling and dataclasses look classes up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingError("SCENARIO", path, f"{type(error).__name__}: {error}") from error
    return scenario_of(module, file.stem)


def scenario_of(module: ModuleType, name: str) -> Scenario:
    """The classes that *module* itself defines.

    :raises SettingError: no user class with a task, or two shapes.
    """
    mine = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    users = [value for value in mine if issubclass(value, SocketUser) and value.tasks]
    shapes = [value for value in mine if issubclass(value, LoadShape)]
    if not users:
        raise SettingError("SCENARIO", name, "defines no SocketUser with a @task")
    if len(shapes) > 1:
        raise SettingError("SCENARIO", name, "defines more than one LoadShape")
    return Scenario(name, users, shapes[0] if shapes else None)


class Swarm:
    """The users of one run. What they may use: :attr:`engine`, :attr:`profile`.

    :attr:`peak`: the most sessions open at once; beyond *cap*, those that the server had not ended.
    """

    def __init__(
        self, target: Target, calibration: Calibration, seed: int, cap: int | None = None
    ) -> None:
        self.profile = calibration.profile
        self.records = Records()
        self.answers: list[int] = []
        self.peak = 0
        self._cap = cap
        self._sessions: set[Session] = set()
        self.failures: Counter[str] = Counter()
        self.timeline: list[tuple[float, int, int]] = []  # seconds, users, connections held
        self._patience = calibration.patience
        self._seed = seed
        self._running: dict[gevent.Greenlet[..., None], str] = {}  # and their users' class names
        self._stopping: dict[gevent.Greenlet[..., None], str] = {}
        self._waiters: dict[Attempt, Event] = {}
        self.engine = calibration.engine(
            target,
            on_outcome=self._on_outcome,
        )

    # -- for users --------------------------------------------------------------------------

    def attempt(self, user: SocketUser) -> Attempt:
        """One attempt, until its outcome."""
        attempt = self.engine.start(keep=True)
        if attempt.outcome is None:
            waiter = self._waiters[attempt] = Event()
            try:
                waiter.wait()
            finally:
                self._waiters.pop(attempt, None)
                if attempt.outcome is None:  # the user was stopped in the middle
                    self.engine.end(attempt)
        assert attempt.outcome is not None
        if attempt.outcome is not Outcome.ADMITTED:
            self.engine.end(attempt)
        self.records.append(attempt)
        latency_s = (attempt.finished - attempt.started) / 1e9
        events.outcome.fire(user=user, outcome=attempt.outcome, latency_s=latency_s)
        return attempt

    def answered(self, user: SocketUser, latency_s: float) -> None:
        """A session's request was answered."""
        self.answers.append(round(latency_s * 1e9))
        events.request.fire(user=user, latency_s=latency_s)

    def session_began(self, session: Session) -> None:
        """An admitted session is open."""
        self._sessions.add(session)
        if len(self._sessions) > self.peak:
            if self._cap is not None and len(self._sessions) > self._cap:
                # Users may look late, or never: before so many count as served at once, those go
                # that the server has ended. Below the cap it would be work without a question.
                self._sessions -= {each for each in self._sessions if not each.is_open}
            self.peak = max(self.peak, len(self._sessions))

    def session_ended(self, session: Session) -> None:
        """It is closed."""
        self._sessions.discard(session)

    @property
    def held(self) -> int:
        """Sessions that their users have not closed, less those that were found to have ended.

        Nobody looks below the cap: there a session that the server has ended still counts.
        """
        return len(self._sessions)

    # -- for the runner -----------------------------------------------------------------------

    def _on_outcome(self, attempt: Attempt) -> None:
        waiter = self._waiters.get(attempt)
        if waiter is not None:
            waiter.set()

    @property
    def user_count(self) -> int:
        """Users that are running."""
        self._running = {g: name for g, name in self._running.items() if not g.dead}
        return len(self._running)

    def start_user(self, kind: type[SocketUser]) -> None:
        """One more."""
        self._seed += 1
        self._running[gevent.spawn(self._live, kind(self, self._seed))] = kind.__name__

    def stop_user(self) -> None:
        """One fewer: the one that was started last. Not waited for: it may take its time."""
        if self._running:
            greenlet, name = self._running.popitem()
            self._stopping[greenlet] = name
            greenlet.kill(block=False)

    def close(self, run: Run) -> None:
        """Stop all users and end all connections. May be called again.

        Who has not stopped by half a second before the end of *run*, or half a second after it was
        stopped, is counted as a failure, and not waited for.
        """
        while self._running:
            self.stop_user()
        gevent.joinall(list(self._stopping), timeout=_TO_STOP_S)
        run.until(self._all_have_stopped, run.ends - _TO_STOP_S - time.monotonic())
        for greenlet, name in self._stopping.items():
            if not greenlet.dead:
                self.failures[f"{name}: did not stop in time (on_stop, or a task's own end)"] += 1
                greenlet.kill(block=False)  # again: out of what it is doing
        self._stopping.clear()
        self.engine.close()

    def _all_have_stopped(self) -> bool:
        return all(greenlet.dead for greenlet in self._stopping)

    def _live(self, user: SocketUser) -> None:
        try:
            user.run()
        except Exception as error:
            self.failures[f"{type(user).__name__}: {type(error).__name__}: {error}"] += 1


def check_spawn_rate(rate: float) -> None:
    """Users that start a second: above 0 and at most 100,000, or :class:`SettingError`."""
    if not 0 < rate <= _MOST_STARTED:
        raise SettingError(
            "--spawn-rate", rate, f"must be above 0 and at most {_MOST_STARTED} a second"
        )


def run_scenario(
    scenario: Scenario,
    target: Target,
    profile: Profile | None,
    patience: Patience,
    run: Run,
    result: Result,
    *,
    users: int,
    spawn_rate: float,
    run_time_s: float,
    cap: int | None,
    seed: int,
) -> None:
    """Run it for *run_time_s*, or until its shape ends it; figures into *result*.

    :param users: how many, when there is no shape; *spawn_rate*: starts a second.
    :param cap: the server's limit, for over-admissions; None: not counted.
    :raises SettingError: no such *spawn_rate*.
    """
    check_spawn_rate(spawn_rate)
    calibration = calibrate(target, profile, patience, run)
    swarm = Swarm(target, calibration, seed, cap)
    result.details["calibration"] = calibration.as_json()
    result.warnings += calibration.caveats(2 * calibration.patience.quiet_s)
    cpu, began = time.process_time(), time.monotonic()
    result.start_ns = time.monotonic_ns()
    events.test_start.fire()
    try:
        with collector_off():
            _drive(scenario, swarm, run, users, spawn_rate, run_time_s)
    finally:
        share = (time.process_time() - cpu) / max(time.monotonic() - began, 1e-9)
        swarm.close(run)
        calibration.close()
        events.test_stop.fire()
    if swarm.engine.failure is not None:
        raise swarm.engine.failure
    _report(swarm, result, share, cap)


def _drive(
    scenario: Scenario,
    swarm: Swarm,
    run: Run,
    users: int,
    spawn_rate: float,
    run_time_s: float,
) -> None:
    shape = scenario.shape() if scenario.shape is not None else None
    fixed = [kind for kind in scenario.users for _ in range(kind.fixed_count)]
    by_weight = [k for k in scenario.users if not k.fixed_count for _ in range(k.weight)]
    kinds = iter(fixed)
    others = cycle(by_weight)
    began = time.monotonic()
    allowance = 1.0  # users that may start or stop now
    while (passed := time.monotonic() - began) < run_time_s:
        wanted, rate = users, spawn_rate
        if shape is not None:
            shape.elapsed_s = passed
            told = shape.tick()
            if told is None:
                break
            wanted, rate = told
        while allowance >= 1 and swarm.user_count != wanted:
            if swarm.user_count > wanted:
                swarm.stop_user()
            else:
                kind = next(kinds, None) or next(others, None)
                if kind is None:
                    break
                swarm.start_user(kind)
            allowance -= 1
        swarm.timeline.append((passed, swarm.user_count, swarm.held))
        run.tell(f"{swarm.user_count} users, {swarm.held} connections held")
        if not run.pause(min(_TICK_S, max(run_time_s - passed, 0.001))):
            break
        allowance = min(allowance + rate * _TICK_S, max(rate, 1.0))


def _report(swarm: Swarm, result: Result, share: float, cap: int | None) -> None:
    rows = list(swarm.records.rows())
    counts = Counter(row[3] for row in rows)
    table = {
        outcome.value: summarise([r[2] - r[1] for r in rows if r[3] is outcome])
        for outcome in OUTCOMES
        if counts[outcome]
    }
    for name, summary in table.items():
        result.figures |= summary.flat(name)
    reject = summarise([row[2] - row[1] for row in rows if row[3] in REJECTIONS])
    answers = summarise(swarm.answers)
    for outcome in OUTCOMES:
        if not counts[outcome]:
            result.absent |= latency_names(outcome.value)
    if not reject.count:
        result.absent |= latency_names("reject")
    result.figures |= reject.flat("reject") | answers.flat("request")
    result.figures |= {
        **{f"{outcome.value}.count": counts[outcome] for outcome in OUTCOMES},
        "hangs": sum(counts[outcome] for outcome in HANGS),
        "queued": counts[Outcome.QUEUED],
        "peak": swarm.peak,
        "client_cpu": share,
        "user_failures": swarm.failures.total(),
    }
    if counts[Outcome.UNKNOWN]:  # any of them may be one: no threshold on these is met
        del result.figures["hangs"], result.figures["queued"]
    result.latencies["outcome latency (connect to outcome)"] = table
    result.latencies["request to answer"] = {"answered": answers}
    result.headline = f"held at most {swarm.peak} at once; {len(rows)} attempts"
    result.lines += [
        ("users", f"at most {max((t[1] for t in swarm.timeline), default=0)}"),
        ("outcomes", ", ".join(f"{n} {o.value}" for o, n in counts.most_common()) or "none"),
        ("held", f"at most {swarm.peak} connections at once"),
        ("client", f"{share:.0%} of a core"),
    ]
    if cap is not None:
        over = result.figures["over_admissions"] = max(0, swarm.peak - cap)
        result.lines.append(
            ("over-admissions", f"{over} certain (most served at once: {swarm.peak})")
        )
    for text, count in swarm.failures.most_common(5):
        result.warnings.append(f"{count} users failed: {text}")
    health = ClientHealth([share], 0, 0, 0, None, None, counts[Outcome.LOCAL])
    warnings, invalid = judge(health, "run")
    result.warnings += warnings
    result.invalid += invalid
    result.records = swarm.records
    result.details["users"] = swarm.timeline
