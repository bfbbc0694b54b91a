"""The queue: whose turn it is, who never overtakes, what is held meanwhile."""

from __future__ import annotations

import pytest

from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.sources import ANY
from gserver.admission.verdict import REJECTED, Reason, Receipt
from gserver.admission.waiting import Waiter

CAP = 3


def waiting_gate(**settings: object) -> Gate:
    return Gate.from_limits(Limits(max_connections=CAP, wait=0.5, **settings))


def queue(gate: Gate, *clients: str, now: float = 0.0) -> list[Waiter]:
    waiters = [gate.decide_or_wait(client, ANY, now, in_use=CAP) for client in clients]
    assert all(isinstance(waiter, Waiter) for waiter in waiters)
    return waiters  # type: ignore[return-value]


def turns(gate: Gate, in_use: int) -> list[str]:
    served = []
    while (waiter := gate.next_waiter(in_use=in_use)) is not None:
        served.append(waiter.client)
        in_use += 1
    return served


@pytest.mark.parametrize(("order", "served"), [("fifo", ["a", "b"]), ("lifo", ["d", "c"])])
def test_slots_go_to_those_whose_turn_it_is(order, served):
    gate = waiting_gate(wait_order=order)
    queue(gate, "a", "b", "c", "d")
    assert turns(gate, CAP) == []
    assert turns(gate, CAP - 2) == served
    assert gate.waiting == 2


def test_full_queue_is_a_verdict_and_without_waiting_the_cap_is():
    gate = waiting_gate(wait_queue=2)
    queue(gate, "a", "b")
    assert gate.decide_or_wait("c", ANY, 0.0, in_use=CAP) is REJECTED[Reason.WAIT_FULL]
    gate = Gate(CAP)
    assert gate.decide_or_wait("c", ANY, 0.0, in_use=CAP) is REJECTED[Reason.CAPACITY]


@pytest.mark.parametrize("order", ["fifo", "lifo"])
def test_newcomer_never_overtakes_who_waits(order):
    gate = waiting_gate(wait_order=order)
    queue(gate, "a")
    # A slot is free, and a's.
    assert isinstance(gate.decide_or_wait("new", ANY, 0.0, in_use=CAP - 1), Waiter)
    assert gate.decide(ANY, 0.0, in_use=CAP - 1) is REJECTED[Reason.CAPACITY]
    assert gate.recheck(ANY, 0.0, in_use=CAP - 1) is REJECTED[Reason.CAPACITY]
    assert not gate.reserve(0.0, in_use=CAP - 1)
    assert gate.reserve(0.0, in_use=CAP - 3)


def test_deadline_is_the_first_arrivals_and_expiry_exact():
    gate = waiting_gate()
    assert gate.next_deadline is None
    queue(gate, "a", now=10.0)
    queue(gate, "b", now=10.1)
    assert gate.next_deadline == 10.5
    assert gate.expire(10.499) == []
    assert [waiter.client for waiter in gate.expire(gate.next_deadline)] == ["a"]
    assert [waiter.client for waiter in gate.expire(99.0)] == ["b"]
    assert gate.next_deadline is None


def test_who_left_is_not_served_and_leaves_once():
    gate = waiting_gate()
    a, _b = queue(gate, "a", "b")
    assert gate.leave(a)
    assert not gate.leave(a)
    assert turns(gate, 0) == ["b"]
    assert not gate.leave(_b)


def test_waiter_holds_its_count_until_whatever_end():
    gate = waiting_gate(per_source=1, wait_queue=10)
    sources = [gate.source((f"192.0.2.{n}", 1)) for n in range(4)]

    def join() -> list[Waiter]:
        return [gate.decide_or_wait(s.name, s, 0.0, in_use=CAP) for s in sources]  # type: ignore[misc]

    served, left, expired, dismissed = join()
    assert all(gate.decide(s, 0.0, in_use=0) is REJECTED[Reason.SOURCE] for s in sources)
    assert gate.figures().sources_counted == 4
    assert gate.next_waiter(in_use=2) is served
    assert gate.leave(left)
    assert gate.figures().sources_counted == 3
    assert gate.expire(99.0) == [expired, dismissed]
    assert gate.figures().sources_counted == 1
    gate.give_back(served.receipt, 99.0)
    assert gate.figures().sources_counted == 0
    join()
    assert [waiter.client for waiter in gate.dismiss()] == [s.name for s in sources]
    assert gate.figures().sources_counted == gate.waiting == 0


