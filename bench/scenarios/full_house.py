"""Ten holders fill a server with a cap of ten; everybody else knocks and is turned away.

python -m bench run bench/scenarios/full_house.py 127.0.0.1:8999 --users 30 --run-time 20s
"""

from gserver.probe import SocketUser, between, constant, task


class Holder(SocketUser):
    fixed_count = 10
    wait_time = constant(0.1)

    @task
    def hold(self):
        with self.connect() as session:
            if session.admitted:
                session.hold(60)


class Knocker(SocketUser):
    wait_time = between(0.05, 0.2)

    @task
    def knock(self):
        self.connect().close()
