"""What the README says of the cost scripts' results: Markdown from JSON. Pure.

Nothing is said that the figures do not.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from bench.flood import SOURCES
from bench.legacy_cost import TARGET_US, median_and_bounds, verdict
from bench.markdown import markdown, place
from bench.reject_cost import FLOOR_TARGET, RULES_TARGET, percentile
from bench.results import numbers_in, without_numbers

__all__ = ["capped", "costs", "rejecting", "rules"]


def rejecting(found: dict[str, Any]) -> str:
    """The tables of ``reject-cost``, whether its two targets are met, and whose echo is later."""
    rows = [row for row in found["rows"] if row["clients"] == "close"]
    others = [row for row in found["rows"] if row["clients"] == "reset"]
    head = ["held", "gserver", "floor", "ratio", "A/A", "rejected a second"]
    lines = []
    for row in rows:
        pair, same = row["pair"], row["same"]["ratios"]
        lines.append(
            [
                f"{row['held']:,}",
                f"{pair['us_a']:.1f} µs",
                f"{pair['us_b']:.1f} µs",
                f"{pair['ratio']:.2f}",
                f"{min(same):.2f}-{max(same):.2f}",
                f"{pair['rate_a']:,.0f}",
            ]
        )
    pairs = len(rows[0]["pair"]["ratios"])
    resets = ", ".join(f"{row['pair']['ratio']:.2f}" for row in others)
    rate = found.get("settings", {}).get("rate")
    # Without a rate: results from before it had one.
    load = f"{rate:,} a second" if rate else "32 at a time, as fast as one client process can"
    parts = [
        f"Medians of {pairs} interleaved ABBA pair{'s' * (pairs != 1)}, clients that close, "
        f"{load}; {place(found['environment'])}.",
        markdown(head, lines),
        f"Ratios with clients that reset: {resets}. {growth(rows)}"
        f"{target(found['rows'], FLOOR_TARGET, 'the floor')}",
        *echoes(found["rows"]),
    ]
    return "\n\n".join([*parts, *caveats(found)])


def echoes(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what an admitted client's echo took with and without the flood, beside the floor's,
    and then where ours took longer."""
    yield (
        "What an admitted client's echo took meanwhile, p50 / p99 in µs, and of how many; quiet is "
        "gserver without a flood. The floor's is of the blocks of the A/A, after ours."
    )
    head = ["held", "clients that", "quiet", "gserver, flooded", "floor, flooded"]
    lines = []
    later: dict[str, list[str]] = {}
    for row in rows:
        ours, floor = row["pair"]["echo_us_a"], row["same"]["echo_us_a"]
        where = [f"{row['held']:,}", row["clients"]]
        lines.append([*where, *map(echoed, (row["quiet_us"], ours, floor))])
        for name in ("p50", "p99"):
            if name in ours and name in floor and (times := ours[name] / floor[name]) >= 1.005:
                text = f"{' held, '.join(where)} ({times:.{2 if times < 10 else 0}f} times)"
                later.setdefault(name, []).append(text)
    yield markdown(head, lines)
    if later:
        said = "; ".join(f"{name} at {', '.join(texts)}" for name, texts in later.items())
        yield f"Longer than the floor's, though no A/A says how far an echo is from itself: {said}."
    else:
        yield "In none of them longer than the floor's."


def echoed(summary: dict[str, float]) -> str:
    """Return the median and the p99 of an echo, and of how many they are."""
    figures = " / ".join(percentile(summary, name) for name in ("p50", "p99"))
    return f"{figures} ({summary['n']:,.0f})"


def instead(row: dict[str, Any]) -> str:
    """Return the two costs that a row compares."""
    pair = row["pair"]
    return f"{pair['us_a']:.1f} µs instead of {pair['us_b']:.1f}, at {row['held']:,} held"


def rules(found: dict[str, Any]) -> str:
    """What ``reject-cost --rules`` says, in a sentence."""
    first = found["rows"][0]
    text = f"With a cap and a rate for each source a rejection takes {instead(first)}"
    if last := [row for row in found["rows"] if row.get("sources", SOURCES) > SOURCES]:
        text += f"; of clients from {last[0]['sources']:,} addresses, {instead(last[0])}"
    text += (
        " (`python -m bench reject-cost --rules`). "
        f"{target(found['rows'], RULES_TARGET, 'the bare cap')}"
    )
    return "\n\n".join([text, *caveats(found)])


def growth(rows: Sequence[dict[str, Any]]) -> str:
    """Say whether the ratio grows with the connections held, by more than the A/A band; "" when
    there is but one row."""
    first, last = rows[0], rows[-1]
    if first is last:
        return ""
    grown = last["pair"]["ratio"] / first["pair"]["ratio"]
    bands = [ratio for row in rows for ratio in row["same"]["ratios"]]
    where = f"{grown:.2f} times the ratio at {last['held']:,} held as at {first['held']:,}"
    if grown > max(bands):
        return f"The cost grows with the connections held: {where}, outside the A/A band. "
    return f"The cost does not grow with the connections held: {where}, within the A/A band. "