def test_reserved_slot_is_not_given_to_who_may_not_have_it_nor_kept_from_who_may():
    gate = waiting_gate(reserved=1, reserved_for=["10.0.0.0/8"])
    operator, other = gate.source(("10.0.0.1", 1)), gate.source(("192.0.2.1", 1))
    assert isinstance(gate.decide_or_wait("other", other, 0.0, in_use=2), Waiter)
    assert turns(gate, 2) == []
    assert isinstance(gate.decide_or_wait("operator", operator, 0.0, in_use=2), Receipt)
    # With a slot free that is the waiter's, the operator takes the one beside it, not that one.
    assert isinstance(gate.decide(operator, 0.0, in_use=1), Receipt)
    assert isinstance(gate.decide_or_wait("operator", operator, 0.0, in_use=3), Waiter)
    assert turns(gate, 2) == ["operator"]
    assert turns(gate, 1) == ["other"]


def test_between_both_lines_the_order_of_arrival_decides():
    for order, expected in (("fifo", ["o1", "r1", "o2"]), ("lifo", ["o2", "r1", "o1"])):
        gate = waiting_gate(reserved=1, reserved_for=["10.0.0.0/8"], wait_order=order)
        operator, other = gate.source(("10.0.0.1", 1)), gate.source(("192.0.2.1", 1))
        gate.decide_or_wait("o1", other, 0.0, in_use=3)
        gate.decide_or_wait("r1", operator, 0.0, in_use=3)
        gate.decide_or_wait("o2", other, 0.0, in_use=3)
        gate.resize(10)
        assert turns(gate, 0) == expected


def test_expiry_and_dismissal_go_by_arrival_over_both_lines():
    for first, second in (("10.0.0.1", "192.0.2.1"), ("192.0.2.1", "10.0.0.1")):
        gate = waiting_gate(reserved=1, reserved_for=["10.0.0.0/8"])
        for host, now in ((first, 0.0), (second, 0.1), (first, 0.2)):
            gate.decide_or_wait(now, gate.source((host, 1)), now, in_use=CAP)
        assert gate.next_deadline == 0.5
        assert [waiter.client for waiter in gate.expire(0.5)] == [0.0]
        assert gate.next_deadline == 0.6
        assert [waiter.client for waiter in gate.dismiss()] == [0.1, 0.2]


def test_shorter_wait_applies_to_those_who_wait_already():
    gate = waiting_gate()
    queue(gate, "a")
    gate.replace(Limits(max_connections=CAP, wait=0.1))
    assert gate.next_deadline == 0.1
    gate.replace(Limits(max_connections=CAP))
    assert not gate.may_wait
    # Nobody overtakes a either, though there is no rule but the cap any more.
    assert gate.decide(ANY, 0.0, in_use=CAP - 1) is REJECTED[Reason.CAPACITY]
    assert [waiter.client for waiter in gate.expire(0.0)] == ["a"]
    assert isinstance(gate.decide(ANY, 0.0, in_use=CAP - 1), Receipt)


def test_unclassified_client_waits_for_any_slot():
    gate = waiting_gate(reserved=1, reserved_for=["10.0.0.0/8"])
    assert gate.reserve_or_wait("early", 0.0, in_use=2) is True
    assert isinstance(gate.reserve_or_wait("late", 0.0, in_use=3), Waiter)
    assert turns(gate, 2) == ["late"]
    gate = Gate(CAP)
    assert gate.reserve_or_wait("late", 0.0, in_use=3) is REJECTED[Reason.CAPACITY]


def test_so_many_at_most_expire_and_the_others_keep_their_places():
    gate = waiting_gate(wait_queue=4)
    queue(gate, "a", "b", "c", "d")
    assert [waiter.client for waiter in gate.expire(0.5, 3)] == ["a", "b", "c"]
    assert gate.waiting == 1
    assert gate.next_deadline == 0.5
    assert [waiter.client for waiter in gate.expire(0.5, 3)] == ["d"]


def test_who_was_held_for_its_sources_slots_may_wait_once_it_has_some():
    gate = waiting_gate(per_source=1)
    one = gate.source(("192.0.2.1", 1))
    held = gate.decide(one, 0.0, in_use=CAP - 1)
    assert isinstance(held, Receipt)
    ask = lambda: gate.recheck_or_wait("a", one, 0.0, in_use=CAP)  # noqa: E731
    assert ask() is REJECTED[Reason.SOURCE]
    gate.give_back(held, 0.0)
    assert isinstance(ask(), Waiter)
    assert gate.waiting == 1
