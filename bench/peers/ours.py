"""gserver itself, by its command line: the daemon with the built-in echo handler."""

from __future__ import annotations

import functools
import subprocess
import sys
from importlib import metadata
from typing import ClassVar

from bench.peers.base import HOST, ROOT, Launch, Missing, Peer, Policy, Site
from gserver.probe.version import version

COMMAND = [sys.executable, "-m", "gserver", "serve"]


@functools.cache
def starts() -> bool:
    """Whether ``gserver serve`` runs here; asked once, it loads the whole daemon."""
    done = subprocess.run([*COMMAND, "--help"], cwd=ROOT, capture_output=True, timeout=30)
    return done.returncode == 0


class GserverClose(Peer):
    name = "gserver-close"
    title = "gserver, close"
    policy = Policy.FIN
    counts = "greenlets in the server's pool: from the verdict to after the close of the socket"
    rejection: ClassVar[str] = "close"

    def find(self) -> None:
        if not starts():
            raise Missing("the command gserver serve", "pip install gserver")

    def render(self, site: Site) -> Launch:
        listen = ["--listen", f"{HOST}:{site.port}", "--max-connections", str(site.cap)]
        # Ended with clients still connected, it has nobody to wait for.
        ending = ["--drain-timeout", "0.5"]
        return Launch([*COMMAND, "echo", *listen, *ending, "--reject", self.rejection])

    def version(self) -> str:
        return f"gserver {version()}, gevent {metadata.version('gevent')}"


class GserverReset(GserverClose):
    name = "gserver-reset"
    title = "gserver, reset"
    policy = Policy.RST
    rejection = "reset"


class GserverReply(GserverClose):
    """A busy message in HTTP, where a server says nothing before it was asked."""

    name = "gserver-reply"
    title = "gserver, reply (HTTP 503, after the client's first byte)"
    policy = Policy.MESSAGE
    rejection = "reply:http"
    message = b"HTTP/1.1 503 "
    asked = True


class GserverReplyRedis(GserverReply):
    """One of a protocol in which a server may speak at once: beside Redis itself."""

    name = "gserver-reply-redis"
    title = "gserver, reply (Redis's error, at once)"
    rejection = "reply:redis"
    message = b"-ERR max number of clients"
    asked = False


class GserverRefuse(GserverClose):
    """While it is full its port is shut; queued already, a client is reset."""

    name = "gserver-refuse"
    title = "gserver, refuse"
    policy = Policy.REFUSED
    rejection = "refuse"
