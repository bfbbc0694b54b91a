"""A few slow clients among ordinary ones: who says nothing, or says it byte by byte.

python -m bench run bench/scenarios/slow_clients.py 127.0.0.1:8999 --users 20 --run-time 20s
"""

import gevent

from gserver.probe import SocketUser, between, constant, task


class Silent(SocketUser):
    fixed_count = 3
    wait_time = constant(1)

    @task
    def say_nothing(self):
        with self.connect() as session:
            if session.admitted:
                session.hold(10)


class Trickler(SocketUser):
    fixed_count = 3
    wait_time = constant(1)

    @task
    def trickle(self):
        with self.connect() as session:
            if session.admitted:
                for _ in range(20):
                    session.sock.send(b"x")
                    gevent.sleep(0.5)


class Ordinary(SocketUser):
    wait_time = between(0.1, 0.5)

    @task
    def visit(self):
        with self.connect() as session:
            if session.admitted:
                session.ask()
