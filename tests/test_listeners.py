"""Listeners: what an address means; opening is all or nothing; bad input is one clear line."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gserver import SettingError
from gserver.net import listeners
from gserver.net.listeners import (
    Listener,
    describe,
    describe_peer,
    open_listeners,
    system_backlog,
    tcp_listener,
)


@contextmanager
def opened(text: str, backlog: int = 8) -> Iterator[list[Listener]]:
    with ExitStack() as stack:
        found = open_listeners(text, backlog)
        for listener in found:
            stack.callback(listener.close)
        yield found


def talks(address: Any, family: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        return sock.connect_ex(address) == 0


def port_of(listener: Listener) -> int:
    return int(listener.socket.getsockname()[1])


# ---- what an address means -------------------------------------------------------------------


def test_host_and_port_is_that_address() -> None:
    with opened("127.0.0.1:0") as (listener,):
        assert listener.socket.getsockname()[0] == "127.0.0.1"
        assert port_of(listener) != 0
        assert not listener.socket.getblocking()
        assert talks(listener.socket.getsockname(), socket.AF_INET)


def test_brackets_hold_an_ipv6_address() -> None:
    with opened("[::1]:0") as (listener,):
        assert listener.socket.family == socket.AF_INET6
        assert talks(("::1", port_of(listener)), socket.AF_INET6)


@pytest.mark.parametrize("text", [":0", "[::]:0"])
def test_a_port_alone_is_every_address_of_both_families(text: str) -> None:
    with opened(text) as (listener,):
        assert talks(("127.0.0.1", port_of(listener)), socket.AF_INET)
        assert talks(("::1", port_of(listener)), socket.AF_INET6)


def test_localhost_with_port_zero_is_both_families_on_the_same_port() -> None:
    with opened("localhost:0") as found:
        families = {listener.socket.family for listener in found}
        resolved = {row[0] for row in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert families <= resolved
        assert len({port_of(listener) for listener in found}) == 1
        for listener in found:
            assert talks(listener.socket.getsockname()[:2], listener.socket.family)


def _both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to both, whatever this machine's hosts file says."""

    def getaddrinfo(_host: str, port: int, *_more: int) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),  # seen in the wild
        ]

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)


def test_a_name_of_both_families_opens_one_listener_each_on_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _both_families(monkeypatch)
    with opened("both:0") as found:
        assert [listener.socket.family for listener in found] == [socket.AF_INET6, socket.AF_INET]
        assert len({port_of(listener) for listener in found}) == 1


def test_when_one_family_of_a_name_is_taken_none_is_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _both_families(monkeypatch)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match="the port is taken"):
            open_listeners(f"both:{port}", 8)
        assert not talks(("::1", port), socket.AF_INET6)


def test_with_port_zero_a_port_that_the_other_family_cannot_have_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _both_families(monkeypatch)
    opening = listeners.tcp_listener
    ports: list[int] = []

    def unlucky(address: Any, backlog: int, family: int | None = None) -> Any:
        if family == socket.AF_INET and len(ports) < 3:
            ports.append(address[1])
            raise OSError(errno.EADDRINUSE, "on purpose")
        return opening(address, backlog, family)

    monkeypatch.setattr(listeners, "tcp_listener", unlucky)
    with opened("both:0") as found:
        assert len(found) == 2
        assert len({port_of(listener) for listener in found}) == 1
    assert len(ports) == 3
    for port in ports:
        assert not talks(("::1", port), socket.AF_INET6)


def test_a_name_of_both_families_opens_what_this_machine_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _both_families(monkeypatch)
    opening = listeners.tcp_listener

    def no_ipv6(address: Any, backlog: int, family: int | None = None) -> Any:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "on purpose")
        return opening(address, backlog, family)

    monkeypatch.setattr(listeners, "tcp_listener", no_ipv6)
    with opened("both:0") as (listener,):
        assert listener.socket.family == socket.AF_INET


