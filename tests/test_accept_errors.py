"""Every error of accept() has one of four fates, as data."""

from __future__ import annotations

import errno

import pytest

from gserver.net.accept_errors import Fate, fate_of

TABLE = {
    Fate.SKIP: [
        # accept(2), "Error handling": pending errors of the new socket, as EAGAIN
        "ENETDOWN EPROTO ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH",
        "ECONNABORTED EINTR ETIMEDOUT EPERM",
    ],
    Fate.NO_DESCRIPTORS: ["EMFILE ENFILE"],
    Fate.BACK_OFF: ["ENOBUFS ENOMEM", "EIO ENOSPC EFAULT"],  # the latter: unknown
    Fate.FATAL: ["EBADF EINVAL ENOTSOCK"],
}


@pytest.mark.parametrize(
    ("name", "fate"),
    [(name, fate) for fate, rows in TABLE.items() for row in rows for name in row.split()],
)
def test_an_error_has_its_fate(name: str, fate: Fate) -> None:
    assert fate_of(OSError(getattr(errno, name), "")) is fate


def test_an_error_without_a_number_backs_off() -> None:
    assert fate_of(OSError("no number")) is Fate.BACK_OFF


def test_every_errno_has_a_fate() -> None:
    assert {fate_of(OSError(number, "")) for number in errno.errorcode} == set(Fate)
