"""Redis with ``maxclients``: the classic busy message."""

from __future__ import annotations

from bench.peers.base import HOST, Launch, Policy, ProgramPeer, Site


class RedisMaxclients(ProgramPeer):
    name = "redis"
    title = "Redis maxclients"
    policy = Policy.MESSAGE
    profile = "redis"
    program = "redis-server"
    install = "apt-get install redis-server"
    counts = "clients in the server's list, from accept to the freeing of the client"
    message = b"-ERR max number of clients"

    def render(self, site: Site) -> Launch:
        settings = {
            "bind": HOST,
            "port": str(site.port),
            "tcp-backlog": str(site.backlog),
            "maxclients": str(site.cap),
            "dir": str(site.folder),
            # Nothing on disk: a save when it is stopped would be measured as a slow end.
            "save": "",
            "appendonly": "no",
            "loglevel": "warning",
        }
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return Launch([self.path(), *options])