@pytest.mark.parametrize("disabled", ["socket", "bind"])
def test_without_ipv6_an_empty_host_is_every_ipv4_address(
    disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoIpv6(_socket.socket):
        def __init__(self, family: int = -1, *rest: Any) -> None:
            if disabled == "socket" and family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "on purpose")
            super().__init__(family, *rest)

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "on purpose")
            super().bind(address)

    monkeypatch.setattr(_socket, "socket", NoIpv6)
    with opened(":0") as (listener,):
        assert listener.socket.family == socket.AF_INET
        assert listener.socket.getsockname()[0] == "0.0.0.0"


def test_the_backlog_may_be_as_long_as_the_system_allows() -> None:
    assert system_backlog() == int(Path("/proc/sys/net/core/somaxconn").read_text())


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 8999), "127.0.0.1:8999"),
        (("::", 8999, 0, 0), "[::]:8999"),
        ("/run/a.sock", "unix:/run/a.sock"),
        (b"\0name", "unix:@name"),
        (("::ffff:192.0.2.1", 8999, 0, 0), "192.0.2.1:8999"),
        (("::ffff:1", 8999, 0, 0), "[::ffff:1]:8999"),
    ],
)
def test_an_address_is_described_as_it_is_written(address: Any, text: str) -> None:
    assert describe(address) == text


