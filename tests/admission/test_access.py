"""Lists of networks against a search that takes its time."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver.admission.access import Access
from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.verdict import REJECTED, Reason, Receipt
from gserver.errors import SettingError

# Few distinct bits, so that networks contain each other and addresses.
v4_networks = st.builds(
    lambda bits, length: ipaddress.ip_network((bits << 24 | bits << 8, length), strict=False),
    st.integers(0, 3),
    st.integers(0, 32),
)
v6_networks = st.builds(
    lambda bits, length: ipaddress.ip_network((bits << 120 | bits, length), strict=False),
    st.integers(0, 3),
    st.integers(0, 128),
)
networks = st.lists(st.one_of(v4_networks, v6_networks), max_size=8)
addresses = st.one_of(
    st.integers(0, 3).map(lambda bits: ipaddress.IPv4Address(bits << 24 | bits << 8)),
    st.integers(0, 3).map(lambda bits: ipaddress.IPv6Address(bits << 120 | bits)),
)


@given(networks, networks, addresses)
def test_most_specific_network_wins_and_an_allow_list_denies_the_rest(allow, deny, address):
    deny = [network for network in deny if network not in allow]
    access = Access(map(str, allow), list(map(str, deny)))
    hits = [(n.prefixlen, False) for n in allow if n.version == address.version and address in n]
    hits += [(n.prefixlen, True) for n in deny if n.version == address.version and address in n]
    expected = max(hits)[1] if hits else bool(allow)
    assert access.denies(address.version, int(address)) == expected


@given(networks, networks, networks, addresses)
def test_a_source_is_in_the_lists_that_have_a_network_with_it(deny, operators, exempt, address):
    limits = Limits(
        max_connections=2,
        deny=list(map(str, deny)),
        reserved=1 if operators else 0,
        reserved_for=list(map(str, operators)),
        per_source=1,
        source_exempt=list(map(str, exempt)),
    )
    source = Gate.from_limits(limits).source((str(address), 1))
    found = [
        any(n.version == address.version and address in n for n in listed)
        for listed in (deny, operators, exempt)
    ]
    assert [source.denied, source.reserved, source.exempt] == found


@pytest.mark.parametrize(
    ("host", "denied"),
    [
        ("2001:db8:1::1", False),
        ("2001:db8:1:1::1", True),
        ("2001:db8:1:1::7", False),
        ("2001:db8:2::1", True),
        ("10.1.2.3", False),
        ("10.2.2.3", True),
    ],
)
def test_networks_within_networks(host, denied):
    address = ipaddress.ip_address(host)
    allow = ["all", "2001:db8:1::/48", "2001:db8:1:1::7", "10.1.0.0/16"]
    access = Access(allow, ["2001:db8::/32", "2001:db8:1:1::/64", "10.0.0.0/8"])
    assert access.denies(address.version, int(address)) is denied


def test_a_network_in_both_lists_is_refused_by_name():
    with pytest.raises(SettingError, match=r"^deny '10\.0\.0\.0/8': is in the allow list too"):
        Access(["10.0.0.0/8"], ["192.0.2.0/24", "10.0.0.0/8"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.1/8", "has bits set beyond its prefix, 10.0.0.0/8 has not"),
        ("localhost", "is not a network"),
        ("", "is not a network"),
        ("fe80::%eth0/64", "is not a network"),
        (7, "is not a network"),
    ],
)
def test_what_is_no_network_is_refused_by_name(text, says):
    with pytest.raises(SettingError, match=r"^allow .*: ") as caught:
        Access([text], [])
    assert says in caught.value.problem


def verdicts(limits: Limits, *hosts: object) -> list[bool]:
    gate = Gate.from_limits(limits)
    admitted = []
    for host in hosts:
        address = host if isinstance(host, bytes) else (host, 1)
        verdict = gate.decide(gate.source(address), 0.0, in_use=0)
        assert isinstance(verdict, Receipt) or verdict is REJECTED[Reason.DENIED]
        admitted.append(isinstance(verdict, Receipt))
    return admitted


def test_deny_list_alone_lets_everybody_else_in():
    limits = Limits(max_connections=1, deny=["192.0.2.0/24", "2001:db8::/32"])
    hosts = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "192.0.3.1", b"")
    assert verdicts(limits, *hosts) == [False, False, False, True, True]


def test_mapped_network_means_the_ipv4_network():
    limits = Limits(max_connections=1, deny=["::ffff:192.0.2.0/120"])
    assert verdicts(limits, "192.0.2.1", "::ffff:192.0.2.1", "192.0.3.1") == [False, False, True]


def test_one_address_can_be_denied_within_a_source():
    limits = Limits(max_connections=1, deny=["2001:db8::7"])
    assert verdicts(limits, "2001:db8::7", "2001:db8::8") == [False, True]


def test_unix_clients_are_let_in_by_an_allow_list_only_by_name():
    limits = Limits(max_connections=1, allow=["10.0.0.0/8"])
    assert verdicts(limits, b"", "/run/s", "10.2.3.4") == [False, False, True]
    for allow in ["unix"], ["all"]:
        assert verdicts(Limits(max_connections=1, allow=allow), b"") == [True]


def test_unix_clients_are_denied_by_name():
    assert verdicts(Limits(max_connections=1, deny=["unix"]), b"", "1.2.3.4") == [False, True]
    limits = Limits(max_connections=1, deny=["all"], allow=["10.0.0.0/8"])
    assert verdicts(limits, b"", "10.2.3.4", "1.2.3.4", "::2") == [False, True, False, False]
