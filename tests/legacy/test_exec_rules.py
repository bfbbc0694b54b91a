"""Every rule, rejection and timeout of the server holds for an unmodified program too."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from legacy_matrix import ECHO, HTTP, PROGRAMS, TLS_CERTIFICATE, Program, Row, serves, until

from gserver.cli import serve
from gserver.daemon.exec import exec_command
from gserver.net.tcp_info import read

THREADS = Row("threads", "socketserver_tcp.py", ECHO, ("ThreadingTCPServer",))
SELECT = Row("select", "select_loop.py", ECHO)
WEB = Row("web", "threading_http.py", HTTP)
HTTPS = Row("TLS on the listener", "threading_http.py", HTTP, TLS_CERTIFICATE, tls=True)
IN_HANDLER = Row("TLS in the handler", "https_handler.py", HTTP, TLS_CERTIFICATE, tls=True)

Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    programs: list[Program] = []

    def start(row: Row, *options: str) -> Program:
        programs.append(Program(row, *options))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.stop()


class Caller:
    """An echo client from an address of its own (any of 127.0.0.0/8 is this machine)."""

    def __init__(self, program: Program, source: str = "127.0.0.1") -> None:
        self.sock = socket.socket()
        self.sock.settimeout(20.0)
        self.sock.bind((source, 0))
        self.was_reset = False
        try:
            self.sock.connect(("127.0.0.1", program.port))
        except ConnectionResetError:  # it may come as early as that
            self.was_reset = True

    def said(self) -> bytes:
        """The next that the server says; nothing if it ends the connection, sooner or later."""
        if self.was_reset:
            return b""
        try:
            return self.sock.recv(100)
        except ConnectionError as error:
            self.was_reset = isinstance(error, ConnectionResetError)
            return b""

    def served(self) -> bool:
        """Whether it is answered; it stays connected."""
        if not self.was_reset:
            with contextlib.suppress(ConnectionError):  # recv() tells more of it
                self.sock.sendall(b"hello\n")
        return self.said() == b"hello\n"

    def ended(self) -> bool:
        return not self.said()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


# ---- who gets in -------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [THREADS, SELECT], ids=lambda row: row.name)
def test_a_source_has_no_more_than_its_share(row: Row, start: Start) -> None:
    program = start(row, "--per-source", "2")
    with Caller(program) as first, Caller(program) as second:
        assert first.served()
        assert second.served()
        with Caller(program) as third, Caller(program, "127.0.0.2") as another:
            assert not third.served()
            assert another.served()
        first.sock.close()
        until(lambda: again(program))
    assert "gserver: rejecting (source)" in program.stop()


def again(program: Program) -> bool:
    with Caller(program) as caller:
        return caller.served()


def test_a_rate_holds(start: Start) -> None:
    program = start(THREADS, "--rate", "0.001", "--rate-burst", "3")
    answers = []
    for _ in range(6):
        with Caller(program) as caller:
            answers.append(caller.served())
    assert answers == [True] * 3 + [False] * 3
    assert "gserver: rejecting (rate)" in program.stop()


@pytest.mark.parametrize("row", [THREADS, SELECT], ids=lambda row: row.name)
def test_who_is_denied_is_reset_and_the_others_are_served(row: Row, start: Start) -> None:
    program = start(row, "--deny", "127.0.0.2", "--reject", "reply:smtp")
    with Caller(program, "127.0.0.2") as denied, Caller(program) as other:
        assert denied.ended()
        assert denied.was_reset
        assert other.served()


@pytest.mark.parametrize("row", [THREADS, SELECT], ids=lambda row: row.name)
def test_a_client_waits_for_a_slot_and_is_told_when_there_is_none_in_time(
    row: Row, start: Start
) -> None:
    program = start(row, "--max-connections", "1", "--wait", "0.3", "--wait-queue", "1")
    with Caller(program) as first:
        assert first.served()
        with Caller(program) as too_long, Caller(program) as no_place:
            began = time.monotonic()
            assert no_place.ended()
            assert too_long.ended()
            assert time.monotonic() - began > 0.2
        waiting = Caller(program)
        first.sock.close()
    with waiting:
        assert waiting.served()


def test_a_dry_run_only_tells(start: Start) -> None:
    program = start(THREADS, "--per-source", "1", "--dry-run", "source")
    with Caller(program) as first, Caller(program) as second:
        assert first.served()
        assert second.served()


def test_the_last_slots_are_kept_for_those_named(start: Start) -> None:
    program = start(
        *(THREADS, "--max-connections", "2"),
        *("--reserved", "1", "--reserved-for", "127.0.0.9"),
    )
    with Caller(program) as first, Caller(program) as second:
        assert first.served()
        assert not second.served()
        with Caller(program, "127.0.0.9") as operator:
            assert operator.served()


@pytest.mark.parametrize("row", [HTTPS, IN_HANDLER], ids=lambda row: row.name)
def test_whose_handshake_fails_is_shut_out_for_a_while(row: Row, start: Start) -> None:
    program = start(row, "--penalty", "60", "--penalty-threshold", "30")
    with Caller(program, "127.0.0.2") as garbage:
        garbage.sock.sendall(b"no TLS at all\r\n\r\n")
        while not garbage.ended():
            pass
    with Caller(program, "127.0.0.2") as again:
        assert again.ended()
    assert serves(row, program.port, 1)
    assert "gserver: rejecting (penalty)" in program.stop()


@pytest.mark.parametrize("row", [HTTPS, IN_HANDLER], ids=lambda row: row.name)
def test_who_leaves_without_a_word_of_tls_is_not_shut_out(row: Row, start: Start) -> None:
    program = start(row, "--penalty", "60", "--penalty-threshold", "30")
    for _ in range(4):
        with Caller(program):
            pass
    assert serves(row, program.port, 1)
    assert "penalty" not in program.stop()


# ---- how the others are told -------------------------------------------------------------------


def test_a_web_servers_excess_reads_that_it_is_busy(start: Start) -> None:
    program = start(WEB, "--max-connections", "1", "--reject", "reply:http")
    with socket.create_connection(("127.0.0.1", program.port)) as holder:
        holder.sendall(b"GET / HTTP/1.0\r\n")
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", "/")
                answer = connection.getresponse()
                assert (answer.status, answer.getheader("Retry-After") is not None) == (503, True)
                answer.read()


def test_text_for_tls_clients_is_warned_of(start: Start) -> None:
    program = start(HTTPS, "--reject", "reply:http")
    assert "tls-alert" in program.stop()


def test_a_rejection_by_reason(start: Start) -> None:
    program = start(
        *(THREADS, "--max-connections", "1", "--deny", "127.0.0.2"),
        *("--reject", "reply-text:full\\n", "--reject-on", "denied=reply-text:no\\n"),
    )
    with Caller(program) as first, Caller(program, "127.0.0.2") as denied:
        assert first.served()
        assert denied.said() == b"no\n"
        with Caller(program) as over:
            assert over.said() == b"full\n"


# ---- how long the admitted stay ----------------------------------------------------------------

ENDED = {
    "first byte": ("--first-byte-timeout", "0.2"),
    "idle": ("--idle-timeout", "0.2"),
    "lifetime": ("--lifetime", "0.2"),
}


@pytest.mark.parametrize("row", [THREADS, SELECT], ids=lambda row: row.name)
@pytest.mark.parametrize("which", ENDED)
def test_a_silent_client_is_ended_and_its_slot_comes_back(
    which: str, row: Row, start: Start
) -> None:
    program = start(row, "--max-connections", "1", *ENDED[which])
    with Caller(program) as silent:
        assert silent.ended()
        with Caller(program) as next_one:
            assert next_one.served()


def test_a_client_that_is_silent_after_the_listeners_handshake_is_ended(start: Start) -> None:
    program = start(HTTPS, "--max-connections", "1", *ENDED["first byte"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Caller(program) as caller, context.wrap_socket(caller.sock) as silent:
        with contextlib.suppress(ssl.SSLError):  # the alert that answers the end-of-file
            assert silent.recv(1) == b""
    assert serves(HTTPS, program.port, 1)


def test_a_client_of_a_thread_is_idle_however_fast_its_answer_came(start: Start) -> None:
    program = start(THREADS, "--idle-timeout", "0.2")
    with Caller(program) as caller:
        assert caller.served()
        assert caller.ended()


def changed(tmp_path: Path, old: str, new: str) -> Row:
    """The threads' program with another handler."""
    program = tmp_path / "changed.py"
    text = (PROGRAMS / THREADS.program).read_text()
    assert old in text
    program.write_text(text.replace(old, new))
    return replace(THREADS, program=str(program))


