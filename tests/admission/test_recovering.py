"""The bounded table against a dict that forgets nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gserver.admission.recovering import Recovering

WIDTH = 0.5
operations = st.lists(
    st.tuples(
        st.integers(0, 12),  # which source
        st.floats(0, 3),  # seconds until it has recovered
        st.floats(0, 1),  # seconds that pass
    ),
    max_size=120,
)


@given(operations, st.integers(1, 6))
def test_nobody_unrecovered_is_forgotten_and_the_recovered_make_room(operations, bound):
    table = Recovering(bound, WIDTH)
    model: dict[str, float] = {}
    now = 0.0
    for source, seconds, passing in operations:
        now += passing
        key = str(source)
        until = max(model.get(key, 0.0), now + seconds)
        held = {k for k in model if int(model[k] / WIDTH) >= int(now / WIDTH)}
        taken = table.put(key, until, now)
        # Refused exactly if it is new and the table is full of those that haven't recovered
        # (to the width of a slot).
        assert taken == (key in table) == (key in model or len(held) < bound)
        if taken:
            model[key] = until
        model = {k: until for k, until in model.items() if k in table or until > now}
        assert all(table.until(k) == until for k, until in model.items())
        assert len(table) <= bound
        assert len(table) == sum(len(slot) for slot in table._slots.values())
        assert all(table._slots.values())
        assert set(table._slots) <= set(table._order)
        assert len(table._order) <= 2 * bound + 2


def test_a_table_that_is_used_shrinks_to_those_that_have_not_recovered():
    table = Recovering(10_000, WIDTH)
    for n in range(1_000):
        table.put(str(n), 10.0, 0.0)
    assert len(table) == 1_000
    for n in range(1_000):
        table.put(f"later {n % 3}-{n}", 20.0, 20.0 + n * 0.01)
    assert len(table) < 1_000


def test_one_source_that_never_rests_leaves_no_trail():
    table = Recovering(10, 0.001)
    for n in range(10_000):
        table.put("busy", n * 0.01 + 0.005, n * 0.01)
        assert len(table._order) <= 4
    assert len(table._slots) == 1
