"""The measuring client: finds any TCP server's connection limit and how it turns people away.

    outcomes, profiles    what a client observed, decided without I/O
    oracle                asks the kernel whether the server has accepted a connection
    engine                connection attempts on hub callbacks over raw sockets
    calibrate, cap        what one client sees; the limit and the policy at it
    known_cap, holders    the cap to work at, and who holds it
    flood, open_loop      arrivals at a rate, in processes of their own
    storm, churn, slow, isolation, selftest        one command each
    stats, figures, ledger, threshold, validity    figures, and whether they count
    result, reports       one run's result, and where it goes
    text_report, html_report, plots                how it looks there
    users, shape, events, swarm                    scenario files, in Locust's vocabulary
    cli, options, measuring, run                   the commands, and how each runs

A scenario file needs only the names exported here.
"""

from gserver.probe.events import events
from gserver.probe.outcomes import Outcome
from gserver.probe.shape import LoadShape
from gserver.probe.users import (
    Session,
    SocketUser,
    between,
    constant,
    constant_pacing,
    task,
)

__all__ = [
    "LoadShape",
    "Outcome",
    "Session",
    "SocketUser",
    "between",
    "constant",
    "constant_pacing",
    "events",
    "task",
]
