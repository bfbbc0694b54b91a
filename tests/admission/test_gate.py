"""The gate: the order of the rules, what a refusal leaves, dry run, live changes, two steps."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from gserver.admission.capacity import has_room
from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.penalties import Offence
from gserver.admission.sources import ANY
from gserver.admission.verdict import REJECTED, Reason, Receipt
from gserver.admission.waiting import Waiter

HERE = ("192.0.2.1", 50_000)
THERE = ("192.0.2.2", 50_000)
FULL = REJECTED[Reason.CAPACITY]
WAIT_FULL = REJECTED[Reason.WAIT_FULL]


def gate_of(**settings: object) -> Gate:
    return Gate.from_limits(Limits(**{"max_connections": 10, **settings}))


def reason_of(verdict: object) -> str:
    return "admitted" if isinstance(verdict, Receipt) else verdict.reason.value  # type: ignore[attr-defined]


# -- the bare cap ---------------------------------------------------------------------------


def test_bare_cap_asks_nobody_who_it_is_and_allocates_nothing():
    gate = Gate(2)
    assert not gate.needs_source
    assert not gate.may_wait
    assert gate.decide(ANY, 0.0, in_use=1) is gate.decide(ANY, 0.0, in_use=0)
    assert gate.decide(ANY, 0.0, in_use=2) is FULL
    assert gate.decide(ANY, 0.0, in_use=3) is FULL


def test_short_way_of_the_bare_cap_agrees_with_the_rule_for_slots():
    for cap in range(1, 6):
        gate = Gate(cap)
        assert gate.bare
        for in_use in range(2 * cap + 1):
            room = has_room(in_use, cap, 0, reserved=False, waiting=0, waiting_reserved=0)
            assert isinstance(gate.decide(ANY, 0.0, in_use=in_use), Receipt) is room
            assert gate.full(in_use) is not room


def test_cap_may_be_changed_at_any_time():
    for gate in (Gate(2), gate_of(max_connections=2, per_source=100)):
        source = gate.source(HERE)
        gate.resize(3)
        assert isinstance(gate.decide(source, 0.0, in_use=2), Receipt)
        gate.resize(1)
        assert gate.decide(source, 0.0, in_use=2) is FULL
        assert gate.decide(source, 0.0, in_use=1) is FULL
        assert isinstance(gate.decide(source, 0.0, in_use=0), Receipt)


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({}, False),
        ({"rate": 5}, False),
        ({"early_drop": "5:30:10"}, False),
        ({"wait": 0.1}, False),
        ({"per_source": 5}, True),
        ({"source_rate": 5}, True),
        ({"penalty": 5}, True),
        ({"deny": ["192.0.2.0/24"]}, True),
        ({"allow": ["192.0.2.0/24"]}, True),
        ({"reserved": 1, "reserved_for": ["192.0.2.0/24"]}, True),
    ],
)
def test_source_is_asked_for_only_where_a_rule_needs_it(settings, needs):
    assert gate_of(**settings).needs_source is needs


# -- order ----------------------------------------------------------------------------------

EVERYTHING = {
    "deny": ["192.0.2.1"],
    "penalty": 100,
    "source_rate": 0.001,
    "rate": 0.001,
    "per_source": 1,
    "early_drop": "1:100:10",
}


def everything_against_it(without: list[str], in_use: int) -> str:
    settings = {name: value for name, value in EVERYTHING.items() if name not in without}
    gate = gate_of(**settings)
    source = gate.source(HERE)
    source.denied = False
    gate.decide(source, 0.0, in_use=0)  # uses up the rates and the source's slot
    source.denied = "deny" in settings
    if "penalty" in settings:
        gate.note_offence(source, Offence.HANDSHAKE, 0.0)
    return reason_of(gate.decide(source, 0.0, in_use=in_use))


def test_rules_are_asked_in_the_documented_order():
    gone: list[str] = []
    reasons = []
    for rule in EVERYTHING:
        reasons.append(everything_against_it(gone, in_use=9))
        gone.append(rule)
    assert reasons == ["denied", "penalty", "source_rate", "rate", "source", "early_drop"]
    assert everything_against_it(gone[:4], in_use=10) == "source"
    assert everything_against_it(gone[:5], in_use=10) == "capacity"


def test_refusal_by_a_later_rule_leaves_no_count():
    gate = gate_of(per_source=1, early_drop="5:100:10", wait=0.0)
    source = gate.source(HERE)
    for in_use in (10, 9):  # capacity, early drop
        assert not isinstance(gate.decide(source, 0.0, in_use=in_use), Receipt)
        assert gate.figures().sources_counted == 0
    assert isinstance(gate.decide(source, 0.0, in_use=0), Receipt)


def test_attempt_is_consumed_though_a_later_rule_refuses():
    gate = gate_of(source_rate=1.0, source_rate_burst=3)
    source = gate.source(HERE)
    assert [gate.decide(source, 0.0, in_use=10) for _ in range(3)] == [FULL] * 3
    assert gate.decide(source, 0.0, in_use=0) is REJECTED[Reason.SOURCE_RATE]


def test_one_sources_flood_does_not_use_up_the_total_rate():
    gate = gate_of(source_rate=1.0, source_rate_burst=2, rate=1.0, rate_burst=5)
    flood, other = gate.source(HERE), gate.source(THERE)
    for _ in range(100):
        gate.decide(flood, 0.0, in_use=0)
    assert isinstance(gate.decide(other, 0.0, in_use=0), Receipt)


def test_source_holds_no_more_than_its_cap_and_gets_its_place_back():
    gate = gate_of(per_source=2)
    source = gate.source(HERE)
    one, two = (gate.decide(source, 0.0, in_use=n) for n in range(2))
    assert isinstance(one, Receipt)
    assert isinstance(two, Receipt)
    assert gate.decide(source, 0.0, in_use=2) is REJECTED[Reason.SOURCE]
    assert isinstance(gate.decide(gate.source(THERE), 0.0, in_use=2), Receipt)
    assert gate.top_sources(1) == [("192.0.2.1", 2)]
    for _ in range(2):  # the second time does nothing
        gate.give_back(one, 0.0)
    assert isinstance(gate.decide(source, 0.0, in_use=2), Receipt)
    assert gate.decide(source, 0.0, in_use=2) is REJECTED[Reason.SOURCE]


def test_exempt_networks_have_no_cap_and_no_rate_of_their_own():
    gate = gate_of(per_source=1, source_rate=0.001, source_exempt=["192.0.2.0/24", "unix"])
    for address in (HERE, b""):
        source = gate.source(address)
        assert all(isinstance(gate.decide(source, 0.0, in_use=0), Receipt) for _ in range(9))
    assert gate.figures().sources_counted == gate.figures().sources_remembered == 0


def test_reserved_networks_are_not_held_to_the_total_rate():
    gate = gate_of(rate=0.001, reserved=1, reserved_for=["192.0.2.1"])
    operator, other = gate.source(HERE), gate.source(THERE)
    assert isinstance(gate.decide(other, 0.0, in_use=0), Receipt)
    assert gate.decide(other, 0.0, in_use=0) is REJECTED[Reason.RATE]
    assert isinstance(gate.decide(operator, 0.0, in_use=9), Receipt)
    assert gate.decide(operator, 0.0, in_use=10) is FULL


# -- held candidates and the PROXY protocol ---------------------------------------------------


def test_asking_again_consumes_no_attempt():
    gate = gate_of(source_rate=0.001, rate=0.001, per_source=1)
    source = gate.source(HERE)
    assert gate.decide(source, 0.0, in_use=10) is FULL
    for _ in range(5):
        assert gate.recheck(source, 0.0, in_use=10) is FULL
    assert isinstance(gate.recheck(source, 0.0, in_use=9), Receipt)
    assert gate.recheck(source, 0.0, in_use=9) is REJECTED[Reason.SOURCE]
    assert gate.figures().sources_counted == 1


def test_two_steps_count_the_real_source_and_never_its_own_slot():
    gate = gate_of(per_source=1, reserved=2, reserved_for=["192.0.2.1"])
    operator, other = gate.source(HERE), gate.source(THERE)
    assert gate.reserve(0.0, in_use=9)
    assert not gate.reserve(0.0, in_use=10)
    # The tenth slot is its own: nine are others'.
    assert gate.classify(other, 0.0, in_use=9) is FULL
    assert isinstance(gate.classify(operator, 0.0, in_use=9), Receipt)
    assert gate.classify(operator, 0.0, in_use=3) is REJECTED[Reason.SOURCE]
    assert isinstance(gate.classify(other, 0.0, in_use=7), Receipt)


def test_slots_of_those_still_to_be_classified_are_not_held_against_who_has_said_who_it_is():
    gate = gate_of(reserved=9, reserved_for=["192.0.2.1"], wait=0.0)
    other = gate.source(THERE)
    # Of two slots taken by others, one is of nobody yet: it may stand on a reserved slot.
    some = {"in_use": 1, "unclassified": 1}
    for ask in (gate.decide, gate.classify, gate.recheck):
        assert ask(other, 0.0, in_use=1) is FULL
        assert isinstance(ask(other, 0.0, **some), Receipt)
        assert ask(other, 0.0, in_use=10, unclassified=10) is FULL  # but not on one of its own
    assert gate.lacks_only_a_slot(other, in_use=1)
    assert not gate.lacks_only_a_slot(other, **some)


def test_a_cap_for_sources_in_dry_run_keeps_nobody_from_lacking_only_a_slot():
    gate = gate_of(per_source=1, dry_run=["source"])
    source = gate.source(THERE)
    gate.decide(source, 0.0, in_use=0)
    assert gate.lacks_only_a_slot(source, in_use=10)


def test_client_for_which_there_is_only_a_reserved_slot_may_wait_for_another():
    gate = gate_of(reserved=9, reserved_for=["192.0.2.1"], per_source=1, wait=1.0, wait_queue=1)
    other = gate.source(THERE)
    waiter = gate.classify_or_wait("a", other, 0.0, in_use=1)
    assert isinstance(waiter, Waiter)
    assert gate.figures().sources_counted == 1
    assert gate.classify_or_wait("b", gate.source(HERE), 0.0, in_use=10) is WAIT_FULL
    assert gate.next_waiter(in_use=1) is None
    assert gate.next_waiter(in_use=1, unclassified=1) is waiter


def test_those_ahead_take_slots_but_are_not_in_use_for_early_drop():
    gate = gate_of(early_drop="5:100:10")
    assert isinstance(gate.decide(ANY, 0.0, in_use=4, ahead=5), Receipt)
    assert gate.decide(ANY, 0.0, in_use=5, ahead=0) is REJECTED[Reason.EARLY_DROP]
    assert gate.decide(ANY, 0.0, in_use=4, ahead=6) is FULL
    assert gate.reserve(0.0, in_use=4, ahead=5)
    assert not gate.reserve(0.0, in_use=4, ahead=6)


def test_who_waits_is_not_ahead_of_who_has_its_slot():
    gate = gate_of(wait=1)
    gate.reserve_or_wait("waits", 0.0, in_use=10)
    assert gate.waiting == 1
    assert isinstance(gate.classify(ANY, 0.0, in_use=9), Receipt)


# -- dry run --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("denied", {"deny": ["192.0.2.1"]}),
        ("penalty", {"penalty": 100}),
        ("source_rate", {"source_rate": 0.001}),
        ("rate", {"rate": 0.001}),
        ("source", {"per_source": 1}),
        ("early_drop", {"early_drop": "0:100:1"}),
    ],
)
def test_dry_run_counts_what_the_rule_would_have_rejected_and_rejects_nobody(rule, settings):
    real, dry = gate_of(**settings), gate_of(**settings, dry_run=[rule])
    verdicts = {}
    for name, gate in (("real", real), ("dry", dry)):
        gate.note_offence(gate.source(HERE), Offence.HANDSHAKE, 0.0)
        verdicts[name] = [
            reason_of(gate.decide(gate.source(HERE), 0.0, in_use=0)) for _ in range(5)
        ]
    rejected = verdicts["real"].count(rule)
    assert rejected >= 4
    assert verdicts["dry"] == ["admitted"] * 5
    assert {k: v for k, v in dry.figures().would_reject.items() if v} == {rule: rejected}
    assert not any(real.figures().would_reject.values())
    assert dry.figures().sources_counted == real.figures().sources_counted


def test_dry_run_of_a_rate_is_no_offence():
    gate = gate_of(source_rate=0.001, penalty=100, dry_run=["source_rate"])
    source = gate.source(HERE)
    assert all(isinstance(gate.decide(source, 1e6, in_use=0), Receipt) for _ in range(5))


def test_dry_run_holds_no_place_for_whom_it_would_have_rejected():
    gate = gate_of(per_source=1, dry_run=["source"], wait=1)
    source = gate.source(HERE)
    held, would = (gate.decide(source, 0.0, in_use=n) for n in range(2))
    assert isinstance(gate.recheck(source, 0.0, in_use=2), Receipt)
    assert gate.figures().would_reject[Reason.SOURCE] == 1
    gate.give_back(would, 0.0)  # type: ignore[arg-type]
    gate.decide(source, 0.0, in_use=1)
    assert gate.figures().would_reject[Reason.SOURCE] == 2
    gate.give_back(held, 0.0)  # type: ignore[arg-type]
    gate.decide(source, 0.0, in_use=1)
    assert gate.figures().would_reject[Reason.SOURCE] == 2


# -- other rules at run time ------------------------------------------------------------------


def test_counts_survive_other_rules():
    gate = gate_of(per_source=2)
    source = gate.source(HERE)
    receipts = [gate.decide(source, 0.0, in_use=n) for n in range(2)]
    gate.replace(Limits(max_connections=20, per_source=3, deny=["10.0.0.0/8"]))
    assert isinstance(gate.decide(gate.source(HERE), 0.0, in_use=2), Receipt)
    assert gate.decide(gate.source(HERE), 0.0, in_use=3) is REJECTED[Reason.SOURCE]
    gate.replace(Limits(max_connections=20))
    assert not gate.needs_source
    gate.give_back(receipts[0], 0.0)  # type: ignore[arg-type]
    gate.replace(Limits(max_connections=20, per_source=2))
    assert gate.decide(gate.source(HERE), 0.0, in_use=2) is REJECTED[Reason.SOURCE]
    gate.give_back(receipts[1], 0.0)  # type: ignore[arg-type]
    assert isinstance(gate.decide(gate.source(HERE), 0.0, in_use=2), Receipt)


def test_recount_lets_whom_a_dry_run_would_have_rejected_hold_nothing():
    limits = Limits(max_connections=9, per_source=2, dry_run=["source"])
    gate = Gate.from_limits(limits)
    receipts = [gate.decide(gate.source(HERE), 0.0, in_use=n) for n in range(5)]
    assert gate.top_sources(1) == [("192.0.2.1", 2)]
    gate.replace(replace(limits, rate=100.0))
    receipts = [gate.recount(receipt, gate.source(HERE)) for receipt in receipts]  # type: ignore[arg-type]
    assert gate.top_sources(1) == [("192.0.2.1", 2)]
    gate.replace(replace(limits, dry_run=[]))
    receipts = [gate.recount(receipt, gate.source(HERE)) for receipt in receipts]
    assert gate.top_sources(1) == [("192.0.2.1", 5)]  # as they are: the rule holds now
    gate.replace(limits)
    receipts = [gate.recount(receipt, gate.source(HERE)) for receipt in receipts]
    assert gate.top_sources(1) == [("192.0.2.1", 2)]
    for receipt in receipts:
        gate.give_back(receipt, 0.0)
    assert gate.figures().sources_counted == 0


def test_recount_makes_counts_right_for_whom_the_old_rules_did_not_count():
    gate = Gate(10)
    receipts = [gate.decide(ANY, 0.0, in_use=n) for n in range(3)]
    gate.replace(Limits(max_connections=10, per_source=2, source_prefix_v4=24))
    receipts = [gate.recount(receipt, gate.source(HERE)) for receipt in receipts]  # type: ignore[arg-type]
    assert gate.top_sources(9) == [("192.0.2.0/24", 3)]
    assert gate.decide(gate.source(THERE), 0.0, in_use=3) is REJECTED[Reason.SOURCE]
    gate.replace(Limits(max_connections=10, per_source=2))
    receipts = [gate.recount(receipt, gate.source(HERE)) for receipt in receipts]
    assert gate.top_sources(9) == [("192.0.2.1", 3)]
    for receipt in receipts:
        gate.give_back(receipt, 0.0)
    assert gate.figures().sources_counted == 0


def test_rates_and_penalties_go_on_where_their_settings_are_the_same():
    settings = {"source_rate": 0.001, "rate": 1000, "penalty": 10}
    gate = gate_of(**settings)
    gate.decide(gate.source(HERE), 0.0, in_use=0)
    for _ in range(2):
        gate.note_offence(gate.source(THERE), Offence.HANDSHAKE, 0.0)
    gate.replace(Limits(max_connections=5, per_source=3, **settings))
    assert gate.decide(gate.source(HERE), 0.0, in_use=0) is REJECTED[Reason.SOURCE_RATE]
    assert gate.decide(gate.source(THERE), 0.0, in_use=0) is REJECTED[Reason.PENALTY]
    gate.replace(Limits(max_connections=5, per_source=3, **{**settings, "source_rate": 0.002}))
    assert isinstance(gate.decide(gate.source(HERE), 0.0, in_use=0), Receipt)
    assert gate.decide(gate.source(THERE), 0.0, in_use=0) is REJECTED[Reason.PENALTY]


def test_flood_of_distinct_sources_leaves_no_more_memory_than_the_tables_hold():
    gate = gate_of(per_source=1, source_rate=0.001, penalty=1, source_table=1_000)
    tracemalloc.start()
    try:
        held = []
        for start in (0, 20_000):
            for n in range(start, start + 20_000):
                source = gate.source((f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::1", 1, 0, 0))
                verdict = gate.decide(source, n * 1e-5, in_use=9)
                if isinstance(verdict, Receipt):
                    gate.give_back(verdict, n * 1e-5)
                gate.note_offence(source, Offence.HANDSHAKE, n * 1e-5)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] < held[0] + 200_000  # the remembered 1,024 addresses are cleared now and then
    assert gate.figures().sources_remembered == 1_000


def test_overflow_counters_never_go_back():
    gate = gate_of(source_rate=0.001, source_table=1, penalty=1, penalty_threshold=0)
    for address in (HERE, THERE, ("192.0.2.3", 1)):
        gate.decide(gate.source(address), 0.0, in_use=0)
        gate.note_offence(gate.source(address), Offence.HANDSHAKE, 0.0)
    before = gate.figures()
    assert (before.source_rate_overflow, before.penalty_overflow) == (2, 2)
    gate.replace(Limits(max_connections=10))
    after = gate.figures()
    assert (after.source_rate_overflow, after.penalty_overflow) == (2, 2)


def test_who_found_no_slot_before_its_header_may_try_again_without_offence():
    for in_use, offences in ((0, 1), (10, 0)):
        gate = gate_of(source_rate=1.0, source_rate_burst=1, penalty=100)
        source = gate.source(HERE)
        assert isinstance(gate.classify(source, 0.0, in_use=0), Receipt)
        assert gate.reserve(0.5, in_use=in_use) is (in_use == 0)
        assert gate.classify(source, 0.5, in_use=0) is REJECTED[Reason.SOURCE_RATE]
        assert gate.figures().offences[Offence.RATE] == offences
