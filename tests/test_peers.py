"""Each peer of the comparison does at its cap what its description says, and leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent.subprocess
import pytest
from missing import missing

from bench.peers import PEERS, Missing, Peer, PeerFailed, Policy, Running, start
from bench.peers.base import HOST, ROOT, Launch, PythonPeer, Site
from bench.peers.process import session_members, wait_until
from gserver.net.listeners import system_backlog
from gserver.probe.oracle import Oracle

pytestmark = pytest.mark.long

CAP = 3

#: Seconds for anything that must happen; a peer on a busy machine stays far below.
DEADLINE = 10.0

#: Seconds of silence that tell a queued client from one that is answered.
SILENCE = 0.3

#: Sent, and what a served client reads back.
PROBES = {"echo": (b"ping", b"ping"), "redis": (b"PING\r\n", b"+PONG\r\n")}


class Client:
    """A client of a peer: connected from the start, closed at the end of the test."""

    def __init__(self, peer: Peer, port: int) -> None:
        self.question, self.answer = PROBES[peer.profile]
        self.message, self.asked = peer.message, peer.asked
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE)
        self.is_reset = self.is_refused = False
        try:
            self.socket.connect((HOST, port))
        except ConnectionRefusedError:
            self.is_refused = True
        except ConnectionResetError:
            # Accepted and reset before connect had returned: which call says so is chance.
            self.is_reset = True

    def is_served(self) -> bool:
        """Whether a round trip succeeds; False if the server ended the connection instead."""
        if self.is_reset or self.is_refused:
            return False
        try:
            self.socket.sendall(self.question)
            return self.socket.recv(100) == self.answer
        except (ConnectionResetError, BrokenPipeError):
            return False

    def policy(self) -> Policy:
        """What the server does with a client that waits without a word."""
        if self.is_refused:
            return Policy.REFUSED
        if self.is_reset:
            return Policy.RST
        if self.asked:
            self.socket.sendall(self.question)
        self.socket.settimeout(SILENCE if not self.message else DEADLINE)
        try:
            data = self.socket.recv(100)
        except ConnectionResetError:
            return Policy.RST
        except TimeoutError:
            return Policy.QUEUE
        if not data:
            return Policy.FIN
        assert data.startswith(self.message), data
        while self.socket.recv(100):
            pass  # until its end
        return Policy.MESSAGE

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(params=list(PEERS))
def peer(request: pytest.FixtureRequest) -> Peer:
    found = PEERS[request.param]
    try:
        found.find()
    except Missing as error:
        missing(f"{found.name}: {error}", error.install)
    return found


@pytest.fixture
def running(peer: Peer) -> Iterator[Running]:
    with start(peer, CAP) as started:
        yield started


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    found = Oracle()
    yield found
    found.close()


class Clients:
    """Opens clients and closes those that are left."""

    def __init__(self, peer: Peer, port: int) -> None:
        self.peer = peer
        self.port = port
        self.opened: list[Client] = []

    def connect(self) -> Client:
        client = Client(self.peer, self.port)
        self.opened.append(client)
        return client

    def held(self) -> list[Client]:
        """Take every slot with a client that is proven to be served."""
        holders = [self.connect() for _ in range(self.peer.capacity(CAP) or CAP)]
        assert all(client.is_served() for client in holders)
        return holders


@pytest.fixture
def clients(peer: Peer, running: Running) -> Iterator[Clients]:
    made = Clients(peer, running.port)
    yield made
    for client in made.opened:
        client.close()


def test_client_beyond_the_cap_sees_the_stated_policy(
    peer: Peer, clients: Clients, oracle: Oracle
) -> None:
    clients.held()
    extra = clients.connect()
    if peer.policy is Policy.UNLIMITED:
        assert extra.is_served()
        return
    assert extra.policy() is peer.policy
    if peer.policy is Policy.QUEUE:
        (listener,) = oracle.listeners(clients.port)
        assert listener.waiting == 1
        assert oracle.accepted((HOST, clients.port), extra.socket.getsockname()) is False


def test_listeners_queue_is_as_long_as_that_of_the_others(running: Running, oracle: Oracle) -> None:
    (listener,) = oracle.listeners(running.port)
    assert listener.backlog == system_backlog()


def test_freed_slot_serves_the_next_client(peer: Peer, clients: Clients) -> None:
    holders = clients.held()
    waiting = clients.connect() if peer.policy is Policy.QUEUE else None
    holders[0].close()
    if waiting is not None:
        assert waiting.is_served()
        return
    # When the slot comes back is what is measured elsewhere: here only that it does.
    assert wait_until(lambda: clients.connect().is_served(), DEADLINE)
    assert all(client.is_served() for client in holders[1:])


def test_stopping_leaves_no_process_and_no_listener(peer: Peer, oracle: Oracle) -> None:
    with start(peer, CAP) as running:
        client = Client(peer, running.port)
        served = client.is_served()
        pids = [running.pid] + ([running.backend.pid] if running.backend else [])
    client.close()
    assert served
    assert [member for pid in pids for member in session_members(pid)] == []
    assert oracle.listeners(running.port) == []
    assert running.process.returncode is not None
    assert running.process.returncode != -signal.SIGKILL, "it had to be killed"


class Dies(PythonPeer):
    name = "dies"
    server = "no_such_server"


class NeverListens(PythonPeer):
    name = "never-listens"

    def render(self, site: Site) -> Launch:
        return Launch([sys.executable, "-c", "import signal; signal.pause()"])


def test_peer_that_ends_at_its_start_is_reported_with_its_last_words() -> None:
    gevent.subprocess.run(["true"], check=True)  # from here on its loop watches children
    with pytest.raises(PeerFailed, match=r"ended with 1(.|\n)*no_such_server"), start(Dies(), CAP):
        pass


def test_peer_that_never_listens_is_given_up_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    stop = Running.stop

    def stop_and_note(running: Running) -> None:
        stop(running)
        ended.append(running.pid)

    monkeypatch.setattr(Running, "stop", stop_and_note)
    brief = start(NeverListens(), CAP, timeout=0.2)
    with pytest.raises(PeerFailed, match="doesn't listen"), brief:
        pass
    assert len(ended) == 1
    assert session_members(ended[0]) == []


class Stubborn(PythonPeer):
    """Ignores SIGTERM, and has a child that does too."""

    name = "stubborn"

    def render(self, site: Site) -> Launch:
        program = (
            "import os, signal, socket;"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "os.fork();"
            f"s = socket.create_server(('{HOST}', {site.port}), reuse_port=True);"
            "signal.pause()"
        )
        return Launch([sys.executable, "-c", program])


def test_peer_that_ignores_sigterm_is_killed_with_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.peers.process.STOP_TIMEOUT", 0.2)
    with start(Stubborn(), CAP) as running:
        assert wait_until(lambda: len(session_members(running.pid)) == 2, DEADLINE)
    assert session_members(running.pid) == []


def test_peers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    program = (
        "from bench.peers import PEERS, start\n"
        "import signal\n"
        "with start(PEERS['sequential'], 1) as running:\n"
        "    print(running.pid, flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert session_members(pid) == [pid]
        starter.kill()
    try:
        assert wait_until(lambda: not session_members(pid), DEADLINE)
    finally:
        for left in session_members(pid):
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("name", list(PEERS))
def test_every_peer_says_what_its_cap_counts(name: str) -> None:
    peer = PEERS[name]
    assert peer.name == name
    assert peer.title
    assert peer.counts
    assert peer.profile in PROBES
    assert (peer.policy is Policy.MESSAGE) == bool(peer.message)
    if peer.policy is not Policy.UNLIMITED:
        assert peer.capacity(CAP) in (CAP, 1)
