"""What the gate's decisions cost: µs each, and bytes for each source remembered.

    python -m bench rules-cost [--sources 1000000] [--json FILE]

Runs without sockets: the decision alone, with the source made of the address as the engine does.
For each set of rules it prints the µs of CPU per attempt of

* ``one``: one client that comes again and again,
* ``flood``: ``--sources`` clients, each from a source of its own,

both against a full server (every verdict is a rejection), and the time of the slowest thousand
attempts in a row of the flood, which shows whether a bound makes single attempts slow.
Then the memory that a flood leaves in the tables, by tracemalloc.
"""

from __future__ import annotations

import gc
import ipaddress
import time
import timeit
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import click

from bench.costs import Sheet, cost
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


def decision(limits: Limits | None, make: Callable[[int], Address], sources: int) -> dict[str, Any]:
    gate = gate_of(limits)
    one = list(attempts(gate, same(make(7)), 100_000))
    flood = list(attempts(gate, each(make), sources))
    return {
        "one_us": sum(one) / 0.1,
        "flood_us": sum(flood) * 1e6 / (len(flood) * 1000),
        "slowest_1000_ms": max(flood) * 1e3,
        "in_table": gate.figures().sources_remembered,
        "in_overflow": gate.figures().source_rate_overflow,
    }


def memory(sheet: Sheet, limits: Limits, sources: int) -> None:
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
    sheet.row(
        f"{limits.source_table:7d} {held:7d} "
        + " ".join(f"{peak / 2**20:6.1f}" for peak in peaks)
        + f"  {peaks[-1] / held:5.0f}",
        bound=limits.source_table,
        held=held,
        quarters_bytes=peaks,
        bytes_each=peaks[-1] / held,
    )


def microseconds(call: Callable[[], object]) -> float:
    number = 100_000
    return min(timeit.repeat(call, number=number, repeat=3)) * 1e6 / number


def parsing(sheet: Sheet) -> None:
    for make in (v4, v4_mapped, v6):
        address = make(123_456)
        host = address[0]
        sources = Sources()
        new = microseconds(lambda s=sources, h=host: s._make(h))  # type: ignore[misc]
        known = microseconds(lambda s=sources, a=address: s.of(a))  # type: ignore[misc]
        module = microseconds(lambda h=host: ipaddress.ip_address(h))  # type: ignore[misc]
        sheet.row(
            f"{host:40} new {new:5.2f}  known {known:5.2f}  ipaddress {module:5.2f}",
            address=host,
            new_us=new,
            known_us=known,
            ipaddress_us=module,
        )


def table(sheet: Sheet) -> None:
    recovering = Recovering(TABLE, 1.0)
    names = [f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::/64" for n in range(2 * TABLE)]
    started = time.perf_counter()
    for i, name in enumerate(names):
        recovering.put(name, i * 1e-3 + 30.0, i * 1e-3)
    each_us = (time.perf_counter() - started) * 1e6 / len(names)
    sheet.row(f"put of a new source: {each_us:.2f} µs", put_us=each_us)


@cost("rules-cost", lambda sources: 12 + sources * 1.2e-4)
@click.option("--sources", type=click.IntRange(1_000), default=1_000_000, show_default=True)
def main(sheet: Sheet, sources: int) -> None:
    """The gate's decisions, and the memory of the sources that it remembers. No sockets."""
    sheet.say(f"{sources:,} distinct sources, cap {CAP}, full\n\nthe source of an address, µs")
    sheet.tell("addresses")
    parsing(sheet)
    table(sheet)

    sheet.say("\nan attempt, µs (source and verdict)")
    sheet.say(f"{'':34}{'one':>6} {'flood':>6} {'slowest':>9}  {'in the':>7} {'in the over-':>9}")
    sheet.say(f"{'rules':34}{'µs':>6} {'µs':>6} {'1000, ms':>9}  {'table':>7} {'flow bucket':>9}")
    for name, limits in RULES.items():
        for family, make in (("IPv4", v4), ("IPv6", v6)):
            sheet.tell(f"{name}, {family}")
            found = decision(limits, make, sources)
            text = (
                f"{name + ', ' + family:34}{found['one_us']:6.2f} {found['flood_us']:6.2f} "
                f"{found['slowest_1000_ms']:9.2f}  {found['in_table']:7d} "
                f"{found['in_overflow']:9d}"
            )
            sheet.row(text, rules=name, family=family, **found)

    sheet.say("\nmemory after each quarter of a flood of IPv6 sources that never recover, MiB")
    sheet.say("  bound    held     1/4    2/4    3/4    4/4  bytes each")
    for bound in (1024, TABLE):
        sheet.tell(f"memory, a table of {bound:,}")
        limits = Limits(max_connections=CAP, source_rate=0.001, source_table=bound)
        memory(sheet, limits, sources)


if __name__ == "__main__":
    main()
