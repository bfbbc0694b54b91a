"""Locust against any TCP server at its limit: for its web UI and its master and workers.

    locust -f bench/locustfile.py --host 127.0.0.1:8999 --users 50 --spawn-rate 50
    locust -f bench/locustfile.py --host 127.0.0.1:8999 --headless -u 50 -r 50 -t 20s

Every attempt is a request whose name is its outcome. Rejections are no failures: being turned away
at once is what a limit is for; no answer (queued, hang, syn_pending; unknown at a server of another
host) is one. Not the reference measurement: a greenlet a user costs about half of the throughput
(``gserver probe storm``).
"""

from __future__ import annotations

import locust.stats
from gevent.event import Event
from locust import User, constant, events, task

from gserver.errors import SettingError
from gserver.probe.attempt import Attempt, Patience
from gserver.probe.engine import Engine
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.profiles import PROFILES, profile_named
from gserver.probe.target import parse_target

FINE = (Outcome.ADMITTED, *REJECTIONS)


def to_three_digits(response_time_ms: float) -> float:
    """Locust rounds below 100 ms to whole milliseconds: a rejection of 0.1 ms would read 0."""
    return float(f"{response_time_ms:.3g}")


locust.stats.bucket_response_time = to_three_digits  # its documented place for this


@events.init_command_line_parser.add_listener
def add_flags(parser):
    parser.add_argument("--probe-profile", choices=PROFILES, default="echo", help="What it speaks.")
    parser.add_argument("--hold", type=float, default=0.0, help="Seconds an admitted user stays.")


class TcpUser(User):
    """Connects, and is let in or turned away."""

    wait_time = constant(0.01)
    engine: Engine | None = None  # one for all users of this process
    waiters: dict[Attempt, Event] = {}  # noqa: RUF012  shared on purpose

    def on_start(self):
        if TcpUser.engine is None:
            options = self.environment.parsed_options
            try:
                target = parse_target((self.host or "").rpartition("//")[2])
            except SettingError as error:
                raise SystemExit(f"--host: {error}") from None
            TcpUser.engine = engine = Engine(
                target,
                profile_named(options.probe_profile),
                Patience(),
                oracle=Oracle(),
                on_outcome=self.learn,
            )
            engine.sees_rows = False

    def learn(self, attempt):
        """The first who is admitted shows whether the server is of this host."""
        engine = self.engine
        if not engine.sees_rows and engine.oracle is not None:
            if engine.accepted(attempt):
                engine.sees_rows = True
            elif attempt.outcome is Outcome.ADMITTED:
                engine.oracle.close()
                engine.oracle = None  # the kernel has no such row: silence tells nothing
        waiter = self.waiters.pop(attempt, None)
        if waiter is not None:  # else it is over before start() returns
            waiter.set()

    @task
    def knock(self):
        attempt = self.engine.start(keep=True)
        try:
            self.wait_for_outcome(attempt)
            if attempt.outcome is Outcome.ADMITTED:
                Event().wait(self.environment.parsed_options.hold)
        finally:  # a user who is stopped in either wait must not leave its place taken
            self.waiters.pop(attempt, None)
            self.engine.end(attempt)

    def wait_for_outcome(self, attempt):
        if attempt.outcome is None:
            self.waiters[attempt] = outcome_known = Event()
            outcome_known.wait()
        outcome = attempt.outcome
        events.request.fire(
            request_type="TCP",
            name=outcome.value,
            response_time=(attempt.finished - attempt.started) / 1e6,
            response_length=len(attempt.received),
            exception=None if outcome in FINE else RuntimeError(outcome.value),
        )


@events.quitting.add_listener
def print_in_microseconds(environment):
    """Locust's own tables show whole milliseconds. A worker has handed its figures on."""
    if not environment.stats.entries:
        return
    print("\nmicroseconds, to three digits")
    print(f"  {'':14}{'count':>9}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}")
    for entry in environment.stats.entries.values():
        if entry.response_times:
            cells = [entry.get_response_time_percentile(q) * 1e3 for q in (0.5, 0.9, 0.99)]
            cells.append(entry.max_response_time * 1e3)
            numbers = "".join(f"{cell:>10.0f}" for cell in cells)
            print(f"  {entry.name:14}{entry.num_requests:>9}{numbers}")
