"""The gate: the only place that compares the count with the cap (by ``capacity``).

The rules, in the order in which they are asked:

1. access lists (``denied``)
2. penalties (``penalty``)
3. the source's rate (``source_rate``), before the total so that one source's flood doesn't use
   up everybody's
4. the total rate (``rate``)
5. the source's slots (``source``)
6. the slots (``capacity``; or the client waits: ``wait_full``, ``wait_timeout``)
7. early drop (``early_drop``)

An attempt that is within a rate (3, 4) is consumed, whatever later rules say. Counts are only
taken once every rule has agreed, so a refusal has nothing to roll back, and nothing that it could
forget to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Literal

from gserver.admission.capacity import has_room, slots_open
from gserver.admission.figures import GateFigures, Tallies
from gserver.admission.limits import Limits
from gserver.admission.penalties import Offence
from gserver.admission.per_source import SourceCounts
from gserver.admission.rules import Rules
from gserver.admission.sources import ANY, UNCLASSIFIED, Source
from gserver.admission.verdict import REJECTED, Reason, Receipt, Rejected
from gserver.admission.waiting import Waiter, WaitQueue

__all__ = ["Gate"]

_NOTHING_TAKEN: Final = Receipt()
_FULL: Final = REJECTED[Reason.CAPACITY]
_RATE: Final = REJECTED[Reason.RATE]
_SOURCE: Final = REJECTED[Reason.SOURCE]
_EARLY_DROP: Final = REJECTED[Reason.EARLY_DROP]
_WAIT_FULL: Final = REJECTED[Reason.WAIT_FULL]


class Gate:
    """Decides on one client at a time.

    ``Gate(cap)`` compares with the cap and does nothing else; :meth:`from_limits` has the rules.

    :param max_connections: the cap, 1 or more. :meth:`resize` changes it.
    :ivar needs_source: a rule asks who the client is. While false, spare :meth:`source` and pass
        :data:`gserver.admission.sources.ANY`.
    :ivar may_wait: clients may wait: ask :meth:`decide_or_wait` instead of :meth:`decide`.
    :ivar tries_out: a rule is in dry run.
    :ivar bare: there is only the cap to ask: at a full one every client's verdict is the same.
    """

    __slots__ = (
        "_counts",
        "_draw",
        "_queue",
        "_rules",
        "_tallies",
        "bare",
        "max_connections",
        "may_wait",
        "needs_source",
        "tries_out",
    )

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._counts = SourceCounts()
        self._queue = WaitQueue()
        self._draw: Callable[[], float] = random.random
        self._tallies = Tallies()
        self._use(Rules(Limits(max_connections=max_connections), self._tallies))

    @classmethod
    def from_limits(cls, limits: Limits, *, draw: Callable[[], float] = random.random) -> Gate:
        """A gate with all the rules that ``limits`` calls for.

        :param draw: gives a random number, 0 to less than 1, for early drop.
        """
        gate = cls(limits.max_connections)
        gate._draw = draw
        gate._use(Rules(limits, gate._tallies))
        return gate

    # -- settings ---------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """The settings in force."""
        return self._rules.limits

    def resize(self, max_connections: int) -> None:
        """Change the cap, at any time: raising admits at once, lowering admits nobody until
        enough have left and ends nobody.

        :raises SettingError: a cap that does not go with the other settings; nothing changes.
        """
        limits = replace(self._rules.limits, max_connections=max_connections)
        self._rules.limits = limits
        self.max_connections = max_connections

    def replace(self, limits: Limits) -> None:
        """Put other rules in force, for clients from now on; nobody admitted is ended.

        Counts of slots are kept: what was admitted under the old rules is given back under the
        new. Clients that the old rules didn't count, or counted under another prefix, are counted
        as the new ones would by :meth:`recount`. Rates and penalties are kept where their settings
        are the same and begin anew where not. Those who wait go on, as long as the new settings
        let them.
        """
        self.max_connections = limits.max_connections
        self._use(Rules(limits, self._tallies, self._rules))

    def _use(self, rules: Rules) -> None:
        self._rules = rules
        queue, limits = self._queue, rules.limits
        queue.wait, queue.places = limits.wait, limits.wait_queue
        queue.lifo = limits.wait_order == "lifo"
        self._find_bare()
        self.needs_source = rules.needs_source
        self.may_wait = limits.wait > 0
        self.tries_out = bool(rules.dry_run)

    def _find_bare(self) -> None:
        """Whenever the rules have changed, or somebody waits no more."""
        # Not bare while somebody waits, though waiting be off by now: newcomers must not overtake.
        self.bare = not self._rules.any and not self._queue

    def source(self, address: object) -> Source:
        """Who a client is to the rules: see :meth:`gserver.admission.sources.Sources.of`."""
        return self._rules.sources.of(address)

    def recount(self, receipt: Receipt, source: Source) -> Receipt:
        """Count an admitted client as the rules now in force do, whatever the cap for a source;
        where that is in dry run, one beyond it holds nothing.

        :param receipt: what it was admitted with; it is void afterwards.
        :return: the receipt to give back in its stead.
        """
        self._counts.give_back(receipt)
        if Reason.SOURCE in self._rules.dry_run:
            return self._take(source)
        if self._rules.per_source is None or source.exempt:
            return _NOTHING_TAKEN
        return self._counts.take(source.name)

    def full(self, in_use: int) -> bool:
        """Whether no slot is left, not even a reserved one."""
        # What capacity.slots_open says of it; on the path of every rejection.
        return in_use >= self.max_connections

    # -- verdicts ---------------------------------------------------------------------------

    def decide(
        self, source: Source, now: float, *, in_use: int, ahead: int = 0, unclassified: int = 0
    ) -> Receipt | Rejected:
        """Admit or reject one client. Ask once for each: an attempt is counted each time.

        :param source: the client as the rules count it, from :meth:`source`.
        :param now: seconds on any clock that does not go back.
        :param in_use: slots taken at this instant, by the pool's own count.
        :param ahead: clients that came before it and may each take a slot yet. They have none,
            so they do not count for early drop.
        :param unclassified: of the slots taken, those of clients between :meth:`reserve` and
            :meth:`classify`.
        :return: a receipt to be handed to :meth:`give_back` when the connection ends, or the
            verdict that turns the client away, in which case nothing is held.
        """
        if self.bare:  # what capacity.has_room says without a reserve and with nobody waiting
            return _NOTHING_TAKEN if in_use + ahead < self.max_connections else _FULL
        rejected = self._screen(source, now)
        if rejected is not None:
            return rejected
        taken = in_use + ahead
        # With no slot at all, for whom it is need not be asked: the flood's way.
        room = taken < self.max_connections and self._has_room(source, taken, unclassified)
        return self._place(source, now, in_use, room)

    def turn_away(self, address: object, now: float) -> Rejected:
        """What :meth:`decide` says of the client with this address (see :meth:`source`) while
        the cap is :meth:`full` and not :attr:`may_wait`. On the path of every rejection."""
        source = self._rules.sources.of(address) if self.needs_source else ANY
        rejected = self._screen(source, now)
        return self._without_room(source, now) if rejected is None else rejected

    def decide_or_wait(
        self,
        client: Any,
        source: Source,
        now: float,
        *,
        in_use: int,
        ahead: int = 0,
        unclassified: int = 0,
    ) -> Receipt | Waiter | Rejected:
        """Like :meth:`decide`, but a client that finds all slots taken may wait for one.

        :param client: what the caller wants back with the :class:`Waiter`.
        :return: a :class:`Waiter` besides, which ends in one of :meth:`next_waiter`,
            :meth:`expire`, :meth:`leave` and :meth:`dismiss`.
        """
        verdict = self.decide(source, now, in_use=in_use, ahead=ahead, unclassified=unclassified)
        if verdict is not _FULL or not self.may_wait:
            return verdict
        return self._join(client, source, now)

    def recheck(
        self, source: Source, now: float, *, in_use: int, unclassified: int = 0
    ) -> Receipt | Rejected:
        """Ask again for a client that :meth:`decide` or :meth:`classify` rejected for its
        source's slots or for capacity, and that is held.

        Only the counts are asked. Its attempt has been counted, and it has passed the rest; but
        for early drop, which is for newcomers while the slots run low: this one takes a slot that
        has just come back, if there is one.
        """
        if self.bare:
            return self.decide(source, now, in_use=in_use)
        if self._is_over(source) and Reason.SOURCE not in self._rules.dry_run:
            return _SOURCE
        if not self._has_room(source, in_use, unclassified):
            self._rules.excuse(source, now)
            return _FULL
        return self._take(source)

    def lacks_only_a_slot(self, source: Source, *, in_use: int, unclassified: int = 0) -> bool:
        """Whether such a client could be admitted if one more slot were free. Takes nothing."""
        over = self._is_over(source) and Reason.SOURCE not in self._rules.dry_run
        return (
            not over
            and not self._has_room(source, in_use, unclassified)
            # A slot that comes free may be a reserved one, and of no use to it.
            and self._has_room(source, in_use - 1, unclassified)
        )

    def recheck_or_wait(
        self, client: Any, source: Source, now: float, *, in_use: int, unclassified: int = 0
    ) -> Receipt | Waiter | Rejected:
        """Like :meth:`recheck`, but a client that finds all slots taken may wait for one: one
        that was held because its source had too many, and now has not."""
        verdict = self.recheck(source, now, in_use=in_use, unclassified=unclassified)
        if verdict is not _FULL or not self.may_wait:
            return verdict
        return self._join(client, source, now)

    def give_back(self, receipt: Receipt, now: float) -> None:
        """Hand back what an admission took. A second time does nothing."""
        if receipt.counted_as is not None:
            self._counts.give_back(receipt)

    # -- the PROXY protocol's two steps -----------------------------------------------------

    def reserve(self, now: float, *, in_use: int, ahead: int = 0, unclassified: int = 0) -> bool:
        """Step one: whether there is a slot for a client that has yet to say who it is.

        The caller takes the slot at once if so. Reserved slots are open to it until
        :meth:`classify` says for whom it is: bound the time for the header.
        """
        if self._has_room(UNCLASSIFIED, in_use + ahead, unclassified):
            return True
        self._rules.excuse(UNCLASSIFIED, now)
        return False

    def reserve_or_wait(
        self, client: Any, now: float, *, in_use: int, ahead: int = 0, unclassified: int = 0
    ) -> Literal[True] | Waiter | Rejected:
        """Like :meth:`reserve`, but a client that finds all slots taken may wait for one.

        It waits before its header is read, so it is not counted for any source meanwhile.
        """
        if self.reserve(now, in_use=in_use, ahead=ahead, unclassified=unclassified):
            return True
        if not self.may_wait:
            return _FULL
        return self._join(client, UNCLASSIFIED, now)

    def classify(
        self, source: Source, now: float, *, in_use: int, unclassified: int = 0
    ) -> Receipt | Rejected:
        """Step two: every rule, by the source the header told. Ask once for each client.

        :param in_use: slots taken by *others* than this client. Whoever waits is not ahead of it:
            it has its slot.
        :param unclassified: of those, how many are still to be classified.
        :return: as :meth:`decide` does. If it is not admitted, the caller frees the slot; where
            it is its source's slots or capacity, it may be held, and :meth:`recheck` asked.
        """
        rejected = self._screen(source, now)
        if rejected is not None:
            return rejected
        room = self._slots_open(source.reserved, in_use, unclassified) > 0
        return self._place(source, now, in_use, room)

    def classify_or_wait(
        self, client: Any, source: Source, now: float, *, in_use: int, unclassified: int = 0
    ) -> Receipt | Waiter | Rejected:
        """Like :meth:`classify`, but a client for which there is only a reserved slot may wait
        for another. It is counted for its source from here on. If it waited for the first
        slot, it may wait as long again."""
        verdict = self.classify(source, now, in_use=in_use, unclassified=unclassified)
        if verdict is not _FULL or not self.may_wait:
            return verdict
        return self._join(client, source, now)

    # -- waiting ----------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def waiters(self) -> list[Waiter]:
        """Everybody who waits, in no particular order."""
        return self._queue.everybody()

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`expire` has something to do next, in seconds; None: nobody waits."""
        return self._queue.deadline()

    def next_waiter(self, *, in_use: int, unclassified: int = 0) -> Waiter | None:
        """Whose turn it is, now that ``in_use`` slots are taken, ``unclassified`` of them by
        clients that are still to be classified; None: nobody's.

        Ask whenever a slot may have come free, until None, before any newcomer's verdict. The
        waiter is admitted and out of the queue; its receipt is its connection's from here on.
        """
        queue = self._queue
        if not queue:
            return None
        waiter = queue.next(
            open_to_all=self._slots_open(False, in_use, unclassified) > 0,
            open_to_reserved=self._slots_open(True, in_use, unclassified) > 0,
        )
        self._find_bare()
        return waiter

    def expire(self, now: float, most: int | None = None) -> list[Waiter]:
        """Those who have waited long enough: to be rejected, for ``wait_timeout``.

        :param most: no more than so many of them; the others keep their places meanwhile.
        """
        queue = self._queue
        expired: list[Waiter] = []
        while (
            (most is None or len(expired) < most)
            and (first := queue.first()) is not None
            and first.arrived + queue.wait <= now
        ):
            queue.remove(first)
            self._counts.give_back(first.receipt)
            self._rules.excuse(first.source, now)
            expired.append(first)
        self._find_bare()
        return expired

    def leave(self, waiter: Waiter) -> bool:
        """A waiter has gone away. False if it was not waiting any more."""
        if not self._queue.remove(waiter):
            return False
        self._counts.give_back(waiter.receipt)
        self._find_bare()
        return True

    def dismiss(self) -> list[Waiter]:
        """Everybody who waits, in the order of arrival: to be rejected, for ``draining``."""
        dismissed = []
        while (first := self._queue.first()) is not None:
            self.leave(first)
            dismissed.append(first)
        return dismissed

    # -- misbehaviour and figures -----------------------------------------------------------

    def note_offence(self, source: Source, offence: Offence, now: float) -> None:
        """A source has misbehaved. Shuts it out for a while if the penalties are on."""
        self._rules.note_offence(source, offence, now)

    @property
    def would_reject(self) -> Mapping[Reason, int]:
        """What rules in dry run would have rejected since the start: the counters themselves."""
        return self._tallies.would_reject

    def figures(self) -> GateFigures:
        """A snapshot of what the gate holds and has counted."""
        rates, penalties, tallies = self._rules.source_rates, self._rules.penalties, self._tallies
        return GateFigures(
            waiting=len(self._queue),
            sources_counted=len(self._counts),
            sources_remembered=0 if rates is None else len(rates),
            sources_penalised=0 if penalties is None else len(penalties),
            source_rate_overflow=tallies.source_rate_overflow
            + (0 if rates is None else rates.overflowed),
            penalty_overflow=tallies.penalty_overflow
            + (0 if penalties is None else penalties.overflowed),
            would_reject=MappingProxyType(dict(tallies.would_reject)),
            offences=MappingProxyType(dict(tallies.offences)),
        )

    def top_sources(self, n: int) -> list[tuple[str, int]]:
        """The ``n`` sources that hold most, as far as ``per_source`` counts them."""
        return self._counts.top(n)

    # -- the rules, in their order ----------------------------------------------------------

    def _screen(self, source: Source, now: float) -> Rejected | None:
        """Rules 1 to 4: whether it may attempt at all."""
        rejected = self._rules.screen(source, now)
        if rejected is _RATE:
            self._rules.excuse(source, now)
        return rejected

    def _place(self, source: Source, now: float, in_use: int, has_room: bool) -> Receipt | Rejected:
        """Rules 5 to 7: whether there is a place for it. Takes it only if all agree."""
        if not has_room:
            return self._without_room(source, now)
        rules = self._rules
        dry = rules.dry_run
        if self._is_over(source) and not (dry and rules.only_counts(Reason.SOURCE)):
            return _SOURCE
        drop = rules.early_drop
        if (
            drop is not None
            and not source.reserved
            and drop.drops(in_use, self._draw())
            and not (dry and rules.only_counts(Reason.EARLY_DROP))
        ):
            rules.excuse(source, now)
            return _EARLY_DROP
        return self._take(source)

    def _without_room(self, source: Source, now: float) -> Rejected:
        """Rules 5 and 6 where there is no slot for it."""
        rules = self._rules
        cap = rules.per_source
        if (
            cap is not None  # and as _is_over() says: on the path of every rejection
            and self._counts.of(source.name) >= cap
            and not source.exempt
            and not (rules.dry_run and rules.only_counts(Reason.SOURCE))
        ):
            return _SOURCE
        if rules.excuses is not None:
            rules.excuse(source, now)
        return _FULL

    def _has_room(self, source: Source, in_use: int, unclassified: int) -> bool:
        queue = self._queue
        return has_room(
            in_use,
            self.max_connections,
            self._rules.reserve,
            reserved=source.reserved,
            waiting=queue.waiting,
            waiting_reserved=queue.waiting_reserved,
            unclassified=unclassified,
        )

    def _slots_open(self, reserved: bool, in_use: int, unclassified: int) -> int:
        cap, reserve = self.max_connections, self._rules.reserve
        return slots_open(in_use, cap, reserve, reserved=reserved, unclassified=unclassified)

    def _is_over(self, source: Source) -> bool:
        cap = self._rules.per_source
        return cap is not None and not source.exempt and self._counts.of(source.name) >= cap

    def _take(self, source: Source) -> Receipt:
        # Over its cap and here only in dry run: then it holds nothing, as if it were not here.
        if self._rules.per_source is None or source.exempt or self._is_over(source):
            return _NOTHING_TAKEN
        return self._counts.take(source.name)

    def _join(self, client: Any, source: Source, now: float) -> Waiter | Rejected:
        if not self._queue.has_place:
            return _WAIT_FULL
        return self._queue.join(client, source, self._take(source), now)
