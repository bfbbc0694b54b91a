"""The busy replies as what they are: pure functions of the bytes received."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver.errors import SettingError
from gserver.replies import BY_NAME, Reply, Script, named
from gserver.replies.script import HANG_UP, WAIT

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)
CANCEL_REQUEST = struct.pack("!IIII", 16, 80877102, 4711, 42)
STARTUP = struct.pack("!II", 23, 3 << 16) + b"user\0someone\0\0"
CONNECT_311 = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a"
CONNECT_31 = b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"


def connect_5(properties: bytes) -> bytes:
    rest = b"\0\x04MQTT\x05\x02\0\x3c" + bytes([len(properties)]) + properties + b"\0\x01a"
    return b"\x10" + bytes([len(rest)]) + rest


OPENINGS = [
    b"",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\n\r\n",
    SSL_REQUEST + STARTUP,
    GSSENC_REQUEST + SSL_REQUEST + STARTUP,
    CANCEL_REQUEST,
    CONNECT_31,
    CONNECT_311,
    connect_5(b""),
    connect_5(b"\x27\0\0\0\x05"),
]
scripts = st.sampled_from(sorted(BY_NAME)).map(named)
client_bytes = st.one_of(
    st.binary(max_size=1200),
    st.sampled_from(OPENINGS).flatmap(lambda o: st.binary(max_size=600).map(o.__add__)),
    st.lists(st.sampled_from([*OPENINGS, b"\x10", b"\xff", b"\0\x04MQTT\x05"]), max_size=8).map(
        b"".join
    ),
)


@given(script=scripts, data=client_bytes)
def test_no_bytes_raise_and_every_script_ends_at_its_bound(script: Script, data: bytes) -> None:
    due, finished = script.turn(data)
    assert isinstance(due, bytes)
    assert len(due) < 1024
    if len(data) >= script.max_received:
        assert finished
    assert script.turn(data[: script.max_received]).finished == finished


@given(script=scripts, data=client_bytes, cut=st.integers(0, 1200))
def test_what_is_due_only_grows_as_more_is_received(script: Script, data: bytes, cut: int) -> None:
    before, after = script.turn(data[:cut]), script.turn(data)
    assert after.due.startswith(before.due)
    if before.finished:
        assert after == before


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_only_a_tls_record_goes_to_tls_clients(name: str) -> None:
    assert named(name).tls == (name == "tls-alert")


def test_an_unknown_name_gives_the_list() -> None:
    with pytest.raises(SettingError) as caught:
        named("gopher", setting="--reject")
    assert str(caught.value).startswith("--reject 'gopher': no such reply; one of ftp, http, ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("payload", [b"", "busy", None, bytearray(b"busy")])
def test_a_plain_reply_needs_bytes(payload: object) -> None:
    with pytest.raises(SettingError, match="must be bytes"):
        Reply(payload)  # type: ignore[arg-type]


def test_a_plain_reply_says_its_bytes_at_once() -> None:
    assert Reply(b"busy\r\n").turn(b"") == (b"busy\r\n", True)


def test_http_waits_for_the_first_byte() -> None:
    assert named("http").turn(b"") == WAIT
    due, finished = named("http").turn(b"G")
    assert finished
    head, content = due.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(content)}".encode() in head


def test_http_answers_head_without_content() -> None:
    for size in range(1, 5):
        assert named("http").turn(b"HEAD "[:size]) == WAIT
    assert named("http").turn(b"HEAD ").due.endswith(b"\r\n\r\n")
    assert not named("http").turn(b"HELLO").due.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("version", [3 << 16, 3 << 16 | 2])  # 3.0, and 3.2 of PostgreSQL 18
def test_postgres_is_unwilling_to_encrypt_and_then_fails_the_startup(version: int) -> None:
    startup = struct.pack("!II", 23, version)
    turn = named("postgres").turn
    assert turn(SSL_REQUEST) == (b"N", False)
    assert turn(GSSENC_REQUEST + SSL_REQUEST) == (b"NN", False)
    due, finished = turn(GSSENC_REQUEST + SSL_REQUEST + startup)
    assert finished
    assert due.startswith(b"NNE")
    assert struct.unpack_from("!I", due, 3)[0] == len(due) - 3
    assert b"\0C53300\0" in due


@pytest.mark.parametrize(
    "opening",
    [
        CANCEL_REQUEST,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # TLS without asking (sslnegotiation=direct)
        struct.pack("!II", 10001, 3 << 16),
        struct.pack("!II", 8, 2 << 16),
    ],
)
def test_postgres_just_closes_on_what_is_no_startup(opening: bytes) -> None:
    assert named("postgres").turn(opening) == HANG_UP


def test_postgres_does_not_negotiate_for_ever() -> None:
    assert named("postgres").turn(SSL_REQUEST * 100) == (b"NNN", True)


@pytest.mark.parametrize("connect", [CONNECT_31, CONNECT_311])
def test_mqtt_3_gets_return_code_3(connect: bytes) -> None:
    assert named("mqtt").turn(connect) == (b"\x20\x02\x00\x03", True)


def test_mqtt_bridges_set_a_bit_of_the_level_and_get_the_same() -> None:
    """mosquitto's, which announce themselves so (try_private in mosquitto.conf(5))."""
    connects = {CONNECT_31: b"p\x03", CONNECT_311: b"T\x04", connect_5(b""): b"T\x05"}
    for connect, level in connects.items():
        bridge = connect.replace(level, bytes([level[0], level[1] | 0x80]))
        assert bridge != connect
        assert named("mqtt").turn(bridge) == named("mqtt").turn(connect) != HANG_UP


