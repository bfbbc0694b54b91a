"""Which of a program's listeners is the service that the cap is for.

Left alone it is the first that is not internal, and every other one with the same port (the same
service on another address). ``only`` names them instead.
"""

from __future__ import annotations

import _socket
import logging
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final

from gserver.errors import SettingError
from gserver.net.listeners import describe, host_and_port

__all__ = ["Service"]

log = logging.getLogger("gserver")

#: Packages that listen for a program's own use: worker pipes, debuggers, configuration.
_INTERNAL: Final = frozenset(
    ("multiprocessing", "concurrent", "debugpy", "pydevd", "_pydevd_bundle", "remote_pdb", "rpdb")
)
_INTERNAL_MODULES: Final = frozenset(("logging.config", "gevent.backdoor"))
_INTERNAL_FUNCTIONS: Final = frozenset(("_fallback_socketpair",))


class Service:
    """The choice. Stateful: the first listener decides for the later ones.

    :param only: ``:PORT``, ``HOST:PORT``, ``[IPv6]:PORT``, ``unix:/path`` or ``unix:@name``. HOST
        may be a name: what it resolves to now counts.
    :raises SettingError: one that cannot be read or does not resolve.
    """

    def __init__(self, only: Iterable[str] = ()) -> None:
        self._only = frozenset(only)
        self._uncapped: set[str] = set()
        self._chosen: Any = None  # a port, or a unix socket's path
        self._named = frozenset(name for text in self._only for name in _names(text))

    def uncapped(self) -> frozenset[str]:
        """The other listeners, as they are written."""
        return frozenset(self._uncapped)

    def includes(self, sock: Any, frame: FrameType | None) -> bool:
        """Whether the listening ``sock`` belongs to the service.

        :param frame: of the caller of ``listen()``; None when it was listening before.
        """
        if sock.type & 0xF != _socket.SOCK_STREAM:
            return False
        address = sock.getsockname()
        text = describe(address)
        key = address[1] if isinstance(address, tuple) else address
        if self._only:
            if text in self._named or (isinstance(key, int) and f":{key}" in self._named):
                return True
            self._uncapped.add(text)
            log.warning("%s is not capped: not among --only %s", text, " ".join(self._only))
            return False
        internal = _internal(frame)
        if internal is not None:
            self._uncapped.add(text)
            log.info("%s is not capped: %s listens there for itself", text, internal)
            return False
        if self._chosen is None:
            self._chosen = key
        if key == self._chosen:
            return True
        self._uncapped.add(text)
        log.warning(
            "%s is not capped: the cap is on the first listener; name others with --only", text
        )
        return False


def _names(text: str) -> set[str]:
    """What ``text`` of ``only`` names, as :func:`describe` writes it."""
    if text.startswith("unix:"):
        return {text}
    host, port = host_and_port(text, "--only")
    if not host:
        return {f":{port}"}
    try:
        found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingError("--only", text, f"the host does not resolve: {error}") from None
    return {describe(address) for *_, address in found}


def _internal(frame: FrameType | None) -> str | None:
    """The internal package among the callers, by its name."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if (
            name.partition(".")[0] in _INTERNAL
            or name in _INTERNAL_MODULES
            or frame.f_code.co_name in _INTERNAL_FUNCTIONS
        ):
            return name
        frame = frame.f_back
    return None
