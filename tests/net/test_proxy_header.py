"""The PROXY header's parser: what it takes, what it refuses, and that nothing makes it raise."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from missing import missing

from gserver.net.proxy_header import MAX_HEADER, Address, Fault, Header, parse

V2 = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7") + b"\xdc\x04\x01\xbb"
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + b"\xdc\x04\x01\xbb"
)


def v2(command: int, family: int, body: bytes = b"", *, announced: int | None = None) -> bytes:
    length = len(body) if announced is None else announced
    return V2 + bytes([command, family]) + struct.pack("!H", length) + body


def unix(source: bytes) -> bytes:
    return source.ljust(108, b"\0") + b"/to".ljust(108, b"\0")


GOOD: list[tuple[bytes, Address | None]] = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", ("192.0.2.1", 56324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", ("2001:db8::1", 1, 0, 0)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("::ffff:192.0.2.1", 1, 0, 0)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 \xff\xff what ever\r\n", None),
    (v2(0x21, 0x11, IPV4), ("192.0.2.1", 56324)),
    (v2(0x21, 0x12, IPV4), ("192.0.2.1", 56324)),
    (v2(0x21, 0x11, IPV4 + b"\x04\x00\x02\0\0"), ("192.0.2.1", 56324)),  # a NOOP TLV
    (v2(0x21, 0x11, IPV4 + b"not a TLV at all"), ("192.0.2.1", 56324)),
    (v2(0x21, 0x21, IPV6), ("2001:db8::1", 56324, 0, 0)),
    (v2(0x21, 0x31, unix(b"/run/app.sock")), "/run/app.sock"),
    (v2(0x21, 0x31, unix(b"/run/app\0stale bytes")), "/run/app"),
    (v2(0x21, 0x31, unix(b"\0abstract")), "\0abstract"),
    (v2(0x21, 0x31, unix(b"")), ""),
    (v2(0x21, 0x31, unix(b"/\xff")), "/\udcff"),
    (v2(0x21, 0x00), None),
    (v2(0x21, 0x00, b"ignored"), None),
    (v2(0x20, 0x00), None),
    (v2(0x20, 0x11, IPV4), None),  # LOCAL: the family is ignored,
    (v2(0x20, 0xFF, b"abc"), None),  # even one that does not exist
    (v2(0x21, 0x11, IPV4 + bytes(MAX_HEADER - 16 - len(IPV4))), ("192.0.2.1", 56324)),
]

BAD: list[tuple[bytes, Fault]] = [
    (b"GET / HTTP/1.1\r\n", Fault.NO_HEADER),
    (b"\x16\x03\x01\x02\x00", Fault.NO_HEADER),
    (b"PROXX", Fault.NO_HEADER),
    (b"proxy TCP4 192.0.2.1 198.51.100.7 1 2\r\n", Fault.NO_HEADER),
    (b"\r\n\r\n\0\r\nQUIX", Fault.NO_HEADER),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n", Fault.MALFORMED),
    (b"PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2 198.51.100.7 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 1_0 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 1 99999\r\n", Fault.MALFORMED),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP6 2001:db8::1 ::1::2 1 2\r\n", Fault.MALFORMED),
    (b"PROXY TCP6 12345::1 ::1 1 2\r\n", Fault.MALFORMED),
    (b"PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n", Fault.MALFORMED),
    (b"PROXY UNKNOWNS\r\n", Fault.MALFORMED),
    (b"PROXY \r\n", Fault.MALFORMED),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", Fault.TOO_LONG),
    (b"PROXY TCP4" + b" " * 97, Fault.TOO_LONG),
    (v2(0x11, 0x11, IPV4), Fault.MALFORMED),  # version 1 in binary
    (v2(0x22, 0x11, IPV4), Fault.MALFORMED),  # an unassigned command,
    (v2(0x21, 0x41, IPV4), Fault.MALFORMED),  # family
    (v2(0x21, 0x13, IPV4), Fault.MALFORMED),  # and transport
    (v2(0x21, 0x11, IPV4[:-1]), Fault.MALFORMED),
    (v2(0x21, 0x21, IPV4), Fault.MALFORMED),
    (v2(0x21, 0x31, IPV6), Fault.MALFORMED),
    (v2(0x21, 0x11, announced=MAX_HEADER - 15), Fault.TOO_LONG),
    (v2(0x20, 0x00, announced=65535), Fault.TOO_LONG),
]


@pytest.mark.parametrize(("data", "source"), GOOD)
@pytest.mark.parametrize("surplus", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"PROXY UNKNOWN\r\n"])
def test_a_header_is_taken_and_what_follows_is_not(
    data: bytes, source: Address | None, surplus: bytes
) -> None:
    assert parse(data + surplus) == Header(len(data), source)


@pytest.mark.parametrize(("data", "source"), GOOD)
def test_every_proper_prefix_of_a_header_is_incomplete(data: bytes, source: Address | None) -> None:
    assert all(parse(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize(("data", "fault"), BAD)
def test_what_does_not_match_exactly_is_a_fault(data: bytes, fault: Fault) -> None:
    assert parse(data) is fault


def hold_invariants(data: bytes) -> None:
    """What holds for any bytes. Also the target of fuzz_proxy_header.py."""
    found = parse(data)
    if found is None:
        assert len(data) < MAX_HEADER
        return
    # More data never changes a verdict.
    assert parse(data + b"\r\n") == found
    if isinstance(found, Fault):
        assert found in (Fault.NO_HEADER, Fault.MALFORMED, Fault.TOO_LONG)
        return
    assert 0 < found.size <= min(len(data), MAX_HEADER)
    assert parse(data[: found.size]) == found
    assert parse(data[: found.size - 1]) is None
    if isinstance(found.source, tuple):
        host, port = found.source[:2]
        ipaddress.ip_address(host)
        assert 0 <= port <= 65535


addresses = st.one_of(
    st.ip_addresses().map(str), st.text(st.sampled_from("0123456789abcf:.% "), max_size=45)
)
ports = st.one_of(st.integers(-1, 70000).map(str), st.text(max_size=6))
lines = st.builds(
    lambda family, words, end: (" ".join(["PROXY", family, *words]) + end).encode(
        "utf-8", "surrogatepass"
    ),
    st.sampled_from(["TCP4", "TCP6", "UNKNOWN", "UNIX", ""]),
    st.tuples(addresses, addresses, ports, ports),
    st.sampled_from(["\r\n", "\n", "\r", "", "\r\r\n"]),
)
binaries = st.builds(
    lambda command, family, length, body: V2 + bytes([command, family]) + length + body,
    st.one_of(st.sampled_from([0x20, 0x21]), st.integers(0, 255)),
    st.one_of(st.sampled_from([0x00, 0x11, 0x21, 0x31]), st.integers(0, 255)),
    st.one_of(st.integers(0, 260).map(lambda n: struct.pack("!H", n)), st.binary(min_size=2)),
    st.binary(max_size=300),
)


@given(st.one_of(st.binary(max_size=300), lines, binaries))
def test_no_bytes_raise_and_verdicts_are_final(data: bytes) -> None:
    hold_invariants(data)


@given(st.sampled_from([data for data, _ in GOOD]), st.data())
def test_a_damaged_header_does_not_raise(header: bytes, data: st.DataObject) -> None:
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    hold_invariants(bytes(damaged))


@given(st.one_of(st.binary(max_size=300), lines, binaries), st.integers(0, 400))
def test_an_incomplete_part_never_hides_a_header_of_another_size(data: bytes, cut: int) -> None:
    """A reader may take out what is incomplete: the header found later contains all of it."""
    if parse(data[:cut]) is None:
        whole = parse(data)
        assert not isinstance(whole, Header) or whole.size > min(cut, len(data) - 1)


def test_coverage_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        missing("atheris is missing: pip install atheris")
    outcome = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fuzz_proxy_header.py")), "-runs=100000"],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert "Done 100000 runs" in outcome.stderr