def test_mqtt_5_gets_server_busy_with_a_reason() -> None:
    due, finished = named("mqtt").turn(connect_5(b"\x11\0\0\0\x0a\x26\0\x01k\0\x01v"))
    assert finished
    assert due[:4] == bytes([0x20, len(due) - 2, 0, 0x89])
    assert b"Too many connections" in due


@pytest.mark.parametrize("properties", [b"\x27\0\0\0\x05", b"\x21\0\x01\x27\0\0\0\x10"])
def test_mqtt_5_reason_is_left_out_when_it_would_be_too_large(properties: bytes) -> None:
    assert named("mqtt").turn(connect_5(properties)) == (b"\x20\x03\x00\x89\x00", True)


def test_mqtt_5_long_properties_are_not_waited_for() -> None:
    connect = b"\x10\xff\x7f\0\x04MQTT\x05\x02\0\x3c\xff\x7e"
    assert named("mqtt").turn(connect) == (b"\x20\x03\x00\x89\x00", True)


@pytest.mark.parametrize(
    "opening",
    [b"GET / HTTP/1.1", b"\x10\xff\xff\xff\xff\x01", b"\x10\x10\0\x04HTTP", connect_5(b"\x99")],
)
def test_mqtt_just_closes_on_what_is_no_connect(opening: bytes) -> None:
    assert named("mqtt").turn(opening) == HANG_UP


@given(st.sampled_from([CONNECT_31, CONNECT_311, connect_5(b"\x27\0\0\0\x05")]))
def test_mqtt_waits_for_as_much_as_it_needs(connect: bytes) -> None:
    turns = [named("mqtt").turn(connect[:size]) for size in range(len(connect) + 1)]
    answers = [turn for turn in turns if turn != WAIT]
    assert len(set(answers)) <= 1
    assert turns[0] == WAIT


def test_ssh_packet_is_well_formed() -> None:
    due = named("ssh").turn(b"").due
    version, packet = due.split(b"\r\n", 1)
    assert version == b"SSH-2.0-gserver"
    length, padding, message, reason, text_length = struct.unpack_from("!IBBII", packet)
    assert length == len(packet) - 4
    assert len(packet) % 8 == 0
    assert 4 <= padding <= 255
    assert (message, reason) == (1, 12)
    assert packet[14 : 14 + text_length] == b"Too many connections, try again later"
    assert len(packet) == 14 + text_length + 4 + padding


def test_mysql_packet_is_well_formed() -> None:
    due = named("mysql").turn(b"").due
    assert int.from_bytes(due[:3], "little") == len(due) - 4
    assert due[3] == 0
    assert due[4:7] == b"\xff\x10\x04"
