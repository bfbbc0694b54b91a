"""One batch of attempts, for tests of outcomes."""

from __future__ import annotations

import gevent

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.engine import Engine
from gserver.probe.oracle import Oracle
from gserver.probe.profiles import Profile
from gserver.probe.target import parse_target


def run_attempts(
    port: int, profile: Profile, count: int, patience: Patience, *, use_oracle: bool = True
) -> list[Attempt]:
    """*count* attempts at once; returns them, all with an outcome, every socket closed."""
    oracle = Oracle() if use_oracle else None
    engine = Engine(parse_target(f"127.0.0.1:{port}"), profile, patience, oracle=oracle)
    try:
        attempts = [engine.start() for _ in range(count)]
        with gevent.Timeout(patience.deadline_s + 20):
            while engine.in_flight:
                gevent.sleep(0.005)
        assert engine.failure is None, engine.failure
        return attempts
    finally:
        engine.close()
        if oracle is not None:
            oracle.close()
