"""What a peer is: a server with a connection limit, described well enough to start and to judge.

A peer says how it is found (or installed), how its configuration is rendered for a port and a cap,
what its clients see at the cap, and what exactly its cap counts. Starting and stopping is the same
for all of them and lives in :mod:`bench.peers.process`.
"""

from __future__ import annotations

import enum
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

__all__ = [
    "HOST",
    "ROOT",
    "Launch",
    "Missing",
    "Peer",
    "Policy",
    "ProgramPeer",
    "PythonPeer",
    "Site",
    "Unbuilt",
    "first_line",
]

#: Load goes to loopback only.
HOST = "127.0.0.1"

#: The repository: the Python servers run from here, so that ``bench`` and ``gserver`` import.
ROOT = Path(__file__).resolve().parents[2]


class Policy(enum.StrEnum):
    """What the client after the last slot sees."""

    FIN = "fin"
    RST = "rst"
    MESSAGE = "message"  # some bytes, then FIN
    REFUSED = "refused"  # no handshake: the kernel answers the SYN with RST
    QUEUE = "queue"  # connected, and nobody answers until a slot frees
    UNLIMITED = "unlimited"  # served: there is no cap


class Missing(Exception):
    """A peer that isn't installed.

    ``str()`` says what is missing; ``install`` is the line that brings it.
    """

    def __init__(self, what: str, install: str) -> None:
        super().__init__(f"{what} is missing: {install}")
        self.install = install


class Unbuilt(Missing):
    """A peer whose source is here and cannot be built; ``str()`` says why."""

    def __init__(self, what: str, why: str, install: str) -> None:
        super().__init__(what, install)
        self.args = (f"{what} could not be built: {why}",)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a peer is to run: rendered into its configuration.

    ``backlog`` is the length of its listener's queue: the same for all, or a burst would measure
    defaults (5 of socketserver, 50 of Twisted, 4,096 of others).
    ``backend`` is the port of the echo server behind a proxy (0: the peer needs none);
    ``folder`` is an existing directory of its own for configuration and scratch files.
    """

    port: int
    cap: int
    folder: Path
    backlog: int
    backend: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """A rendered peer: its command line, and the files that must exist before it starts."""

    argv: list[str]
    files: Mapping[Path, str] = field(default_factory=dict)


class Peer:
    """One server. Subclasses fill in the class variables, :meth:`find` and :meth:`render`."""

    #: Its name on the command line and in results.
    name: ClassVar[str]
    #: Its row's label in reports.
    title: ClassVar[str]
    #: What a client sees at the cap.
    policy: ClassVar[Policy]
    #: How a client gets an answer out of it, in the probe's word: ``echo`` or ``redis``.
    profile: ClassVar[str] = "echo"
    #: What the cap counts, and where, in one sentence.
    counts: ClassVar[str]
    #: Whether it forwards to an echo server that has to be started too.
    needs_backend: ClassVar[bool] = False
    #: The first bytes of its busy message (for :attr:`Policy.MESSAGE`).
    message: ClassVar[bytes] = b""
    #: Whether that comes only when the client has said something: its latency then holds the time
    #: for which the client listens first, and is not compared with others.
    asked: ClassVar[bool] = False

    def find(self) -> None:
        """Return if the peer can be started here, else raise :class:`Missing`."""
        raise NotImplementedError

    def render(self, site: Site) -> Launch:
        """Return the command line and configuration for ``site``. Touches nothing."""
        raise NotImplementedError

    @property
    def group(self) -> str:
        """The name of those whose clients are told in the same way, and may be compared."""
        return f"{self.policy}, asked" if self.asked else self.policy

    def capacity(self, cap: int) -> int | None:
        """Return how many clients are served at once when asked for ``cap``; None: no limit."""
        return None if self.policy is Policy.UNLIMITED else cap

    def version(self) -> str:
        """Return the version for the report's environment. Call after :meth:`find`."""
        raise NotImplementedError


class ProgramPeer(Peer):
    """A program of its own, from a distribution's package."""

    program: ClassVar[str]
    install: ClassVar[str]
    version_flag: ClassVar[str] = "-v"

    def path(self) -> str:
        """Return the program's path; raise :class:`Missing` without it.

        Debian keeps daemons in /usr/sbin, which an ordinary user's PATH leaves out.
        """
        path = shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/sbin")
        if path is None:
            raise Missing(self.program, self.install)
        return path

    def find(self) -> None:
        self.path()

    def version(self) -> str:
        return first_line([self.path(), self.version_flag])


class PythonPeer(Peer):
    """A server in ``bench/peers/servers/``, run by this interpreter."""

    #: The module under ``bench.peers.servers``.
    server: ClassVar[str]
    #: The distribution on PyPI that it stands on; "" for the standard library alone.
    #: Its import name is the same in lower case.
    distribution: ClassVar[str] = ""

    def find(self) -> None:
        if self.distribution and find_spec(self.distribution.lower()) is None:
            raise Missing(
                f"the Python module {self.distribution.lower()}",
                f"pip install {self.distribution}",
            )

    def render(self, site: Site) -> Launch:
        module = f"bench.peers.servers.{self.server}"
        numbers = {
            "--port": site.port,
            "--max-connections": site.cap,
            "--backlog": site.backlog,
        }
        words = [word for name, value in numbers.items() for word in (name, str(value))]
        return Launch([sys.executable, "-m", module, *words])

    def version(self) -> str:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        if not self.distribution:
            return python
        return f"{self.distribution} {metadata.version(self.distribution)}, {python}"


def first_line(argv: list[str]) -> str:
    """Return the first line that ``argv`` prints, on either stream: a program's version."""
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=True
    )
    return done.stdout.strip().partition("\n")[0]
