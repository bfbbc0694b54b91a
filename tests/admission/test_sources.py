"""From addresses to sources, against :mod:`ipaddress`."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gserver.admission.sources import Sources

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None and not a.is_link_local)


def name(sources: Sources, host: object) -> str:
    return sources.of((str(host), 1)).name


@given(v4, st.integers(0, 32))
def test_ipv4_source_is_the_network_of_that_prefix(address, prefix):
    expected = ipaddress.ip_network((address, prefix), strict=False)
    assert ipaddress.ip_network(name(Sources(prefix, 64), address)) == expected


@given(v6, st.integers(0, 128))
def test_ipv6_source_is_the_network_of_that_prefix(address, prefix):
    expected = ipaddress.ip_network((address, prefix), strict=False)
    assert ipaddress.ip_network(name(Sources(32, prefix), address)) == expected


@given(v6, st.integers(0, 2**64 - 1), st.integers(0, 2**128 - 1))
def test_two_ipv6_addresses_are_one_source_exactly_if_their_first_64_bits_are(one, low, other):
    assume(low >> 32 != 0xFFFF)
    sources = Sources()
    same = ipaddress.IPv6Address(int(one) >> 64 << 64 | low)
    assert name(sources, one) == name(sources, same)
    if other >> 64 != int(one) >> 64 and other >> 32 != 0xFFFF:
        assert name(sources, one) != name(sources, ipaddress.IPv6Address(other))


@given(v4, st.integers(0, 32))
def test_ipv4_mapped_is_the_ipv4_source_however_it_is_written(address, prefix):
    sources = Sources(prefix, 64)
    plain = name(sources, address)
    bits = int(address)
    assert name(sources, f"::ffff:{address}") == plain
    assert name(sources, f"::ffff:{bits >> 16:x}:{bits & 0xFFFF:x}") == plain
    assert name(sources, f"0:0:0:0:0:FFFF:{bits >> 16:04x}:{bits & 0xFFFF:04X}") == plain


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.7", 4), "192.0.2.7"),
        (("::ffff:192.0.2.7", 4, 0, 0), "192.0.2.7"),
        (("2001:db8::1", 4, 0, 0), "2001:db8::/64"),
        (("2001:db8:1:2:3:4:5:6", 4, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:0:1::", 4, 0, 0), "2001:db8:0:1::/64"),
        (("::1", 4, 0, 0), "::/64"),
        (("64:ff9b::192.0.2.7", 4, 0, 0), "64:ff9b::/64"),
        (("fe80::1", 4, 0, 2), "fe80::%2/64"),
        (("fe80::1%eth0", 4, 0, 0), "fe80::%eth0/64"),
        ("", "unix"),
        (b"", "unix"),
        ("/run/client.sock", "unix"),
        (b"\0abstract", "unix"),
    ],
)
def test_addresses_as_the_socket_module_gives_them(address, expected):
    assert Sources().of(address).name == expected


def test_link_local_addresses_of_two_links_are_two_sources():
    sources = Sources()
    assert sources.of(("fe80::1", 1, 0, 2)).name != sources.of(("fe80::1", 1, 0, 3)).name


def is_no_address(text):
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return True
    return False


@given(st.text().filter(is_no_address), st.sampled_from([24, 32]), st.booleans())
def test_text_that_is_no_address_is_a_source_in_no_network(text, prefix, octets):
    def judge(version, bits):
        return (version == -1, False, version != -1)

    source = Sources(prefix, 64, judge, {"192"} if octets else None).of((text, 1))
    assert source.denied
    assert not source.exempt


@given(st.lists(st.one_of(v4, v6)))
def test_the_judge_is_asked_with_the_whole_address_not_the_prefix(addresses):
    def judge(version, bits):
        return (bits % 2 == 1, version == 6, version == 4)

    sources = Sources(8, 16, judge)
    for address in addresses:
        source = sources.of((str(address), 1))
        assert source.denied == (int(address) % 2 == 1)
        assert source.reserved == (address.version == 6)
        assert source.exempt == (address.version == 4)


def test_what_is_remembered_is_bounded():
    sources = Sources()
    for n in range(10_000):
        sources.of((f"10.0.{n >> 8}.{n & 255}", 1))
        assert len(sources._known) <= 1024
    assert sources.of(("10.0.0.1", 1)) is sources.of(("10.0.0.1", 2))
