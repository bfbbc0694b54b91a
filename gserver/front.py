"""One listener's side of the limiter, as the limiter sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gserver.admission.verdict import Reason, Receipt

__all__ = ["Client", "Front"]

#: A client just accepted: its descriptor and its address, as ``_socket``'s ``_accept`` gives them.
Client = tuple[int, Any]


class Front(Protocol):
    """Knows how to start a client and how to turn one away. Either owns the descriptor from then
    on."""

    #: By reason, what turns away the client on a descriptor (``Rejection.on``).
    turn_away: Mapping[Reason, Callable[[int], object]]

    def admit(self, fd: int, address: Any, receipt: Receipt) -> None:
        """Take a slot and start serving. When it raises it has closed ``fd`` and holds no slot."""
