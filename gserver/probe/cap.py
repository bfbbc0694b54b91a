"""``probe cap``: the limit, what happens at it, and the proof that it is one.

A step ramp that holds what it opens; then one by one, which finds the level a server that counts
sloppily in a burst comes back to; then past it; then one is closed and exactly one more must fit.

A server may give slots back slowly: those of the calibration, too. Unless those that were closed
were seen to be free at once, the level is tried again and again until a whole deadline has passed
since the last was closed (twice the longest lag seen, if that is more), before it is the limit.

Where only silence shows that a client was admitted, who is held is watched until the deadline has
passed: a server may be slow to turn people away. Those who are ended in that time were never
admitted; the search then goes on from those who are left, and waits long enough for each.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

from gserver.probe.calibrate import Calibration
from gserver.probe.cap_books import Books
from gserver.probe.finding import CapFinding
from gserver.probe.outcomes import Outcome
from gserver.probe.own_slots import gives_up_at, slots_are_gone
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["find_cap"]

_IN_A_ROW: Final = 3  # turned away that often, one by one, before a level is called the limit
_BETWEEN_S: Final = 0.05  # for a slot that is still being given back
_REFILL: Final = 8
_FIRST_TRIES: Final = 4
_LEAST_OUTRUN: Final = 20  # ended in one search for a level, before it is given up
_AT_ONCE_S: Final = 0.1  # a slot that is back by then hides no other that is not
#: Closed and filled again: by chance an older slot comes back meanwhile, but not thrice.
_TIMES: Final = 3


def find_cap(
    target: Target,
    calibration: Calibration,
    run: Run,
    *,
    maximum: int,
    expected: int | None = None,
) -> CapFinding:
    """Find the limit of *target*, holding at most *maximum* connections. Closes them all.

    :param expected: the cap it should have; over-admissions are counted against it.
    :raises TargetError: nobody is admitted any more since the calibration.
    """
    search = _Search(target, calibration, run, maximum)
    search.finding.expected = expected
    try:
        search.search()
    finally:
        search.engine.close()
    if search.engine.failure is not None:
        raise search.engine.failure
    return search.finding


class _Search(Books):
    def search(self) -> None:
        """Raise, go one by one, go past, confirm. Ends early when the run is stopped."""
        self._come_in()
        self.finding.turned_away.clear()
        while not self._over:
            self._ramp()
            if self._some_are_late():
                continue
            if self.finding.limit is None:
                return
            self._confirm()
            if not self._some_are_late():
                return

    def _come_in(self) -> None:
        """Hold the first: the slots of the calibration may still be coming back, all of them.

        :raises TargetError: they do not, though half of the run's time was waited.
        """
        gives_up, tries = gives_up_at(self.run), 0
        while not self._over:
            self.run.pause(_BETWEEN_S)
            self._open(1)
            tries += 1
            if any(a.outcome is Outcome.QUEUED for a in self.waiting):
                # In line: who gave up and came anew would stand behind itself.
                self.run.until(lambda: self.held or not self.waiting, gives_up - monotonic())
            if self.held:
                break
            for attempt in list(self.waiting):
                self.engine.end(attempt)
            self.waiting.clear()
            if tries >= _FIRST_TRIES and monotonic() >= gives_up and not self._over:
                waited_s = monotonic() - self.closed_at / 1e9
                raise slots_are_gone(self.engine.target, self.finding.policy, waited_s)
        if tries > 1 or self.promoted:
            self._came_back()

    def _ramp(self) -> None:
        step = 1
        while not self._over and not self.late:
            step = min(step, self.maximum - len(self.held))
            if step <= 0:
                return
            all_fit = all(self._open(step))
            if self.too_many and step > 1:
                self.biggest_step = step // 2
            if not all_fit and self._is_level():
                return
            step = min(max(1, len(self.held)), self.biggest_step)

    def _some_are_late(self) -> bool:
        """Watch who is held until the deadline has passed: whether the server ended any of them.

        If so they were never admitted, and nothing that was found stands but who is left.
        """
        if not self.by_silence or self.settle_s >= self.watch_s:
            return False
        last = max((a.started for a in self.held), default=0) / 1e9
        self.run.tell(f"holding {len(self.held)}: is anybody turned away late?")
        self.run.pause(max(0.0, last + self.watch_s - monotonic()))
        self.finding.watched_s = self.watch_s
        if not self.late:
            return False
        self.late = False
        self.settle_s = min(2 * self.finding.late_s, self.watch_s)
        self.finding.limit = self.finding.fits_after_close = self.finding.tries_after_close = None
        self.finding.slots_lost = 0
        self.finding.peak = len(self.held)
        return True

    def _is_level(self, room: int = 0) -> bool:
        """One by one: whether nobody more is admitted; if so, the level is the limit.

        :param room: how many should fit; where it takes long to judge one, they and those who
            should not fit are judged together, each a little after the other.
        """
        turned = 0
        many = len(self.finding.drops) + max(_LEAST_OUTRUN, 2 * self.finding.peak)
        while turned < _IN_A_ROW and len(self.held) < self.maximum:
            # Twice as many as ever were held have gone meanwhile: it will not fill up again.
            self.finding.outrun = len(self.finding.drops) > many
            if self._over or self.late:
                return False
            if self.waiting:  # those already in line come first
                before = self.promoted
                self.run.pause(_BETWEEN_S)
                turned = turned + 1 if before == self.promoted else 0
                if turned == _IN_A_ROW and not self._they_are_in_line():
                    return False
                continue
            count = room + _IN_A_ROW if self._takes_long else 1
            room = 0
            for fits in self._open(min(count, self.maximum - len(self.held)), apart_s=_BETWEEN_S):
                turned = 0 if fits else turned + 1
            if turned:
                self.run.pause(_BETWEEN_S)
        if turned < _IN_A_ROW:
            return False
        self.finding.limit = len(self.held)
        return True

    def _confirm(self) -> None:
        """Go past the limit at once; come back to it one by one; close one: one more fits."""
        over = sum(self._open(min(max(3, len(self.held) // 4), 32, self.biggest_step)))
        if self._they_are_in_line():
            self._look_at_the_queue()
            self._close_one_and_see()
            return
        # A server that counts sloppily in a burst holds too many now, and admits nobody before
        # it is back below its limit: leave room, and fill up one by one.
        first = len(self.held) - over
        again = self._refill(over + _REFILL)
        if again != first and not self._over:
            again = self._wait_for_slots()
        if again < first and not self._over:
            # Either the ramp's own burst had let in too many, and this is the limit; or slots
            # do not come back, and another round gets lower still.
            third = self._refill(_REFILL)
            if third < again:
                third = self._wait_for_slots()
            if third < again and not self._over:
                self.finding.slots_lost = first - third
                self.finding.limit = first
                return
        self._close_one_and_see()

    def _close_one_and_see(self) -> None:
        """Close one; exactly one more must fit. Where that took long, who else does is waited for:
        that raises the limit, and so is done again."""
        finding = self.finding
        for _ in range(_TIMES):
            if not self.held or self._over or self.late:
                return
            limit = finding.limit
            tries, fits, lag_s = self._proofs()
            if self._over:
                return
            finding.tries_after_close, finding.fits_after_close = tries, fits
            if fits:  # else that was not when it came back
                finding.lag_s = max(finding.lag_s, lag_s)
            if fits == 1 and lag_s <= _AT_ONCE_S:
                return
            if fits:
                self._came_back()
            if limit is None or self._wait_for_slots() <= limit:
                return

    def _came_back(self) -> None:
        """Of several places the oldest, perhaps: so long is how long one may take."""
        since_s = monotonic() - self.oldest_at / 1e9
        self.back_s = max(self.back_s, 2 * since_s)

    def _proofs(self) -> tuple[int, int, float]:
        """Attempts until who fits was admitted; how many fitted; and after how long, at most."""
        if self.waiting:
            return self._fill_one_place_from_queue()
        most_tries, longest_s = 0, 0.0
        for _ in range(1 if self._takes_long else _TIMES):
            self._close_one()
            tries, fits, lag_s = self._fill_one_place()
            most_tries, longest_s = max(most_tries, tries), max(longest_s, lag_s)
            if fits != 1 or longest_s > _AT_ONCE_S or self._over or self.late:
                break
        return most_tries, fits, longest_s

    def _fill_one_place(self) -> tuple[int, int, float]:
        """The same of one place that is free now."""
        tries, fits, lag_s = 0, 0, 0.0
        gives_up = monotonic() + self.back_s
        while not fits and not self._over and not self.late and monotonic() < gives_up:
            lag_s = monotonic() - self.closed_at / 1e9
            if self._takes_long:
                fitted = self._open(1 + _IN_A_ROW, apart_s=_BETWEEN_S)
                tries += fitted.index(True) + 1 if any(fitted) else len(fitted)
                fits = sum(fitted)
                continue
            tries += 1
            fits = sum(self._open(1))
            if not fits and tries > 1:
                self.run.pause(min(0.001 * tries, _BETWEEN_S))
        if not self._takes_long:
            fits += sum(self._open(_IN_A_ROW))
        return tries, fits, lag_s

    def _refill(self, count: int) -> int:
        """Close *count*, fill up one by one; the level that is reached."""
        count = min(count, len(self.held) - 1)
        for _ in range(count):
            self._close_one()
        self.run.pause(_BETWEEN_S * 4)
        return self._fill_up(count)

    def _fill_up(self, room: int = 0) -> int:
        while not self._is_level(room):
            if self._over or self.late or len(self.held) >= self.maximum:
                break
        return len(self.held)

    def _wait_for_slots(self) -> int:
        """Fill up until every slot that is coming back must be there; the level that is reached."""
        highest, drops = len(self.held), len(self.finding.drops)
        if monotonic() - self.closed_at / 1e9 >= self.back_s:
            return highest
        while not self._over and not self.late:
            self.run.tell(f"holding {len(self.held)}: do more slots come back?")
            passed_s = monotonic() - self.closed_at / 1e9
            its_time = passed_s < self.back_s
            if not its_time:
                self._fill_up()
            elif not self.waiting:  # else those already in line come first
                self._open(1)
            if len(self.held) > highest:
                highest = len(self.held)
                if len(self.finding.drops) == drops:  # else it may have come in for one of those
                    self.finding.lag_s = max(self.finding.lag_s, passed_s)
                    self._came_back()
            elif not its_time:
                break
            else:
                self.run.pause(_BETWEEN_S)
            if len(self.held) >= self.maximum:
                break
        return len(self.held)

    def _look_at_the_queue(self) -> None:
        if self.engine.oracle is None:
            return
        host, port = self.engine.target.address
        rows = self.engine.oracle.listeners(port, host)
        if rows:  # several with SO_REUSEPORT, each with a queue of its own
            self.finding.listen_queue = (
                sum(row.waiting for row in rows),
                sum(row.backlog for row in rows),
            )

    def _fill_one_place_from_queue(self) -> tuple[int, int, float]:
        before = self.promoted
        self._close_one()
        self.run.until(lambda: self.promoted > before, self.back_s)
        lag_s = monotonic() - self.closed_at / 1e9
        self.run.pause(_BETWEEN_S * 4)  # nobody else may follow
        return 1, self.promoted - before, lag_s
