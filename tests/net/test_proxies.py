"""Who is trusted to be a proxy, as addresses come from ``accept()``."""

from __future__ import annotations

from typing import Any

import pytest

from gserver.net.proxies import Proxies


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        (["10.0.0.0/8"], ("10.1.2.3", 5), True),
        (["10.0.0.0/8"], ("11.1.2.3", 5), False),
        (["10.0.0.0/8"], ("::ffff:10.1.2.3", 5, 0, 0), True),  # on a dual-stack listener
        (["10.0.0.0/8"], "", False),
        (["2001:db8::/32"], ("2001:db8::1", 5, 0, 0), True),
        (["2001:db8::/32"], ("2001:db9::1", 5, 0, 0), False),
        (["fe80::/10"], ("fe80::1", 5, 0, 2), True),
        (["unix"], "", True),
        (["unix"], b"\0abstract", True),
        (["unix"], ("10.1.2.3", 5), False),
        (["all"], ("192.0.2.1", 5), True),
        (["192.0.2.1", "192.0.2.2"], ("192.0.2.2", 5), True),
    ],
)
def test_trusted_are_those_in_the_networks(
    networks: list[str], address: Any, trusted: bool
) -> None:
    assert Proxies(networks).trust(address) is trusted
