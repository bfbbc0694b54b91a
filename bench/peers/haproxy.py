"""HAProxy both ways: ``maxconn``, which queues, and a ``tcp-request connection reject`` rule.

One thread, no logs, in front of an echo server. A rejection involves HAProxy alone; the echo of an
admitted client passes through two processes, and so does the memory of a held connection.
"""

from __future__ import annotations

from typing import ClassVar

from bench.peers.base import HOST, Launch, Policy, ProgramPeer, Site

CONFIG = """\
global
    nbthread 1
    maxconn {total}

defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h

frontend limited
    bind {host}:{port}
    backlog {backlog}
    {limit}
    default_backend echo

backend echo
    server echo {host}:{backend}
"""

#: Connections that HAProxy as a whole may hold beyond the cap: those it is about to reject.
HEADROOM = 1000


class HAProxyMaxconn(ProgramPeer):
    name = "haproxy-maxconn"
    title = "HAProxy maxconn"
    policy = Policy.QUEUE
    program = "haproxy"
    install = "apt-get install haproxy"
    counts = "the frontend's connections; at maxconn its listener stops accepting"
    needs_backend = True
    limit: ClassVar[str] = "maxconn {cap}"

    def render(self, site: Site) -> Launch:
        path = site.folder / "haproxy.cfg"
        text = CONFIG.format(
            host=HOST,
            port=site.port,
            backlog=site.backlog,
            backend=site.backend,
            limit=self.limit.format(cap=site.cap),
            total=site.cap + HEADROOM,
        )
        return Launch([self.path(), "-db", "-f", str(path)], {path: text})


class HAProxyReject(HAProxyMaxconn):
    name = "haproxy-reject"
    title = "HAProxy tcp-request connection reject"
    policy = Policy.RST
    counts = "fe_conn, the frontend's connections, with the one being judged among them"
    limit = "tcp-request connection reject if {{ fe_conn gt {cap} }}"
