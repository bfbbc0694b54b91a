"""Penalties: who is shut out, how long, and who never is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.penalties import Offence, Penalties
from gserver.admission.sources import Source
from gserver.admission.verdict import REJECTED, Reason, Receipt

PENALTY = REJECTED[Reason.PENALTY]
offences = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 30)), max_size=60)


@given(offences, st.integers(1, 20), st.integers(0, 30), st.integers(0, 60))
def test_debts_add_up_are_paid_by_time_and_shut_out_from_the_threshold(
    offences, penalty, threshold, beyond
):
    longest = max(penalty, threshold) + beyond
    penalties = Penalties(penalty, threshold, longest, 10)
    debt = dict.fromkeys(range(3), 0.0)
    shut = dict.fromkeys(range(3), False)
    now = 1000.0
    for who, passing in offences:
        now += passing
        for source in debt:
            debt[source] = max(0.0, debt[source] - passing)
            if debt[source] < 1e-6:
                debt[source], shut[source] = 0.0, False
        penalties.note(str(who), now)
        debt[who] = min(longest, debt[who] + penalty)
        shut[who] |= debt[who] >= threshold
        for source in debt:
            # At the very edges the rounding of the clock decides.
            if abs(debt[source] - threshold) > 1e-6:
                assert penalties.shuts_out(str(source), now) == shut[source]
            if shut[source]:
                assert penalties.shuts_out(str(source), now + debt[source] - 1e-6)
            assert not penalties.shuts_out(str(source), now + debt[source] + 1e-6)


def test_full_table_frees_nobody_and_shuts_out_nobody_else():
    penalties = Penalties(5.0, 5.0, 600.0, 100)
    for n in range(100):
        penalties.note(f"offender {n}", 0.0)
    for n in range(10_000):
        penalties.note(f"flood {n}", 1.0)
    assert len(penalties) == 100
    assert penalties.overflowed == 10_000
    assert all(penalties.shuts_out(f"offender {n}", 1.0) for n in range(100))
    assert not any(penalties.shuts_out(f"flood {n}", 1.0) for n in range(10_000))


def penal(**settings: object) -> Gate:
    limits = {"max_connections": 10, "penalty": 5, "penalty_threshold": 15, **settings}
    return Gate.from_limits(Limits(**limits))


def test_third_failed_handshake_in_a_row_shuts_the_source_out_until_it_is_paid():
    gate = penal()
    bad, good = gate.source(("192.0.2.1", 1)), gate.source(("192.0.2.2", 1))
    for _ in range(2):
        gate.note_offence(bad, Offence.HANDSHAKE, 0.0)
    assert isinstance(gate.decide(bad, 0.0, in_use=0), Receipt)
    gate.note_offence(bad, Offence.HANDSHAKE, 0.0)
    assert gate.decide(bad, 14.9, in_use=0) is PENALTY
    assert isinstance(gate.decide(good, 14.9, in_use=0), Receipt)
    assert isinstance(gate.decide(bad, 15.1, in_use=0), Receipt)
    figures = gate.figures()
    assert figures.offences == {Offence.HANDSHAKE: 3, Offence.HEADER: 0, Offence.RATE: 0}


def test_exempt_networks_are_never_shut_out():
    gate = penal(source_exempt=["10.0.0.0/8"])
    source = gate.source(("10.1.2.3", 1))
    for _ in range(100):
        gate.note_offence(source, Offence.HANDSHAKE, 0.0)
    assert isinstance(gate.decide(source, 0.0, in_use=0), Receipt)
    assert gate.figures().sources_penalised == 0


def hammer(gate: Gate, source: Source, start: float, in_use: int) -> list[object]:
    return [gate.decide(source, start + n * 0.01, in_use=in_use) for n in range(200)]


def test_exceeding_its_rate_shuts_a_source_out():
    gate = penal(source_rate=1.0, source_rate_burst=5)
    verdicts = hammer(gate, gate.source(("192.0.2.1", 1)), 1000.0, in_use=0)
    assert verdicts[5] is REJECTED[Reason.SOURCE_RATE]
    assert verdicts[-1] is PENALTY


def test_honest_client_that_retries_at_a_full_server_is_never_shut_out():
    gate = penal(source_rate=1.0, source_rate_burst=5)
    source = gate.source(("192.0.2.1", 1))
    full = hammer(gate, source, 1000.0, in_use=10)
    assert full[0] is REJECTED[Reason.CAPACITY]
    # And then there is room: its hurry was the full server's fault.
    free = hammer(gate, source, 1002.0, in_use=9)
    assert PENALTY not in full + free
    assert gate.figures().offences[Offence.RATE] == 0


def test_source_that_the_server_had_room_for_is_shut_out_though_others_find_it_full():
    """It holds its slots, and hammers: its own attempts are none of the full server's fault."""
    gate = penal(source_rate=1.0, source_rate_burst=5)
    flood, other = gate.source(("192.0.2.1", 1)), gate.source(("192.0.2.2", 1))
    verdicts = []
    for n in range(200):
        now = 1000.0 + n * 0.01
        verdicts.append(gate.decide(flood, now, in_use=9))
        assert gate.decide(other, now, in_use=10) is not PENALTY
    assert verdicts[-1] is PENALTY
    assert gate.figures().sources_penalised == 1