def test_a_client_to_whom_an_answer_is_owed_is_not_idle(start: Start, tmp_path: Path) -> None:
    write = "self.wfile.write(line)"
    row = changed(tmp_path, write, f"__import__('time').sleep(1); {write}")
    with Caller(start(row, "--idle-timeout", "0.2")) as caller:
        assert caller.served()


def test_the_longest_idle_makes_room_for_a_newcomer(start: Start) -> None:
    program = start(THREADS, "--max-connections", "2", "--evict-idle", "0.2")
    with Caller(program) as first, Caller(program) as second:
        assert first.served()
        # Several ticks of the kernel's clocks, by which the two are told apart.
        until(lambda: read(first.sock).last_received_ms >= 20)
        assert second.served()
        until(lambda: again(program))
        assert first.ended()


NEVER_CLOSES = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    conn, _ = listener.accept()
    conn.sendall(b"+")
"""


def test_whom_the_program_forgets_to_close_gives_the_slot_back_after_a_while_and_is_told_of(
    start: Start, tmp_path: Path
) -> None:
    forgetful = tmp_path / "forgetful.py"
    forgetful.write_text(NEVER_CLOSES)
    row = Row("forgetful", str(forgetful), ECHO)
    program = start(row, "--max-connections", "1", "--reap-after", "0.2")

    def greeted() -> bool:
        with Caller(program) as caller:
            return caller.said() == b"+"

    for _ in range(3):  # the variable keeps each of them
        until(greeted)
    said = program.stop()
    assert said.count("1 of 1 slots are held by connections whose client has left") == 1


@pytest.mark.parametrize(("options", "said"), [((), b"1"), (("--no-keepalive",), b"0")])
def test_keepalive_is_set_for_the_program_and_can_be_left(
    options: tuple[str, ...], said: bytes, start: Start, tmp_path: Path
) -> None:
    begin = "for line in self.rfile:"
    look = "import socket as s; self.wfile.write(b'%d' % self.request.getsockopt("
    look += "s.SOL_SOCKET, s.SO_KEEPALIVE))"
    row = changed(tmp_path, begin, f"{look}\n        {begin}")
    with Caller(start(row, *options)) as caller:
        assert caller.said() == said


# ---- settings ----------------------------------------------------------------------------------


def test_every_option_of_serve_is_known_here_by_the_same_definition_or_why_it_cannot_hold() -> None:
    ours = {flag: param for param in exec_command.params for flag in param.opts}
    for param in serve.params:
        if isinstance(param, click.Option):
            assert set(param.opts) <= ours.keys()
            here = ours[param.opts[0]]
            assert isinstance(here, click.Option)
            same = (here.help, here.metavar) == (param.help, param.metavar)
            assert here.hidden or same or param.name in ("max_connections", "settle", "reject")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--deferred-start",), "--deferred-start"),
        (("--proxy-protocol-from", "10.0.0.0/8"), "--proxy-protocol-from '10.0.0.0/8'"),
        (("--tls-cert", "x.pem"), "--tls-cert 'x.pem'"),
        (("--listen", ":80"), "--listen ':80'"),
        (("--drain-timeout", "5"), "--drain-timeout '5'"),
        (("--reject", "refuse"), "--reject 'refuse'"),
        (("--reject-on", "capacity=reset"), "--reject-on 'capacity=reset'"),
        (("--per-source", "0"), "--per-source 0"),
        (("--rate", "many"), "--rate 'many'"),
        (("--wait", "1", "--settle", "1"), "--settle"),
        (("--wait", "1", "--evict-idle", "1"), "--evict-idle"),
        (("--reap-after", "0"), "--reap-after 0.0"),
        (("--handshake-timeout", "0"), "--handshake-timeout"),
        (("--no-such-flag",), "--no-such-flag"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_hold_is_one_line_that_names_it(options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gserver", "exec", "--max-connections", "5", *options, "x.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