def target(rows: Sequence[dict[str, Any]], most: float, of: str) -> str:
    """Say whether the ratio is what we want, in the worst row."""
    worst = max(row["pair"]["ratio"] for row in rows)
    wanted = f"the {most:g} times {of} that we want"
    if worst <= most:
        return f"At most {worst:.2f} times {of}: within {wanted}."
    return f"At most {worst:.2f} times {of}: not yet {wanted}."


def caveats(found: dict[str, Any]) -> Iterator[str]:
    """Yield what qualifies a script's figures, a paragraph each."""
    if found.get("partial"):
        yield f"**Partial**: {found['partial']}."
    if found.get("invalid"):
        yield f"**Invalid**: {'; '.join(found['invalid'])}."
    kinds: dict[str, list[str]] = {}
    for text in found.get("warnings", ()):
        where, colon, what = text.partition(": ")
        kinds.setdefault(without_numbers(what if colon else where), []).append(what or where)
    worst = [
        f"{max(texts, key=numbers_in)}{f', at worst of {len(texts)}' * (len(texts) > 1)}"
        for texts in kinds.values()
    ]
    if worst:
        yield f"Warnings: {'; '.join(worst)}."


def costs(found: dict[str, Any]) -> str:
    """A line for each of the other scripts that there is a result of."""
    rows = []
    for name, data in found.items():
        figure = COSTS[name](data["rows"])
        figure += "".join(f" {text}" for text in caveats(data))
        rows.append([figure, f"`python -m bench {name}`"])
    places = dict.fromkeys(place(data["environment"]) for data in found.values())
    return markdown(["figure", "command"], rows) + "\n\n" + "; ".join(places) + "."


def refused(rows: list[dict[str, Any]]) -> str:
    row = rows[0]
    text = (
        f"a client turned away by `{row['reject']}` costs the server {row['us_each']:.2f} µs of "
        f"CPU ({row['clients']:,} in {row['seconds']:.1f} s)"
    )
    # Results from before it was read have none.
    if "machine_us_each" in row:
        text += f", and the whole machine {row['machine_us_each']:.0f} µs, the client's part in it"
    return text


def replied(rows: list[dict[str, Any]]) -> str:
    spans = {row["kind"]: f"{min(row['us']):.1f}-{max(row['us']):.1f} µs" for row in rows}
    rounds = max(len(row["us"]) for row in rows)
    close = spans.pop("close")
    texts = ", ".join(f"{kind} {span}" for kind, span in spans.items())
    return (
        f"a rejection with a message, {rounds} rounds of each kind one after the other, their "
        f"smallest and largest: {texts}; without one {close}; no comparison, for nothing was "
        "measured against itself"
    )


def held(rows: list[dict[str, Any]]) -> str:
    each = {row["how"]: row["Private_Dirty"] for row in rows}
    texts = [f"{kib:.1f} KiB {how}" for how, kib in each.items()]
    return f"a silent connection, its handler {', '.join(texts)}"


def swept(rows: list[dict[str, Any]]) -> str:
    late = [row["late_ms"] for row in rows]
    return (
        f"a sweep for timeouts, {rows[0]['what'].split()[0]} held: {rows[1]['cpu_ms_each']:.1f} ms "
        f"of CPU, and the loop {late[1]:.1f} ms late at most ({late[0]:.1f} without any)"
    )


def capped(found: dict[str, Any]) -> str:
    """What ``exec`` adds to a connection, accepted and held, in a sentence."""
    rows = found["rows"]
    middle, low, high = median_and_bounds([row["overhead_us"] for row in rows])
    plain = statistics.median(row["patched_us"] for row in rows)
    held = statistics.median(row["capped_bytes"] - row["patched_bytes"] for row in rows)
    text = (
        f"It costs {middle:.1f} µs of CPU a connection ({low:.1f} to {high:.1f}, beside "
        f"{plain:.0f} µs for the same program merely patched) and {held:.0f} bytes a held one: "
        "`python -m bench legacy-cost`."
    )
    return "\n\n".join([text, *caveats(found)])


def legacy(rows: list[dict[str, Any]]) -> str:
    middle, low, high = median_and_bounds([row["overhead_us"] for row in rows])
    return (
        f"`gserver exec` adds {middle:.1f} µs ({low:.1f} to {high:.1f}) to an accepted connection, "
        f"of the {TARGET_US:g} that we allow it: {verdict(low, high)}"
    )


def decided(rows: list[dict[str, Any]]) -> str:
    by_rule = {row["rules"]: row["one_us"] for row in rows if row.get("family") == "IPv4"}
    each = max(row["bytes_each"] for row in rows if "bytes_each" in row and row["held"] > 10_000)
    return (
        f"a verdict takes {by_rule['bare cap']:.2f} µs, with every rule on {by_rule['all']:.2f}; a "
        f"source remembered takes {each:.0f} bytes"
    )


COSTS = {
    "refuse-cost": refused,
    "reply-cost": replied,
    "held-memory": held,
    "sweep-cost": swept,
    "legacy-cost": legacy,
    "rules-cost": decided,
}
