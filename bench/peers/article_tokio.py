"""The article's two servers in Rust with Tokio (``bench/peers/tokio/``)."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from bench.peers.base import HOST, Launch, Missing, Peer, Policy, Site, first_line

CRATE = Path(__file__).parent / "tokio"
PROGRAM = CRATE / "target" / "release" / "tokio-limit"

#: Where Debian's librust-*-dev packages lay their crates (bench/peers/tokio/.cargo/config.toml).
REGISTRY = Path("/usr/share/cargo/registry")

INSTALL = "apt-get install cargo librust-tokio-dev"

#: Seconds; 8 s on two cores.
BUILD_TIMEOUT = 300.0


def newest(paths: list[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


@functools.cache
def build() -> None:
    """Build the program offline unless it is newer than its source.

    Raises :class:`Missing` without cargo or Debian's crates, and
    :class:`subprocess.CalledProcessError` with the compiler's words when the build fails.
    """
    sources = [CRATE / "Cargo.toml", CRATE / "src" / "main.rs"]
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= newest(sources):
        return
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Missing("cargo", INSTALL)
    if not any(REGISTRY.glob("tokio-1.*")):
        raise Missing(f"the tokio crate under {REGISTRY}", INSTALL)
    # In the crate's folder: cargo reads .cargo/config.toml from where it is started.
    subprocess.run(
        [cargo, "build", "--release", "--offline", "--quiet"],
        cwd=CRATE,
        check=True,
        timeout=BUILD_TIMEOUT,
    )


class Tokio(Peer):
    """``try_acquire`` on a Semaphore in a task per connection; all on one thread."""

    name = "tokio"
    title = "Tokio Semaphore (article, Rust), 1 thread"
    policy = Policy.FIN
    counts = "permits of one Semaphore: connections whose task is echoing"
    options: ClassVar[tuple[str, ...]] = ()

    def find(self) -> None:
        build()

    def render(self, site: Site) -> Launch:
        listen = ["--listen", f"{HOST}:{site.port}", "--max-connections", str(site.cap)]
        return Launch([str(PROGRAM), *listen, *self.options])

    def version(self) -> str:
        tokio = sorted(path.name for path in REGISTRY.glob("tokio-1.*"))[-1]
        return f"{tokio}, {first_line(['rustc', '--version'])}"


class TokioThreads(Tokio):
    name = "tokio-threads"
    title = "Tokio Semaphore (article, Rust), 2 threads"
    options = ("--threads", "2")


class TokioSequential(Tokio):
    """The article's first server as its author wrote it: one client at a time."""

    name = "tokio-sequential"
    title = "Sequential (article, Rust)"
    policy = Policy.QUEUE
    counts = "nothing: one client is served at a time, whatever cap is asked for"

    def capacity(self, cap: int) -> int:
        return 1

    def render(self, site: Site) -> Launch:
        return Launch([str(PROGRAM), "--listen", f"{HOST}:{site.port}", "--sequential"])
