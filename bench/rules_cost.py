"""What the gate's decisions cost: µs each, and bytes for each source remembered.

    python bench/rules_cost.py [--sources 1000000]

Runs without sockets: the decision alone, with the source made of the address as the engine does.
For each set of rules it prints the µs of CPU per attempt of

* ``one``: one client that comes again and again,
* ``flood``: ``--sources`` clients, each from a source of its own,

both against a full server (every verdict is a rejection), and the time of the slowest thousand
attempts in a row of the flood, which shows whether a bound makes single attempts slow.
Then the memory that a flood leaves in the tables, by tracemalloc.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import platform
import time
import timeit
import tracemalloc
from collections.abc import Callable, Iterator

from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.recovering import Recovering
from gserver.admission.sources import ANY, Sources

CAP = 100
TABLE = Limits(max_connections=1).source_table
#: A flood's attempts come 10 µs apart, about as fast as one process can reject.
APART = 1e-5

Address = tuple[str, int] | tuple[str, int, int, int]

NETWORKS = [f"198.{i}.0.0/16" for i in range(100)] + [f"2001:db9:{i:x}::/48" for i in range(100)]
RULES: dict[str, Limits | None] = {
    "bare cap": None,
    "per_source": Limits(max_connections=CAP, per_source=10),
    "source_rate": Limits(max_connections=CAP, source_rate=10, source_rate_burst=20),
    "both": Limits(max_connections=CAP, per_source=10, source_rate=10, source_rate_burst=20),
    "both, table never recovers": Limits(max_connections=CAP, per_source=10, source_rate=0.001),
    "all": Limits(
        max_connections=CAP,
        reserved=5,
        reserved_for=NETWORKS[:50],
        per_source=10,
        source_exempt=NETWORKS[50:],
        rate=1e6,
        source_rate=10,
        allow=["all"],
        deny=NETWORKS,
        early_drop="80:30:100",
        penalty=5,
    ),
}


def v4(n: int) -> Address:
    return f"{10 + (n >> 24)}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 50_000


def v4_mapped(n: int) -> Address:
    return f"::ffff:{v4(n)[0]}", 50_000, 0, 0


def v6(n: int) -> Address:
    return f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}:a1b2:c3d4:e5f6:{n & 0xFFF:x}", 50_000, 0, 0


def gate_of(limits: Limits | None) -> Gate:
    return Gate(CAP) if limits is None else Gate.from_limits(limits)


def attempts(gate: Gate, addresses: Iterator[Address], count: int) -> Iterator[float]:
    """Run ``count`` attempts against a full server; yield seconds for each thousand."""
    decide, source_of, needs_source = gate.decide, gate.source, gate.needs_source
    now = 1e6
    for _ in range(count // 1000):
        batch = [next(addresses) for _ in range(1000)]
        started = time.perf_counter()
        for address in batch:
            now += APART
            decide(source_of(address) if needs_source else ANY, now, in_use=CAP)
        yield time.perf_counter() - started


def same(address: Address) -> Iterator[Address]:
    while True:
        yield address


def each(make: Callable[[int], Address]) -> Iterator[Address]:
    n = 0
    while True:
        yield make(n)
        n += 1


def cost(limits: Limits | None, make: Callable[[int], Address], sources: int) -> str:
    gate = gate_of(limits)
    one = list(attempts(gate, same(make(7)), 100_000))
    flood = list(attempts(gate, each(make), sources))
    slowest = max(flood) * 1e3
    return (
        f"{sum(one) / 0.1:6.2f} {sum(flood) * 1e6 / (len(flood) * 1000):6.2f} "
        f"{slowest:9.2f}  {gate.figures().sources_remembered:7d} "
        f"{gate.figures().source_rate_overflow:9d}"
    )


def memory(limits: Limits, sources: int) -> None:
    gc.collect()
    tracemalloc.start()
    gate = Gate.from_limits(limits)
    before = tracemalloc.get_traced_memory()[0]
    peaks = []
    for step in range(1, 5):
        flood = each(lambda n, step=step: v6(n + step * sources // 4))  # type: ignore[misc]
        for _ in attempts(gate, flood, sources // 4):
            pass
        peaks.append(tracemalloc.get_traced_memory()[0] - before)
    held = gate.figures().sources_remembered
    tracemalloc.stop()
    print(
        f"{limits.source_table:7d} {held:7d} "
        + " ".join(f"{peak / 2**20:6.1f}" for peak in peaks)
        + f"  {peaks[-1] / held:5.0f}"
    )


def microseconds(call: Callable[[], object]) -> float:
    number = 100_000
    return min(timeit.repeat(call, number=number, repeat=3)) * 1e6 / number


def parsing() -> None:
    for make in (v4, v4_mapped, v6):
        address = make(123_456)
        host = address[0]
        sources = Sources()
        print(
            f"{host:40} new {microseconds(lambda s=sources, h=host: s._make(h)):5.2f}"
            f"  known {microseconds(lambda s=sources, a=address: s.of(a)):5.2f}"
            f"  ipaddress {microseconds(lambda h=host: ipaddress.ip_address(h)):5.2f}"
        )


def table() -> None:
    recovering = Recovering(TABLE, 1.0)
    names = [f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::/64" for n in range(2 * TABLE)]
    started = time.perf_counter()
    for i, name in enumerate(names):
        recovering.put(name, i * 1e-3 + 30.0, i * 1e-3)
    print(f"put of a new source: {(time.perf_counter() - started) * 1e6 / len(names):.2f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=1_000_000)
    sources = parser.parse_args().sources
    print(f"Python {platform.python_version()}, {sources} distinct sources, cap {CAP}, full\n")

    print("the source of an address, µs")
    parsing()
    table()

    print("\nan attempt, µs (source and verdict)")
    print(f"{'':34}{'one':>6} {'flood':>6} {'slowest':>9}  {'in the':>7} {'in the over-':>9}")
    print(f"{'rules':34}{'µs':>6} {'µs':>6} {'1000, ms':>9}  {'table':>7} {'flow bucket':>9}")
    for name, limits in RULES.items():
        for family, make in (("IPv4", v4), ("IPv6", v6)):
            print(f"{name + ', ' + family:34}{cost(limits, make, sources)}")

    print("\nmemory after each quarter of a flood of IPv6 sources that never recover, MiB")
    print("  bound    held     1/4    2/4    3/4    4/4  bytes each")
    for bound in (1024, TABLE):
        memory(Limits(max_connections=CAP, source_rate=0.001, source_table=bound), sources)


if __name__ == "__main__":
    main()
