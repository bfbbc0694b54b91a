"""What a figure's reader must know of the machine and the run: stands in every result."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import gevent

__all__ = ["SYSCTLS", "capture"]

#: The settings that move figures about connections.
SYSCTLS = (
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
)


def capture(words: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the environment, ready for JSON. ``words`` are those after ``python -m bench``.

    Nothing that names the machine or a person is in it: no host name, no path, no user.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "command": ["python", "-m", "bench", *words],
        "seed": seed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "sysctls": {name: sysctl(name) for name in SYSCTLS},
        "cpu": {
            "model": cpu_model(),
            "online": os.cpu_count(),
            "allowed": sorted(os.sched_getaffinity(0)),
            "load_average": os.getloadavg(),
        },
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "descriptors": {"soft": soft, "hard": hard},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "gevent": gevent.__version__,
        "event_loop": type(gevent.get_hub().loop).__module__,
        "gserver": installed("gserver"),
    }


def sysctl(name: str) -> str | None:
    """Return a sysctl's value as text; None where this kernel or namespace has none."""
    try:
        text = Path("/proc/sys", *name.split(".")).read_text()
    except OSError:
        return None
    return " ".join(text.split())


def cpu_model() -> str:
    """Return the processor's name, or its architecture where the kernel tells no name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def installed(distribution: str) -> str | None:
    """Return the installed version; None when it is run from its source tree."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