def test_excuse_lasts_as_long_as_a_rate_takes_to_recover():
    gate = penal(source_rate=1.0, source_rate_burst=5, penalty=100)
    source = gate.source(("192.0.2.1", 1))
    assert gate.decide(source, 1000.0, in_use=10) is REJECTED[Reason.CAPACITY]
    hammer(gate, source, 1003.0, in_use=9)
    assert gate.figures().offences[Offence.RATE] == 0
    hammer(gate, source, 1005.01, in_use=9)
    assert gate.figures().offences[Offence.RATE] == 1


def test_nobody_is_shut_out_for_want_of_room_among_the_excused():
    gate = penal(source_rate=1.0, source_rate_burst=1, penalty=100, source_table=2)
    source = gate.source(("192.0.2.1", 1))
    gate.decide(source, 1000.0, in_use=0)
    rules = gate._rules
    for host in ("192.0.2.2", "192.0.2.3"):  # others fill the table
        rules.excuse(gate.source((host, 1)), 1000.0)
    rules.excuse(source, 1000.0)
    assert gate.decide(source, 1000.5, in_use=0) is REJECTED[Reason.SOURCE_RATE]
    assert gate.figures().offences[Offence.RATE] == 0


def test_waiting_in_vain_and_being_dropped_early_is_no_offence():
    gate = penal(source_rate=1.0, source_rate_burst=5, wait=0.05, wait_queue=1)
    source = gate.source(("192.0.2.1", 1))
    for n in range(200):
        now = 1000.0 + n * 0.01
        gate.expire(now)
        assert gate.decide_or_wait(None, source, now, in_use=10) is not PENALTY
    gate = penal(source_rate=1.0, source_rate_burst=5, early_drop="0:100:10")
    assert PENALTY not in hammer(gate, source, 1000.0, in_use=1)


def test_having_waited_long_in_vain_is_no_offence():
    gate = penal(source_rate=4.0, source_rate_burst=1, penalty=100, wait=10)
    source = gate.source(("192.0.2.1", 1))
    gate.decide_or_wait(None, source, 1000.0, in_use=10)
    assert len(gate.expire(1010.0)) == 1
    assert isinstance(gate.decide(source, 1010.0, in_use=9), Receipt)
    assert gate.decide(source, 1010.1, in_use=9) is REJECTED[Reason.SOURCE_RATE]
    assert gate.decide(source, 1010.2, in_use=9) is REJECTED[Reason.SOURCE_RATE]


def test_total_rate_used_up_by_others_is_no_offence():
    gate = penal(source_rate=4.0, source_rate_burst=1, penalty=100, rate=0.001)
    source = gate.source(("192.0.2.1", 1))
    gate.decide(gate.source(("192.0.2.2", 1)), 1000.0, in_use=0)
    assert gate.decide(source, 1000.0, in_use=9) is REJECTED[Reason.RATE]
    assert gate.decide(source, 1000.1, in_use=9) is REJECTED[Reason.SOURCE_RATE]
    assert gate.decide(source, 1000.2, in_use=9) is REJECTED[Reason.SOURCE_RATE]


def test_one_of_a_flood_of_distinct_sources_is_not_held_to_account_for_all():
    gate = penal(source_rate=0.001, source_table=10)
    for n in range(1_000):
        gate.decide(gate.source((f"10.0.{n >> 8}.{n & 255}", 1)), 1000.0, in_use=0)
    assert gate.figures().source_rate_overflow == 990
    assert gate.figures().offences[Offence.RATE] == 0
