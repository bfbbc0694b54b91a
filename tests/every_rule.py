"""Every rule switched on and asked of the clients of a test, none of which turns them away before
the cap does."""

from __future__ import annotations

from typing import Any

import pytest

from gserver import Limiter, Limits


def every_rule(cap: int, *, reserve: bool = False, **more: Any) -> Limits:
    """``cap`` slots for the clients of a test, and every other rule but waiting; ``more`` in their
    stead or besides.

    :param reserve: with one slot more, for others, who never come. The clients of a test are none
        of them: whom the reserve is for, the rate and early drop leave alone.
    """
    reserved = {"reserved": 1, "reserved_for": ["198.51.100.0/24"]} if reserve else {}
    return Limits(
        **{
            "max_connections": cap + reserve,
            **reserved,
            "per_source": 1000,
            "source_exempt": ["198.51.100.0/24"],
            "rate": 1_000_000.0,
            # Its table files a source by the minute then: no test's work depends on the clock.
            "source_rate": 1000.0,
            "source_rate_burst": 10_000_000,
            "allow": ["all"],
            "deny": ["203.0.113.0/24", "2001:db8::/32"],
            # All of them, if it were not only counted.
            "early_drop": f"0:100:{cap + 2}",
            "dry_run": ["early_drop"],
            "penalty": 1.0,
            **more,
        }
    )


def put_in_force(monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Whoever asks for a cap gets every rule with it, for the rest of the test."""
    original = Limiter.__init__

    def with_rules(self: Limiter, limits: int | Limits, **others: Any) -> None:
        capped = isinstance(limits, int) and limits >= 1 and not isinstance(limits, bool)
        original(self, every_rule(limits, **more) if capped else limits, **others)

    monkeypatch.setattr(Limiter, "__init__", with_rules)
