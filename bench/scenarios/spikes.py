"""Quiet, and every five seconds a spike of a hundred users for one second.

python -m bench run bench/scenarios/spikes.py 127.0.0.1:8999 --run-time 20s
"""

from gserver.probe import LoadShape, SocketUser, between, task


class Visitor(SocketUser):
    wait_time = between(0.1, 0.3)

    @task
    def visit(self):
        with self.connect() as session:
            if session.admitted:
                session.hold(0.5)


class Spikes(LoadShape):
    def tick(self):
        in_spike = self.get_run_time() % 5 > 4
        return (100, 1000) if in_spike else (5, 1000)
