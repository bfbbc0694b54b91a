"""When a run does not count: the client was the bottleneck, or at fault. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["REMEDIES", "ClientHealth", "Remedies", "judge"]

_WARN_CPU: Final = 0.75  # share of a core: latency bends from here on
_INVALID_CPU: Final = 0.90
_RATE_REACHED: Final = 0.99
_SLIP_FLOOR_S: Final = 0.0005
_SLIP_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Remedies:
    """What the user can do about it, by options that the command has.

    :param load: when the client is the bottleneck; *local*: when attempts fail on this machine.
    """

    load: str
    local: str = "raise the limit on open files (`ulimit -n`)"


_FLOOD: Final = "lower --rate or raise --processes"

#: By command; ``run`` is a scenario's.
REMEDIES: Final = {
    "storm": Remedies(_FLOOD, "raise --sources, or the limit on open files (`ulimit -n`)"),
    "churn": Remedies("lower --rate or --joiners"),
    "isolation": Remedies(_FLOOD),
    "isolation, victims": Remedies("lower --victim-rate"),
    "selftest": Remedies("lower --rate"),  # where it judges, one process makes the load
    "run": Remedies("take fewer --users"),
}


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How the load generator itself fared.

    :param cpu_shares: each client process's CPU time over wall time.
    :param planned: arrivals that were due; ``started`` in time; ``dropped`` never started.
    :param slip_p99_s: how late arrivals started; None: too few to say.
    :param outcome_p99_s: the latency it is compared with; None: too few to say.
    """

    cpu_shares: Sequence[float]
    planned: int
    started: int
    dropped: int
    slip_p99_s: float | None
    outcome_p99_s: float | None
    local_errors: int

    @property
    def rate_was_kept(self) -> bool:
        """Whether all but a few arrivals started in time."""
        return self.started >= _RATE_REACHED * self.planned

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "cpu_shares": list(self.cpu_shares),
            "planned": self.planned,
            "started": self.started,
            "dropped": self.dropped,
            "slip_p99_s": self.slip_p99_s,
            "local_errors": self.local_errors,
        }


def judge(health: ClientHealth, command: str) -> tuple[list[str], list[str]]:
    """Warnings, and reasons why the run is invalid, one sentence each.

    :param command: as in :data:`REMEDIES`.
    """
    remedies = REMEDIES[command]
    warnings, invalid = [], []
    busiest = max(health.cpu_shares, default=0.0)
    if busiest >= _INVALID_CPU:
        invalid.append(
            f"the client was saturated: {busiest:.0%} of a core (invalid from {_INVALID_CPU:.0%}); "
            f"{remedies.load}"
        )
    elif busiest >= _WARN_CPU:
        warnings.append(f"the client used {busiest:.0%} of a core: its own latency bends figures")
    if not health.rate_was_kept:
        invalid.append(
            f"the rate was not kept: {health.started} of {health.planned} arrivals started in "
            f"time ({health.dropped} dropped); {remedies.load}"
        )
    if health.local_errors:
        invalid.append(
            f"{health.local_errors} attempts failed on this machine (descriptors or ports); "
            f"{remedies.local}"
        )
    if health.slip_p99_s is not None:
        bound = max(_SLIP_FLOOR_S, _SLIP_SHARE * (health.outcome_p99_s or 0.0))
        if health.slip_p99_s > bound:
            warnings.append(
                f"arrivals started late: slip p99 {health.slip_p99_s * 1e6:.0f} us, more than "
                f"{bound * 1e6:.0f} us"
            )
    return warnings, invalid