def test_a_unix_peers_own_name_is_escaped_for_the_log() -> None:
    assert describe_peer("/tmp/a\nb\x1b") == r"unix:/tmp/a\nb\x1b"
    assert describe_peer("") == "unix"
    assert describe_peer(("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1:1"


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no port"),
        ("8999", "no port"),
        ("127.0.0.1", "no port"),
        ("127.0.0.1:", "the port must be 0 to 65535"),
        ("127.0.0.1:http", "the port must be 0 to 65535"),
        ("127.0.0.1:-1", "the port must be 0 to 65535"),
        ("127.0.0.1:65536", "the port must be 0 to 65535"),
        ("127.0.0.1:8 ", "the port must be 0 to 65535"),
        ("127.0.0.1:٣", "the port must be 0 to 65535"),
        ("::1:8999", "an IPv6 address goes in brackets"),
        ("http://127.0.0.1:8999", "an IPv6 address goes in brackets"),
        ("no.such.host.invalid:0", "the host does not resolve"),
        ("[::1:0", "an IPv6 address goes in brackets"),
        ("a..b:0", "the host does not resolve"),
        ("192.0.2.1:0", "this machine has no such address"),
        ("[2001:db8::1]:0", "this machine has no such address"),
        ("unix:", "no path"),
        ("unix:@", "no path"),
        ("unix:/no/such/directory/s", "cannot listen there: No such file or directory"),
        ("unix:/" + "x" * 200, "too long"),
        ("unix:@" + "x" * 200, "too long"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line_that_says_why(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_listeners(text, 8, setting="--listen")
    message = str(caught.value)
    assert message.startswith(f"--listen {text!r}: ")
    assert problem in message
    assert "\n" not in message


def test_a_taken_port_is_said_to_be() -> None:
    with opened("127.0.0.1:0") as (listener,):
        with pytest.raises(SettingError, match="the port is taken; stop what listens there"):
            open_listeners(describe(listener.socket.getsockname()), 8)


def test_a_privileged_port_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprivileged(_socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(_socket, "socket", Unprivileged)
    with pytest.raises(SettingError, match="ports below 1024 need root"):
        open_listeners("127.0.0.1:80", 8)


# ---- unix sockets ----------------------------------------------------------------------------


def test_a_unix_socket_listens_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(f"unix:{path}") as (listener,):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert talks(str(path), socket.AF_UNIX)
        assert not listener.socket.getblocking()
    assert not path.exists()


def test_an_abstract_unix_socket_has_no_file() -> None:
    name = f"gserver-test-{os.getpid()}"
    with opened(f"unix:@{name}") as (listener,):
        assert listener.path is None
        assert talks(f"\0{name}", socket.AF_UNIX)
        with pytest.raises(SettingError, match="the name is taken"):
            open_listeners(f"unix:@{name}", 8)
        assert describe(listener.socket.getsockname()) == f"unix:@{name}"


def _dead_servers_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


def test_a_dead_servers_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    _dead_servers_file(path)
    with opened(f"unix:{path}"):
        assert talks(str(path), socket.AF_UNIX)


def test_a_live_servers_socket_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(f"unix:{path}"):
        with pytest.raises(SettingError, match="a server listens there already"):
            open_listeners(f"unix:{path}", 8)
        assert talks(str(path), socket.AF_UNIX)


def test_a_live_server_with_a_full_queue_is_live(tmp_path: Path) -> None:
    """connect(2) to it says EAGAIN."""
    path = tmp_path / "s"
    with ExitStack() as stack:
        stack.enter_context(opened(f"unix:{path}", backlog=0))
        for _ in range(10):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        else:
            pytest.fail("the queue did not fill")
        with pytest.raises(SettingError, match="a server listens there already"):
            open_listeners(f"unix:{path}", 8)


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling", "fifo"])
def test_a_file_of_another_kind_is_left_alone(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "s", tmp_path / "target"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            target.write_text("precious")
            path.symlink_to(target)
        case "dangling":
            path.symlink_to(target)
        case "fifo":
            os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(SettingError, match="exists and is not a socket"):
        open_listeners(f"unix:{path}", 8)
    assert path.lstat() == before


def test_close_leaves_the_file_of_the_server_that_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(f"unix:{path}") as (first,):
        path.unlink()
        with opened(f"unix:{path}"):
            first.close()
            assert talks(str(path), socket.AF_UNIX)


def test_two_servers_that_find_a_dead_servers_file_do_not_both_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    _dead_servers_file(path)
    outcomes: list[Any] = []

    def other() -> None:
        try:
            outcomes.extend(open_listeners(f"unix:{path}", 8))
        except SettingError as error:
            outcomes.append(str(error))

    second = threading.Thread(target=other)
    unlink = os.unlink

    def slow_unlink(what: Any) -> None:
        monkeypatch.setattr(os, "unlink", unlink)
        second.start()  # now, as both have seen that the file is a dead server's
        second.join(0.2)
        unlink(what)

    monkeypatch.setattr(os, "unlink", slow_unlink)
    with opened(f"unix:{path}") as (first,):
        second.join()
        for outcome in outcomes:
            if isinstance(outcome, Listener):
                outcome.close()
        (outcome,) = outcomes
        assert "a server listens there already" in outcome
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            os.close(first.socket._accept()[0])  # it is the first that got it


def test_a_folder_that_somebody_keeps_locked_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with opened(f"unix:{tmp_path / 's'}"):
            assert talks(str(tmp_path / "s"), socket.AF_UNIX)
            fcntl.flock(folder, fcntl.LOCK_UN)
    finally:
        os.close(folder)


def test_a_socket_of_another_type_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        with pytest.raises(SettingError, match="a socket of another type"):
            open_listeners(f"unix:{path}", 8)
    assert path.is_socket()


def test_a_socket_that_may_not_be_connected_to_is_left_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        _dead_servers_file(path)
        path.chmod(0)
        os.chmod(folder, 0o755)
        nobody, me = 65534, os.geteuid()
        if me == 0:
            os.seteuid(nobody)
        try:
            with pytest.raises(SettingError, match="may not be connected to"):
                open_listeners(f"unix:{path}", 8)
        finally:
            if me == 0:
                os.seteuid(me)
        assert path.is_socket()


def test_a_backlog_beyond_a_c_int_is_one_line(tmp_path: Path) -> None:
    for text in ("127.0.0.1:0", f"unix:{tmp_path / 's'}"):
        with pytest.raises(SettingError, match="--backlog 2147483648: must be a whole number"):
            open_listeners(text, 2**31)


def test_closing_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    with opened(f"unix:{tmp_path / 's'}") as (listener,):
        listener.close()


# ---- tcp_listener ----------------------------------------------------------------------------


def test_an_error_of_bind_names_the_address_and_leaves_nothing_open() -> None:
    with opened("127.0.0.1:0") as (first,):
        address = first.socket.getsockname()
        with pytest.raises(OSError, match=str(address[1])):
            tcp_listener(address, 8)
