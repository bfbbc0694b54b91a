"""Visitors come, ask a few times and leave; more of them than the server has room for.

python -m bench run bench/scenarios/churners.py 127.0.0.1:8999 --users 40 --run-time 20s
"""

from gserver.probe import SocketUser, between, task


class Visitor(SocketUser):
    wait_time = between(0.1, 0.5)

    @task(3)
    def ask(self):
        with self.connect() as session:
            for _ in range(5):
                if session.admitted and session.ask():
                    session.hold(0.2)

    @task
    def leave_in_anger(self):
        self.connect().reset()
