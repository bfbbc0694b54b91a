"""Puts what :mod:`gserver.report` has to say into the log, while clients are turned away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import gevent

from gserver.admission.sources import Source
from gserver.admission.verdict import Reason
from gserver.report import CALM_S, DryRunReport, RejectionReport
from gserver.stats import Counters, Telling

__all__ = ["RejectionLog"]

log = logging.getLogger("gserver")


class RejectionLog:
    """One cap's log of rejections.

    :param occupancy: slots in use, the cap, and whether it is full, now.
    :param counters: the rejections and the replies so far; read, never changed.
    :param would_reject: the same of rules in dry run.
    :param source: who an address is to the rules in force.
    """

    def __init__(
        self,
        occupancy: Callable[[], tuple[int, int, bool]],
        counters: Counters,
        would_reject: Mapping[Reason, int],
        source: Callable[[object], Source],
    ) -> None:
        self._occupancy = occupancy
        self._totals = counters.rejected
        self._replies = counters.replies
        self._would_reject = would_reject
        self._source = source
        self._report = RejectionReport(source)
        self._dry_run = DryRunReport()
        self._timer: Any = None

    def saw(self, address: Any, reason: Reason) -> None:
        """A client was turned away, and is in the totals. On the path of every rejection."""
        if not self._report.saw(address):
            self._begin(reason)

    def watch_dry_run(self, now: float) -> None:
        """A client is about to be decided on, while a rule is in dry run."""
        if not self._dry_run.open:
            self._dry_run.begin(now, self._would_reject)
            self._start_timer()

    def _begin(self, reason: Reason) -> None:
        in_use, cap, _ = self._occupancy()
        log.warning(self._report.begin(monotonic(), reason, in_use, cap, self._totals))
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            # ref=False: a report to come keeps no program alive.
            self._timer = gevent.get_hub().loop.timer(CALM_S, CALM_S, False)
            self._timer.start(self._tick)

    def _tick(self) -> None:
        in_use, cap, full = self._occupancy()
        now = monotonic()
        degraded = self._replies[Telling.DEGRADED]
        lines = self._report.tick(
            now, in_use, cap, full=full, totals=self._totals, degraded=degraded
        )
        for line in lines + self._dry_run.tick(now, in_use, cap, self._would_reject):
            log.warning(line)
        if not (self._report.rejecting or self._dry_run.open):
            self.close()

    def end(self) -> None:
        """There will be nobody to reject: log what no summary has told of yet."""
        if self._timer is None:
            return
        in_use, cap, _ = self._occupancy()
        now = monotonic()
        degraded = self._replies[Telling.DEGRADED]
        lines = self._report.end(now, in_use, cap, totals=self._totals, degraded=degraded)
        for line in lines + self._dry_run.end(now, in_use, cap, self._would_reject):
            log.warning(line)
        self.close()

    def begin_anew(self) -> None:
        """The totals have begun anew: report no more of what has been."""
        self.close()
        self._report = RejectionReport(self._source)
        self._dry_run = DryRunReport()

    def close(self) -> None:
        """Report no more for now."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
