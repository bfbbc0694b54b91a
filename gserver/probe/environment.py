"""Where a run took place: what a reader needs to judge a figure or to repeat it."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["environment"]

_SYSCTLS = (
    "net.core.somaxconn",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.ip_local_port_range",
)


def environment(arguments: list[str], seed: int | None = None) -> dict[str, Any]:
    """Kernel, sysctls, processors, versions, load, seed and command line, for JSON."""
    return {
        "command_line": arguments,
        "seed": seed,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": list(os.getloadavg()),
        "python": sys.version.split()[0],
        "gevent": metadata.version("gevent"),
        "sysctls": {name: _sysctl(name) for name in _SYSCTLS},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip().replace("\t", " ")
    except OSError:
        return None
