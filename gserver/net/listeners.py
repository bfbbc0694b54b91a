"""Listeners: what an address means, and opening them, all or none.

Sources: ip(7), ipv6(7) and unix(7); listen(2), which caps a backlog at
/proc/sys/net/core/somaxconn without an error.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from gserver.errors import SettingError

__all__ = [
    "Listener",
    "describe",
    "describe_peer",
    "host_and_port",
    "open_listeners",
    "system_backlog",
    "tcp_listener",
]

_ACCEPTED = "give HOST:PORT, :PORT, [IPv6]:PORT, unix:/path or unix:@name"
_PORT_TRIES = 16  # for two families to find one free port
_MOST_BACKLOG = 2**31 - 1
_LONGEST_LOCKED_S = 1.0  # opening a unix socket takes well under a millisecond


def system_backlog() -> int:
    """The longest backlog the system allows."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return _socket.SOMAXCONN


def tcp_listener(
    address: tuple[Any, ...], backlog: int, family: int | None = None, *, reuse_addr: bool = True
) -> _socket.socket:
    """A non-blocking listening TCP socket; the caller closes it.

    :param address: (host, port[, …]) as for ``bind``. An empty host with AF_INET6 listens on
        both families, whatever net.ipv6.bindv6only says; on a machine without IPv6, on IPv4.
    :raises OSError: as ``bind`` and ``listen`` do, the address added to its text.
    """
    family = _socket.AF_INET if family is None else family
    any_address = not address[0]
    try:
        sock = _socket.socket(family, _socket.SOCK_STREAM)
    except OSError:
        if not (any_address and family == _socket.AF_INET6):
            raise
        family = _socket.AF_INET
        sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        if reuse_addr:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if any_address and family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and any_address and family == _socket.AF_INET6:
                sock.close()  # IPv6 is compiled in and disabled
                return tcp_listener(address, backlog, _socket.AF_INET, reuse_addr=reuse_addr)
            if error.strerror is not None:
                error.strerror += f": {address!r}"
            raise
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listening socket, and what there is to remove when it is closed.

    :ivar socket: raw and non-blocking.
    :ivar path: the unix socket's file, and its (device, inode).
    """

    socket: _socket.socket
    path: tuple[str, tuple[int, int]] | None = None

    def close(self) -> None:
        """Close it, and remove its file if it is still its own."""
        self.socket.close()
        self.forget()

    def forget(self) -> None:
        """Remove its file, if it is still its own: the socket is closed elsewhere."""
        if self.path is not None:
            path, identity = self.path
            with contextlib.suppress(OSError), _folder_locked(path):
                status = os.stat(path)
                if (status.st_dev, status.st_ino) == identity:
                    os.unlink(path)


def describe(address: Any) -> str:
    """A socket's address as it is written: ``127.0.0.1:8999``, ``[::]:8999``, ``unix:/path``."""
    if isinstance(address, tuple):
        host, port = address[:2]
        if host.startswith("::ffff:") and "." in host:  # an IPv4 peer of a dual-stack listener
            host = host.removeprefix("::ffff:")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(address, bytes):
        return "unix:@" + os.fsdecode(address.removeprefix(b"\0"))
    return f"unix:{address}"


def describe_peer(address: Any) -> str:
    """:func:`describe` for the log: a unix client names its own socket, or has no name."""
    text = describe(address) if address else "unix"
    return text if text.isprintable() else ascii(text)[1:-1]


