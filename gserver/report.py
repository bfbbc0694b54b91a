"""What the log says about rejections: state changes and a summary. A flood never floods it.

Pure: it is told what happens and when, and returns lines. At most two state changes per
``CALM_S`` and one summary per ``SUMMARY_S`` come out, however many clients are turned away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from gserver.admission.sources import Source
from gserver.admission.verdict import Reason

__all__ = ["CALM_S", "MAX_HOSTS", "SUMMARY_S", "DryRunReport", "RejectionReport"]

#: Seconds without a rejection, at a cap with room, after which a server is "accepting again".
CALM_S: Final = 1.0
#: Seconds between two summaries while rejecting.
SUMMARY_S: Final = 10.0
#: Different hosts counted in one summary's interval; later ones are counted together.
MAX_HOSTS: Final = 1024
_TOP: Final = 3


class RejectionReport:
    """The log's view of one cap.

    :param source: who an address is to the rules in force (``Gate.source``).
    """

    __slots__ = (
        *("_began", "_began_degraded", "_began_total", "_degraded", "_hosts", "_last_total"),
        *("_others", "_source", "_summed", "_totals"),
    )

    def __init__(self, source: Callable[[object], Source]) -> None:
        self._source = source
        self._began: float | None = None  # since when it is rejecting
        self._began_total = 0
        self._began_degraded = self._degraded = 0
        self._last_total = 0
        self._summed = 0.0
        self._totals: dict[Reason, int] = {}
        self._hosts: dict[str, int] = {}  # with the scope, where there is one
        self._others = 0

    @property
    def rejecting(self) -> bool:
        """Whether a state is open that only :meth:`tick` ends."""
        return self._began is not None

    def saw(self, address: Any) -> bool:
        """Count one rejected client by its host. On the path of every rejection: keep it cheap.

        :param address: as ``accept()`` gives it: a tuple that begins with the host, of IPv6 with
            the scope behind; else unix.
        :return: :attr:`rejecting`; if not, it is time to :meth:`begin`.
        """
        host = address[0] if address.__class__ is tuple else "unix"
        hosts = self._hosts
        if host in hosts:
            hosts[host] += 1
            return self._began is not None
        if address.__class__ is tuple and len(address) == 4 and address[3]:
            host = f"{host}%{address[3]}"  # a link's: never there without it
        if host in hosts:
            hosts[host] += 1
        elif len(hosts) < MAX_HOSTS:
            hosts[host] = 1
        else:
            self._others += 1
        return self._began is not None

    def begin(
        self, now: float, reason: Reason, in_use: int, cap: int, totals: Mapping[Reason, int]
    ) -> str:
        """The first rejection after a calm. ``totals`` already counts it."""
        self._began = self._summed = now
        self._totals = dict(totals)
        self._totals[reason] -= 1
        self._began_total = sum(self._totals.values())
        self._last_total = self._began_total + 1
        if reason is Reason.CAPACITY and in_use >= cap:  # and not for the reserve's sake
            return f"full {in_use}/{cap}, rejecting"
        return f"rejecting ({reason}), {in_use}/{cap} in use"

    def tick(
        self,
        now: float,
        in_use: int,
        cap: int,
        *,
        full: bool,
        totals: Mapping[Reason, int],
        degraded: int = 0,
    ) -> list[str]:
        """Call once per :data:`CALM_S` while :attr:`rejecting`. Returns the lines to log.

        :param degraded: how many so far were to get a reply, and were closed without.
        """
        if self._began is None:
            return []
        total = sum(totals.values())
        calm = total == self._last_total and not full
        self._last_total = total
        if calm:
            line = (
                f"accepting again after {now - self._began:.1f} s, "
                f"{total - self._began_total:,} rejected"
                f"{_without_reply(degraded - self._began_degraded)}"
            )
            self._close(degraded)
            return [line]
        if now - self._summed < SUMMARY_S:
            return []
        return self._summary(now, in_use, cap, totals, degraded)

    def end(
        self, now: float, in_use: int, cap: int, *, totals: Mapping[Reason, int], degraded: int = 0
    ) -> list[str]:
        """There will be nobody to reject: the lines to log of what no summary has told of."""
        if self._began is None:
            return []
        lines = self._summary(now, in_use, cap, totals, degraded)
        self._close(degraded)
        return lines

    def _close(self, degraded: int) -> None:
        self._began = None
        self._began_degraded = self._degraded = degraded
        self._hosts.clear()
        self._others = 0

    def _summary(
        self, now: float, in_use: int, cap: int, totals: Mapping[Reason, int], degraded: int
    ) -> list[str]:
        by_reason = _since(self._totals, totals)
        elapsed = now - self._summed
        self._summed = now
        self._totals = dict(totals)
        hosts, self._hosts = self._hosts, {}
        others, self._others = self._others, 0
        without_reply = _without_reply(degraded - self._degraded)
        self._degraded = degraded
        if not by_reason:
            return []
        sources: Counter[str] = Counter()
        for host, count in hosts.items():
            sources[self._source((host,)).name] += count
        top = ", ".join(f"{count:,} from {source}" for source, count in sources.most_common(_TOP))
        rest = sum(sources.values()) - sum(count for _, count in sources.most_common(_TOP)) + others
        if rest:
            top += f", {rest:,} from others"
        return [
            f"rejecting: {in_use}/{cap} in use, {sum(by_reason.values()):,} rejected "
            f"in {elapsed:.1f} s ({_listed(by_reason)}){without_reply}: {top}"
        ]


class DryRunReport:
    """What rules in dry run would have rejected: a line for each SUMMARY_S in which there was
    anything."""

    __slots__ = ("_began", "_totals")

    def __init__(self) -> None:
        self._began: float | None = None
        self._totals: Mapping[Reason, int] = {}

    @property
    def open(self) -> bool:
        """Whether it looks on, and wants :meth:`tick`."""
        return self._began is not None

    def begin(self, now: float, totals: Mapping[Reason, int]) -> None:
        """Look on from now. ``totals``: what would have been rejected so far, by reason."""
        self._began = now
        self._totals = dict(totals)

    def tick(self, now: float, in_use: int, cap: int, totals: Mapping[Reason, int]) -> list[str]:
        """Call about once per :data:`CALM_S` while :attr:`open`. Returns the lines to log."""
        if self._began is None or now - self._began < SUMMARY_S:
            return []
        lines = self.end(now, in_use, cap, totals)
        if lines:
            self.begin(now, totals)
        return lines

    def end(self, now: float, in_use: int, cap: int, totals: Mapping[Reason, int]) -> list[str]:
        """Look on no longer. Returns the lines to log."""
        if self._began is None:
            return []
        elapsed, by_reason = now - self._began, _since(self._totals, totals)
        self._began = None
        if not by_reason:
            return []
        return [
            f"dry run: {sum(by_reason.values()):,} would have been rejected "
            f"in {elapsed:.1f} s ({_listed(by_reason)}); {in_use}/{cap} in use"
        ]


def _without_reply(count: int) -> str:
    """More clients came than may be taking a reply at once (``Reply.max_lingering``)."""
    return f", {count:,} of them without their reply" if count else ""


def _since(before: Mapping[Reason, int], now: Mapping[Reason, int]) -> dict[Reason, int]:
    """What has come since, where anything has."""
    return {r: count - before.get(r, 0) for r, count in now.items() if count > before.get(r, 0)}


def _listed(by_reason: Mapping[Reason, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in by_reason.items())
