"""The figures that each command's run can have: what a threshold may name. Pure.

A run may lack some of them (a percentile of ten samples); a name that is not here it never has.
``hangs`` are all who waited their whole deadline for nothing: those ``queued`` and ``syn_pending``,
and those the server accepted and did not serve (``hang.count``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gserver.errors import SettingError
from gserver.probe.outcomes import OUTCOMES, Outcome
from gserver.probe.stats import QUANTILES
from gserver.probe.threshold import Threshold

__all__ = ["FIGURES", "Figures", "latency_names", "must_exist"]

_OF_LATENCY: Final = (*QUANTILES, "max", "count")  # as Summary.flat() names them
_NOT_ADMITTED: Final = tuple(
    outcome.value for outcome in OUTCOMES if outcome not in (Outcome.ADMITTED, Outcome.LOCAL)
)


@dataclass(frozen=True, slots=True)
class Figures:
    """:param plain: names as they are; *latencies*: each has percentiles, a maximum, a count."""

    plain: tuple[str, ...]
    latencies: tuple[str, ...] = ()

    def __contains__(self, name: object) -> bool:
        return name in self.plain or (
            isinstance(name, str)
            and name.rpartition(".")[0] in self.latencies
            and name.rpartition(".")[2] in _OF_LATENCY
        )

    def __str__(self) -> str:
        text = ", ".join(self.plain)
        if self.latencies:
            text += f"; {'|'.join(_OF_LATENCY)} of {', '.join(self.latencies)}"
        return text


def latency_names(name: str) -> set[str]:
    """What :meth:`Summary.flat` may name of *name*, but for its count, which even none have."""
    return {f"{name}.{part}" for part in _OF_LATENCY if part != "count"}


_PHASES: Final = ("quiet", "control", "flood", "recovery")
_ALL: Final = tuple(outcome.value for outcome in OUTCOMES)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _each(parts: str, names: str) -> tuple[str, ...]:
    return tuple(f"{part}.{name}" for part in parts.split() for name in names.split())


#: By command; ``run`` is a scenario's.
FIGURES: Final = {
    "cap": Figures(
        (
            *_names("limit peak over_admissions fits_after_close tries_after_close"),
            *_names("dropped_while_held slots_lost"),
            *_NOT_ADMITTED,
        )
    ),
    "storm": Figures(
        (
            *_names("rate rejected admitted hangs queued syn_pending unknown dropped"),
            *_names("over_admissions dropped_while_held client_cpu cpu_per_rejection"),
            *_names("machine_cpu_per_attempt memory_per_held socket_memory_per_held"),
            *_names("time_wait_per_rejection time_wait_overflow server_cpu machine_cpu"),
        ),
        ("reject", "reject.response", *_ALL, *(f"{name}.response" for name in _ALL), "slip"),
    ),
    "churn": Figures(
        (
            *_each("reconnect", "tries first_try rejected slots_lost"),
            *_each("false_rejections", "certain possible"),
            *_names("over_admissions dropped_while_held server_cpu machine_cpu client_cpu"),
            *_names("leavers leavers_skipped leavers_rate"),
            *_ALL,
        ),
        ("reconnect.lag", "reconnect.connect_lag", "freed_slot_lag"),
    ),
    "slow": Figures(
        (
            *_each("silent trickle half_close", "slots slots_at_end closed closed_after_max"),
            *_each("silent trickle half_close", "answered"),
            *_names("server_cpu machine_cpu"),
        )
    ),
    "isolation": Figures(
        (
            *_each("isolation", "p50 p99 goodput"),
            *_each("quiet control flood recovery", "goodput late missed lost"),
            *_names("victims_lost dropped_while_held admitted rejected rate"),
            *_names("cpu_per_rejection_with_answers machine_cpu_per_attempt"),
            *_names("server_cpu machine_cpu"),
        ),
        (*_PHASES, *(f"{phase}.service" for phase in _PHASES)),
    ),
    "selftest": Figures(
        ("ceiling", *_each("noise.p50 noise.p99", "low high min max")), ("fin", "slip")
    ),
    "run": Figures(
        _names("hangs queued peak over_admissions client_cpu user_failures"),
        ("reject", "request", *_ALL),
    ),
}


def must_exist(command: str, thresholds: Iterable[Threshold]) -> None:
    """Refuse a threshold whose figure no run of *command* has, before there is a run.

    :raises SettingError: names what there is.
    """
    known = FIGURES[command]
    for threshold in thresholds:
        if threshold.figure not in known:
            raise SettingError(
                "--threshold",
                threshold.text,
                f"{command} has no figure {threshold.figure}; it has {known}",
            )
