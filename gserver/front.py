"""One listener's side of the limiter, as the limiter sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gserver.admission.verdict import Reason, Receipt
from gserver.net.proxies import Proxies
from gserver.net.proxy_protocol import Done

__all__ = ["Client", "Front"]

#: A client just accepted: its descriptor and its address, as ``_socket``'s ``_accept`` gives them.
Client = tuple[int, Any]


class Front(Protocol):
    """Knows how to start a client and how to turn one away. Either owns the descriptor from then
    on."""

    #: By reason, what turns away the client on a descriptor (``Rejection.on``).
    turn_away: Mapping[Reason, Callable[[int], object]]

    #: Who may connect, and say for whom; None: clients connect themselves.
    proxies: Proxies | None

    def read_header(self, fd: int, done: Done) -> Callable[[], object]:
        """Begin to read the PROXY protocol's header, where :attr:`proxies` is not None: see
        :meth:`gserver.net.proxy_protocol.ProxyReader.read`."""
        ...

    def admit(self, fd: int, address: Any, receipt: Receipt, header_bytes: int) -> None:
        """Take a slot and start serving. When it raises it has closed ``fd`` and holds no slot.

        :param header_bytes: the size of the PROXY header read from ``fd``; 0: there was none.
        """
