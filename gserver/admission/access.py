"""Who may connect at all: allow and deny lists, the most specific entry wins."""

from __future__ import annotations

from collections.abc import Iterable

from gserver.admission.networks import NetworkTable, parse_networks
from gserver.errors import SettingError

__all__ = ["Access"]


class Access:
    """Two lists of networks.

    Who is in none of them is let in if there is no allow list, and turned away if there is one:
    an allow list names everybody who may connect (``all`` can be in it). Clients of a unix socket
    are in no network but ``unix`` and ``all``: an allow list lets them in only by these. A trusted
    proxy may name such a client too, whom no file system here has let in.

    :raises SettingError: an entry is no network, or the same network is in both lists.
    """

    __slots__ = ("_others_denied", "_table")

    def __init__(self, allow: Iterable[str], deny: Iterable[str]) -> None:
        allowed = parse_networks("allow", allow)
        denied = parse_networks("deny", deny)
        if both := set(allowed) & set(denied):
            given = next(text for text in deny if both & set(parse_networks("deny", [text])))
            raise SettingError("deny", given, "is in the allow list too: keep one of them")
        self._others_denied = bool(allowed)
        self._table: NetworkTable[bool] = NetworkTable(
            [(entry, False) for entry in allowed] + [(entry, True) for entry in denied]
        )

    def first_octets(self) -> set[str]:
        """See :meth:`NetworkTable.first_octets`."""
        return self._table.first_octets()

    def denies(self, version: int, bits: int) -> bool:
        """Whether the address (as :data:`gserver.admission.sources.Judge` has it) is denied."""
        denied = self._table.find(version, bits)
        return self._others_denied if denied is None else denied
