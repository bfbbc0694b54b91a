"""What the kernel says of a port's sockets: sock_diag(7)."""

from __future__ import annotations

import socket
import struct

TIME_WAIT = 6
_LISTEN = 10
_ALL_STATES = (1 << 13) - 1  # linux/tcp_states.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr, netlink(7)
_REQUEST = struct.Struct("=BBBBI H46x")  # struct inet_diag_req_v2, sock_diag(7)
_MESSAGE = struct.Struct("=BBxx48x16xI")  # struct inet_diag_msg


def kernel_rows(port: int, states: int = _ALL_STATES ^ 1 << TIME_WAIT) -> list[tuple[int, int]]:
    """(state, inode) of each TCP socket whose local port this is, listeners excepted. Inode 0:
    not accepted yet, or nobody's any more. Sockets in TIME_WAIT only when asked for."""
    rows = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:
        for family in socket.AF_INET, socket.AF_INET6:
            wanted = states & ~(1 << _LISTEN)
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, wanted, socket.htons(port))
            length = _HEADER.size + len(request)
            # SOCK_DIAG_BY_FAMILY; NLM_F_REQUEST and NLM_F_DUMP
            netlink.sendall(_HEADER.pack(length, 20, 0x301, 0, 0) + request)
            while rows_of_answer := _parse(netlink.recv(1 << 20)):
                rows += [row for row in rows_of_answer if row is not None]
                if None in rows_of_answer:
                    break
    return rows


def _parse(data: bytes) -> list[tuple[int, int] | None]:
    """The rows of a netlink answer; None for its end."""
    rows: list[tuple[int, int] | None] = []
    offset = 0
    while offset < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if kind == 20:
            _, state, inode = _MESSAGE.unpack_from(data, offset + _HEADER.size)
            rows.append((state, inode))
        else:
            assert kind == 3, "netlink error"  # NLMSG_DONE
            rows.append(None)
        offset += (length + 3) & ~3
    return rows
