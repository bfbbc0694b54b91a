"""The oracle: has the server accepted this connection? Asked of the kernel, on the same host.

Netlink sock_diag (``sock_diag(7)``). A connection's server-side row has inode 0 until a process
has accepted it, and a LISTEN row's receive queue is the number of connections waiting. One
connection is asked for by its four-tuple: the kernel looks it up in a hash and does not walk its
tables, so the question costs some ten microseconds however many connections there are.
"""

from __future__ import annotations

import _socket
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

__all__ = ["Listener", "Oracle"]

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLM_F_DUMP: Final = 0x300
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_INET_DIAG_REQ_BYTECODE: Final = 1
_INET_DIAG_SKV6ONLY: Final = 11  # comes with every LISTEN row of IPv6
_BC_S_GE: Final = 2
_BC_S_LE: Final = 3
_TCP_TIME_WAIT: Final = 6
_TCP_LISTEN: Final = 10
# States of a row that waits to be accepted: ESTABLISHED, CLOSE_WAIT (the client has left). In
# SYN_RECV and NEW_SYN_RECV the handshake is not complete, though the client may think so: its ACK
# was dropped because the queue was full. In any other, inode 0 means closed by its owner
# (include/net/tcp_states.h).
_BEFORE_ACCEPT: Final = (1, 8)
_NO_COOKIE: Final = b"\xff" * 8

_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI")
_ROW: Final = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg

Address = tuple[str, int]
_CONNECTS_TO: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who connects to a wildcard
_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96


class _Row(NamedTuple):
    state: int
    receive_queue: int
    send_queue: int
    inode: int
    ident: bytes  # inet_diag_sockid
    family: int
    attributes: bytes


@dataclass(frozen=True, slots=True)
class Listener:
    """One LISTEN row: connections waiting to be accepted, and how many may."""

    waiting: int
    backlog: int
    inode: int


def _packed(host: str) -> tuple[int, bytes]:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, address.packed.ljust(16, b"\0")


def _sock_id(server: Address, client: Address) -> tuple[int, bytes]:
    family, here = _packed(server[0])
    _, there = _packed(client[0])
    ports = struct.pack("!HH", server[1], client[1])
    return family, ports + here + there + bytes(4) + _NO_COOKIE


def _client(ident: bytes) -> int:
    """The other end in an inet_diag_sockid, whose row is the server's: address and port packed."""
    port, there = int.from_bytes(ident[2:4], "big"), ident[20:36]
    if there.startswith(_MAPPED):
        there = there[12:]
    elif any(there[4:]):
        return port  # IPv6
    return int.from_bytes(there[:4], "big") << 16 | port


def _row(message: bytes) -> _Row:
    family, state, _, _, ident, _, receive_queue, send_queue, _, inode = _ROW.unpack_from(message)
    return _Row(state, receive_queue, send_queue, inode, ident, family, message[_ROW.size :])


def _is_v6_only(attributes: bytes) -> bool:
    at = 0
    while at + 4 < len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if kind == _INET_DIAG_SKV6ONLY:
            return bool(attributes[at + 4])
        at += max(4, (length + 3) & ~3)
    return False


def _nearness(host: str, row: _Row) -> int:
    """How near a LISTEN row is to a connection to *host*; 0: it cannot come there.

    The kernel takes its very address before a wildcard, and IPv4 before a dual-stack socket
    (``inet_lookup_listener()`` and ``compute_score()`` in net/ipv4/inet_hashtables.c).
    """
    family, packed = _packed(host)
    here = row.ident[4:20]
    if not any(here):
        if family == row.family:
            return 2
        return int(family == socket.AF_INET and not _is_v6_only(row.attributes))
    if family == row.family:
        return 4 if here == packed else 0
    return 3 if family == socket.AF_INET and here == _MAPPED + packed[:4] else 0


class Oracle:
    """A netlink socket that answers for connections of this host and network namespace.

    :raises OSError: the kernel has no sock_diag, or this is not Linux.
    """

    def __init__(self) -> None:
        # Not socket.socket, which monkey-patching replaces: the kernel answers at once, and this
        # is asked from hub callbacks, where nothing may wait.
        self._sock: Any = _socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        )
        self._seq = 0

    def close(self) -> None:
        """Close the netlink socket. May be called again."""
        self._sock.close()

    def accepted(self, server: Address, client: Address) -> bool | None:
        """Whether a process has accepted the connection *client* made to *server*.

        :return: None when the kernel has no such connection: it is another host's, another
            network namespace's, or gone; or the server's side has not completed the handshake.
        """
        family, ident = _sock_id(server, client)
        rows = self._ask(family, ident, states=0xFFFFFFFF, flags=_NLM_F_REQUEST)
        for row in rows:
            if row.inode and row.state != _TCP_LISTEN:  # without a connection the listener's comes
                return True
            if row.state in _BEFORE_ACCEPT:
                return False
        return None

    def listeners(self, port: int, host: str | None = None) -> list[Listener]:
        """The LISTEN rows on *port*. Walks the kernel's table of listeners.

        :param host: only those that a connection to this address can come to, several with
            SO_REUSEPORT; None: of any address, IPv4 and IPv6.
        """
        rows = self._dump(port, 1 << _TCP_LISTEN)
        if host is not None:
            host = _CONNECTS_TO.get(host, host)
            near = [_nearness(host, row) for row in rows]
            most = max(near, default=0)
            rows = [row for n, row in zip(near, rows, strict=True) if n == most > 0]
        return [Listener(row.receive_queue, row.send_queue, row.inode) for row in rows]

    def time_waits(self, port: int) -> set[int]:
        """Connections in TIME_WAIT on the server's side of *port*, by the client's end.

        Walks the whole table, and sees each once, though rows come twice when it changes meanwhile.

        :return: ``address << 16 | port`` each; address 0 for IPv6.
        """
        return {_client(row.ident) for row in self._dump(port, 1 << _TCP_TIME_WAIT)}

    def _dump(self, port: int, states: int) -> list[_Row]:
        # inet_diag_bc_op: code, yes (offset when true), no (offset when false; past the end by
        # four: not wanted). Each comparison's port stands in the operation after it.
        code = struct.pack("=BBHBBH", _BC_S_GE, 8, 20, 0, 0, port)
        code += struct.pack("=BBHBBH", _BC_S_LE, 8, 12, 0, 0, port)
        attribute = struct.pack("=HH", 4 + len(code), _INET_DIAG_REQ_BYTECODE) + code
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        return [
            row
            for family in (socket.AF_INET, socket.AF_INET6)
            for row in self._ask(family, bytes(48), states=states, flags=flags, attribute=attribute)
        ]

    def _ask(
        self, family: int, ident: bytes, *, states: int, flags: int, attribute: bytes = b""
    ) -> list[_Row]:
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, states) + ident + attribute
        self._seq += 1
        self._sock.send(
            _HEADER.pack(16 + len(body), _SOCK_DIAG_BY_FAMILY, flags, self._seq, 0) + body
        )
        rows: list[_Row] = []
        while True:
            answer = self._sock.recv(1 << 16)
            at = 0
            while at < len(answer):
                length, kind, _, seq, _ = _HEADER.unpack_from(answer, at)
                if seq == self._seq:
                    if kind in (_NLMSG_DONE, _NLMSG_ERROR):  # an error here is ENOENT: no row
                        return rows
                    rows.append(_row(answer[at + 16 : at + length]))
                at += (length + 3) & ~3
            if not flags & _NLM_F_DUMP:
                return rows
