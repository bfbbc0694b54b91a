"""The article's two servers in Rust with Tokio, and one that waits (``bench/peers/tokio/``)."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from bench.peers.base import (
    HOST,
    ROOT,
    Launch,
    Missing,
    Peer,
    Policy,
    Site,
    Unbuilt,
    first_line,
)

CRATE = Path(__file__).resolve().parent / "tokio"
PROGRAM = CRATE / "target" / "release" / "tokio-limit"

#: Where Debian's librust-*-dev packages lay their crates (bench/peers/tokio/.cargo/config.toml).
REGISTRY = Path("/usr/share/cargo/registry")

INSTALL = "apt-get install cargo librust-tokio-dev"

#: Seconds; 8 s on two cores.
BUILD_TIMEOUT = 300.0


def newest(paths: list[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


def build() -> None:
    """Build the program offline unless it is newer than its source. Says so: it takes a while.

    Raises :class:`Missing` without cargo or Debian's crates, and :class:`Unbuilt` with the
    compiler's words when the build fails or takes too long.
    """
    sources = [CRATE / "Cargo.toml", CRATE / "src" / "main.rs"]
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= newest(sources):
        return
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Missing("cargo", INSTALL)
    if not any(REGISTRY.glob("tokio-1.*")):
        raise Missing(f"the tokio crate under {REGISTRY}", INSTALL)
    why = fault(cargo)
    if why:
        raise Unbuilt(str(CRATE.relative_to(ROOT)), why, INSTALL)


@functools.cache  # for each of its peers
def fault(cargo: str) -> str:
    """Run the build; why it failed, "" when it did not."""
    print("building the Tokio servers, once: some 10 s", file=sys.stderr, flush=True)
    try:
        # In the crate's folder: cargo reads .cargo/config.toml from where it is started.
        done = subprocess.run(
            [cargo, "build", "--release", "--offline", "--quiet"],
            cwd=CRATE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=BUILD_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {BUILD_TIMEOUT:g} s"
    except OSError as error:
        return f"{cargo}: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.startswith("error")]
    return said[0] if said else f"cargo's exit status {done.returncode}"


class Tokio(Peer):
    """``try_acquire`` on a Semaphore in a task per connection; all on one thread."""

    name = "tokio"
    title = "Tokio Semaphore, try_acquire (article, Rust), 1 thread"
    policy = Policy.FIN
    counts = "permits of one Semaphore: connections whose task is echoing"
    threads: ClassVar[int] = 1

    def find(self) -> None:
        build()

    def mode(self, cap: int) -> list[str]:
        """Return what the program is to be: its last words."""
        return ["reject", str(cap)]

    def render(self, site: Site) -> Launch:
        where = [f"{HOST}:{site.port}", str(site.backlog), str(self.threads)]
        return Launch([str(PROGRAM), *where, *self.mode(site.cap)])

    def version(self) -> str:
        tokio = sorted(path.name for path in REGISTRY.glob("tokio-1.*"))[-1]
        if shutil.which("rustc") is None:  # built before, and the compiler is gone
            return tokio
        return f"{tokio}, {first_line(['rustc', '--version'])}"


class TokioThreads(Tokio):
    """The article's own: ``#[tokio::main]`` makes a thread for each processor."""

    name = "tokio-threads"
    title = "Tokio Semaphore, try_acquire (article, Rust), 2 threads"
    threads = 2


class TokioWait(Tokio):
    """A permit before each accept: without one it stops accepting."""

    name = "tokio-wait"
    title = "Tokio Semaphore acquired before accept (Rust), 1 thread"
    policy = Policy.QUEUE
    counts = "permits of one Semaphore: taken before accept, back after the close"

    def mode(self, cap: int) -> list[str]:
        return ["wait", str(cap)]


class TokioSequential(Tokio):
    """The article's first server as its author wrote it: one client at a time."""

    name = "tokio-sequential"
    title = "Sequential (article, Rust)"
    policy = Policy.QUEUE
    counts = "nothing: one client is served at a time, whatever cap is asked for"

    def capacity(self, cap: int) -> int:
        return 1

    def mode(self, cap: int) -> list[str]:
        return ["sequential"]
