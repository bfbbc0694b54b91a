"""Starting a peer, knowing when it listens, and ending it: by the pid we kept, whatever happened.

A peer runs in the foreground, in a session of its own, and the kernel sends it SIGTERM when the
thread that started it ends, so that an interrupted run leaves no server behind.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import gevent

# Not the standard library's: from the first child that gevent's loop is asked to watch, as the
# probe's are, libev takes the exit status of every child of the process.
from gevent import subprocess

from bench.peers.base import HOST, ROOT, Launch, Missing, Peer, PythonPeer, Site
from gserver.net.listeners import system_backlog
from gserver.probe.oracle import Oracle
from gserver.probe.procstat import listening_process, process_tree

__all__ = ["PeerFailed", "Running", "session_members", "start"]

#: Seconds until a peer must listen. Envoy takes the longest: below 1 s on two idle cores.
READY_TIMEOUT = 20.0

#: Seconds from SIGTERM to SIGKILL.
STOP_TIMEOUT = 5.0

#: Below net.ipv4.ip_local_port_range (32768 by default), so that no client of this machine can be
#: given the port between our looking and the peer's bind.
PORTS = range(20_000, 30_000)


class PeerFailed(Exception):
    """A peer ended, or didn't listen in time. ``str()`` ends with the last lines it printed."""


class EchoBackend(PythonPeer):
    """The echo server behind the proxies."""

    name = "echo-backend"
    title = "echo server behind a proxy"
    server = "echo_backend"


class Running:
    """A started peer: ``pid`` (of its session too), ``port``, and ``backend`` (None: none)."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, log: Path, backend: Running | None
    ) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.backend = backend
        self._log = log

    def wait_ready(self, timeout: float) -> None:
        """Return when the peer listens on its port; raise :class:`PeerFailed` if it never does.

        Asks the kernel and connects to nothing: a connection would take a slot. Another's listener
        there is none: that one was faster, and what was started here is about to end.
        """
        oracle = Oracle()
        try:
            wait_until(lambda: self._has_ended() or self._listens(oracle), timeout)
            if not self._has_ended() and self._listens(oracle):
                return
        finally:
            oracle.close()
        fate = f"ended with {self.process.poll()}" if self._has_ended() else "doesn't listen"
        raise PeerFailed(f"{self.process.args!r} {fate}\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the last lines that the peer printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])

    def stop(self) -> None:
        """End the peer and whatever it started: SIGTERM, later SIGKILL to its whole session."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        if not wait_until(lambda: not session_members(self.pid), 0.5):
            # Its process group has the pid for its id as long as a member lives.
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            # Its children, too, take a moment to end; they are not ours to wait for.
            wait_until(lambda: not session_members(self.pid), STOP_TIMEOUT)
        self.process.wait(STOP_TIMEOUT)

    def _listens(self, oracle: Oracle) -> bool:
        inodes = [listener.inode for listener in oracle.listeners(self.port)]
        return bool(inodes) and listening_process(inodes) in process_tree(self.pid)

    def _has_ended(self) -> bool:
        return self.process.poll() is not None


@contextmanager
def start(peer: Peer, cap: int, *, timeout: float = READY_TIMEOUT) -> Iterator[Running]:
    """Run ``peer`` with ``cap`` on a free port of loopback, and its echo backend if it needs one.

    Yields once it listens. At the end, also by an exception, every process is gone and the files
    are removed. Raises :class:`~bench.peers.base.Missing` before anything is started, and
    :class:`PeerFailed` when the peer doesn't come up within ``timeout`` seconds.
    """
    peer.find()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-")))
        backend = None
        if peer.needs_backend:
            backend = stack.enter_context(start(EchoBackend(), 0, timeout=timeout))
        behind = backend.port if backend else 0
        site = Site(free_port(), cap, folder, system_backlog(), behind)
        running = spawn(peer.render(site), site, backend)
        stack.callback(running.stop)
        running.wait_ready(timeout)
        yield running


def spawn(launch: Launch, site: Site, backend: Running | None) -> Running:
    """Write the files and start the command, in its own session, tied to this thread's life."""
    if threading.current_thread() is not threading.main_thread():
        # PR_SET_PDEATHSIG is about the thread that forked, not the process (prctl(2)).
        raise RuntimeError("peers are started from the main thread: they end when it ends")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise Missing("setpriv", "apt-get install util-linux")
    for path, text in launch.files.items():
        path.write_text(text)
    log = site.folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # Not a preexec_fn: that runs Python between fork and exec, where threads may hold
            # locks. The setting survives exec (prctl(2)).
            [setpriv, "--pdeathsig", "TERM", "--", *launch.argv],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(process, site.port, log, backend)


def free_port() -> int:
    """Return a port of loopback that nothing is bound to."""
    choose = random.SystemRandom()
    for _ in range(100):
        port = choose.choice(PORTS)
        with socket.socket() as candidate:
            # As the servers do: leftovers in TIME_WAIT don't count as taken.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return port
    raise PeerFailed(f"no free port among {PORTS.start}-{PORTS.stop}")


def session_members(session: int) -> list[int]:
    """Return the pids in ``session``, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue  # ended while we looked
        # The name, in brackets, may hold anything: the fields are counted from its end (proc(5)).
        state, _, _, its_session = text.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(int(folder.name))
    return found


def wait_until(happened: Callable[[], object], timeout: float) -> bool:
    """Ask ``happened`` every few milliseconds; return whether it came true within ``timeout``."""
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            return False
        gevent.sleep(0.01)  # not time's: a Ctrl-C of the run is heard by gevent's loop
    return True
