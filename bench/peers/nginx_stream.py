"""nginx's stream module with ``limit_conn``.

One worker, no log of rejections (``limit_conn_log_level`` below the error log's level: a line for
each would be part of its cost), in front of an echo server. A rejection involves nginx alone; the
echo of an admitted client passes through two processes.
"""

from __future__ import annotations

from pathlib import Path

from bench.peers.base import HOST, Launch, Missing, Policy, ProgramPeer, Site

CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
{load_module}
events {{
    worker_connections {total};
}}

stream {{
    limit_conn_zone $server_port zone=slots:64k;
    server {{
        listen {host}:{port} backlog={backlog};
        limit_conn slots {cap};
        limit_conn_log_level info;
        proxy_timeout 1h;
        proxy_pass {host}:{backend};
    }}
}}
"""

#: Debian ships the stream module as a dynamic one; nginx.org's packages have it built in.
MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

#: Connections a worker may hold beyond two for each slot: those it is about to reject.
HEADROOM = 1000


class NginxStream(ProgramPeer):
    name = "nginx"
    title = "nginx stream limit_conn"
    policy = Policy.FIN
    program = "nginx"
    install = "apt-get install nginx libnginx-mod-stream"
    counts = "sessions by $server_port, in shared memory, with the one being judged among them"
    needs_backend = True

    def find(self) -> None:
        super().find()
        if not MODULE.exists():
            raise Missing("nginx's stream module", self.install)

    def render(self, site: Site) -> Launch:
        path = site.folder / "nginx.conf"
        text = CONFIG.format(
            folder=site.folder,
            load_module=f"load_module {MODULE};",
            total=2 * site.cap + HEADROOM,
            host=HOST,
            port=site.port,
            backlog=site.backlog,
            cap=site.cap,
            backend=site.backend,
        )
        # -e: without it nginx opens the compiled-in log file before it has read its configuration.
        argv = [self.path(), "-e", "stderr", "-p", str(site.folder), "-c", str(path)]
        return Launch(argv, {path: text})