def open_listeners(text: str, backlog: int, *, setting: str = "--listen") -> list[Listener]:
    """Open what ``text`` names: one listener, or one a family for a name like ``localhost``.

    :param text: HOST:PORT, :PORT, [IPv6]:PORT, unix:/path or unix:@name (abstract).
    :param backlog: as for listen(2), a C int; above the system's limit it is the limit.
    :raises SettingError: it cannot be read, or cannot be opened. Nothing is left open.
    """
    if not 0 <= backlog <= _MOST_BACKLOG:
        raise SettingError("--backlog", backlog, f"must be a whole number, 0 to {_MOST_BACKLOG:,}")
    if text.startswith("unix:"):
        return [_unix_listener(text, backlog, setting)]
    host, port = host_and_port(text, setting)
    if not host:
        addresses: list[tuple[int, tuple[Any, ...]]] = [(_socket.AF_INET6, ("", port))]
    else:
        try:
            found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise SettingError(setting, text, f"the host does not resolve: {error}") from None
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for _ in range(_PORT_TRIES):
        listeners: list[Listener] = []
        taken = None
        for family, address in addresses:
            if port == 0 and listeners:  # the number the first one was given
                address = (address[0], listeners[0].socket.getsockname()[1], *address[2:])
            try:
                listeners.append(Listener(tcp_listener(address, backlog, family)))
            except OSError as error:
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and (
                    len(addresses) > 1
                ):
                    continue  # "localhost" may name ::1 where there is no IPv6
                taken = error
                break
        if taken is None and listeners:
            return listeners
        for listener in listeners:
            listener.close()
        if taken is None or port != 0 or taken.errno != errno.EADDRINUSE or not listeners:
            break
    failure = OSError(errno.EADDRNOTAVAIL, "") if taken is None else taken
    raise SettingError(setting, text, _why_not(failure)) from None


def host_and_port(text: str, setting: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or [IPv6]:PORT taken apart. Raises :class:`SettingError`."""
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise SettingError(setting, text, f"no port; {_ACCEPTED}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise SettingError(setting, text, f"an IPv6 address goes in brackets; {_ACCEPTED}")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        raise SettingError(setting, text, f"the port must be 0 to 65535; {_ACCEPTED}")
    return host, int(digits)


def _why_not(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is taken; stop what listens there, or choose another"
        case errno.EACCES:
            return "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "this machine has no such address"
        case _:
            return f"cannot listen there: {error.strerror or error}"


def _unix_listener(text: str, backlog: int, setting: str) -> Listener:
    name = text.removeprefix("unix:")
    if not name or name == "@":
        raise SettingError(setting, text, f"no path; {_ACCEPTED}")
    abstract = name.startswith("@")
    address: Any = b"\0" + os.fsencode(name[1:]) if abstract else name
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if abstract:
            sock.bind(address)
            sock.listen(backlog)
            return Listener(sock)
        with _folder_locked(name):
            _remove_stale(name, text, setting)
            sock.bind(address)
            sock.listen(backlog)
            status = os.stat(name)
        return Listener(sock, (name, (status.st_dev, status.st_ino)))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            problem = "the name is taken; stop what listens there, or choose another"
        elif error.errno is None:  # "AF_UNIX path too long"
            problem = str(error)
        else:
            problem = f"cannot listen there: {error.strerror}"
        raise SettingError(setting, text, problem) from None
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    """One server at a time looks whether a path is free and takes it: else the second of two
    would remove the live socket of the first, or one that is bound and does not listen yet.

    The folder is what is locked (flock(2)), so that no file is left behind. Anybody who may read
    the folder can lock it, too: for a second at most, then we go on without.
    """
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it may be written to and not read; or bind() will say what is wrong
        yield
        return
    try:
        until = monotonic() + _LONGEST_LOCKED_S
        while not _locked(folder) and monotonic() < until:
            sleep(0.001)
        yield
    finally:
        os.close(folder)  # and so unlocks it


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _remove_stale(path: str, text: str, setting: str) -> None:
    """Remove the socket file of a server that is gone; leave a live one's and any other file.

    unix(7): connecting to a socket file whose listener is gone gives ECONNREFUSED.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingError(setting, text, "exists and is not a socket; choose another path")
    with _closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(path)
    match error:
        case errno.ECONNREFUSED:
            os.unlink(path)
        case errno.ENOENT:
            pass  # it has gone meanwhile
        case errno.EACCES:
            problem = "is a socket that may not be connected to, so whether it is in use is not "
            raise SettingError(setting, text, problem + "known; remove it, or choose another path")
        case errno.EPROTOTYPE:
            problem = "is in use as a socket of another type (datagrams); choose another path"
            raise SettingError(setting, text, problem)
        case _:
            raise SettingError(
                setting, text, "a server listens there already; stop it, or choose another path"
            )


@contextlib.contextmanager
def _closing(sock: _socket.socket) -> Any:
    try:
        yield sock
    finally:
        sock.close()
