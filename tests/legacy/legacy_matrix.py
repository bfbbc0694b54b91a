"""The compatibility matrix: real programs, unmodified, under ``gserver exec``.

    python tests/legacy/legacy_matrix.py [--readme] [NAME]

prints it as a Markdown table, all of it or the rows whose name contains NAME; with --readme it
puts the table into README.md. Each row is filled to the cap, gets three clients too many, has a
freed slot used again, is churned sixty times at the full cap, and is stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN = "<!-- by tests/legacy/legacy_matrix.py --readme -->"
END = "<!-- end -->"
PROGRAMS = HERE / "programs"
CERTIFICATE = Path(gevent.__file__).parent / "tests" / "server.crt"
KEY = CERTIFICATE.with_suffix(".key")

CAP = 5
OVER = 3
CHURN = 60
DEADLINE = 20.0  # a bound for a machine under load, not a target


# ---- clients: begin() leaves the server waiting for more, finish() gets its answer -------------


@dataclass(frozen=True)
class Client:
    """What a client sends and expects.

    :ivar begin: sent after connecting; the server then waits for more.
    :ivar rest: sent to be answered.
    :ivar answer: what the answer contains.
    """

    begin: bytes
    rest: bytes
    answer: bytes


ECHO = Client(b"hel", b"lo\n", b"lo\n")  # some echo lines, some echo what comes
HTTP = Client(b"GET / HTTP/1.0\r\n", b"\r\n", b"200 OK")
_CALL = (
    b"<?xml version='1.0'?><methodCall><methodName>add</methodName><params>"
    b"<param><value><int>20</int></value></param><param><value><int>22</int></value></param>"
    b"</params></methodCall>"
)
XMLRPC = Client(
    b"POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(_CALL),
    _CALL,
    b"<int>42</int>",
)
_QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"
DNS = Client(struct.pack("!H", len(_QUERY))[:2], _QUERY, b"\xc0\x00\x02\x07")
SSH = Client(b"", b"SSH-2.0-client\r\n", b"diffie-hellman")  # of the key exchange, RFC 4253
_PING = struct.pack("!Ii", 0x80010001, 4) + b"ping" + struct.pack("!i", 7)
THRIFT = Client(_PING[:6], _PING[6:], b"ping")
#: One frame of rpyc's channel (length, no compression, data, newline): a ping, as its own client
#: sends it: MSG_REQUEST and brine for (1, (HANDLE_PING, (LABEL_VALUE, (b"hello",)))).
_RPYC_DATA = b"\x01\x11Q\x11Q\x11Q\x10\x0e\x05hello"
_RPYC_FRAME = struct.pack("!LB", len(_RPYC_DATA), 0) + _RPYC_DATA + b"\n"
RPYC = Client(_RPYC_FRAME[:7], _RPYC_FRAME[7:], b"hello")


@dataclass(frozen=True)
class Row:
    """One program.

    :ivar options: of ``gserver exec``.
    :ivar requires: distributions and their pinned versions, as ``pip install`` takes them.
    """

    name: str
    program: str
    client: Client
    arguments: tuple[str, ...] = ()
    tls: bool = False
    requires: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why this row cannot run here, with the line that changes it."""
        for requirement in self.requires:
            name = requirement.partition("==")[0]
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return f"{name} is not installed: pip install {' '.join(self.requires)}"
        return None


#: A connection that a child serves ends when the child does: up to 20 ms on a busy machine.
_FORKING = ("--settle", "0.05")
TLS_CERTIFICATE = (str(CERTIFICATE), str(KEY))

ROWS = (
    Row("socketserver.ThreadingTCPServer", "socketserver_tcp.py", ECHO, ("ThreadingTCPServer",)),
    Row(
        "socketserver.ForkingTCPServer",
        "socketserver_tcp.py",
        ECHO,
        ("ForkingTCPServer",),
        options=_FORKING,
    ),
    Row("http.server.ThreadingHTTPServer", "threading_http.py", HTTP),
    Row("HTTPS, TLS on the listener", "threading_http.py", HTTP, TLS_CERTIFICATE, tls=True),
    Row("HTTPS, TLS in the handler", "https_handler.py", HTTP, TLS_CERTIFICATE, tls=True),
    Row("wsgiref with ThreadingMixIn", "wsgiref_threading.py", HTTP),
    Row("xmlrpc with ThreadingMixIn", "xmlrpc_threading.py", XMLRPC),
    Row("`while True: accept; Thread`", "accept_thread.py", ECHO),
    Row("a chat server that broadcasts", "chat.py", ECHO),
    Row("`queue.Queue` to worker threads", "queue_workers.py", ECHO),
    Row("`ThreadPoolExecutor`", "executor.py", ECHO),
    Row("a `select.select` loop", "select_loop.py", ECHO),
    Row("a `select.poll` loop", "poll_loop.py", ECHO),
    Row("a `selectors` loop", "selectors_loop.py", ECHO),
    Row("asyncio streams", "asyncio_streams.py", ECHO),
    Row("rpyc ThreadedServer", "rpyc_threaded.py", RPYC, requires=("rpyc==6.0.2",)),
    Row("dnslib over TCP", "dnslib_tcp.py", DNS, requires=("dnslib==0.9.26",)),
    Row("cheroot", "cheroot_plain.py", HTTP, requires=("cheroot==11.1.2",)),
    Row("cheroot with TLS", "cheroot_plain.py", HTTP, TLS_CERTIFICATE, True, ("cheroot==11.1.2",)),
    Row("werkzeug, threaded", "werkzeug_threaded.py", HTTP, requires=("werkzeug==3.1.8",)),
    Row("paramiko, server side", "paramiko_server.py", SSH, requires=("paramiko==5.1.0",)),
    Row(
        "thrift TThreadedServer",
        "thrift_threaded.py",
        THRIFT,
        ("TThreadedServer",),
        requires=("thrift==0.25.0",),
    ),
    Row(
        "thrift TForkingServer",
        "thrift_threaded.py",
        THRIFT,
        ("TForkingServer",),
        options=_FORKING,
        requires=("thrift==0.25.0",),
    ),
)


# ---- a program under the cap -------------------------------------------------------------------


class Turned(Exception):
    """The server turned this client away."""


class Conversation:
    """One client of a row."""

    def __init__(self, row: Row, port: int) -> None:
        self.row = row
        try:
            self._sock: Any = socket.create_connection(("127.0.0.1", port), DEADLINE)
        except OSError as error:
            raise Turned from error
        try:
            if row.tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                self._sock = context.wrap_socket(self._sock)
            if row.client.begin:
                self._sock.sendall(row.client.begin)
        except OSError as error:
            self._sock.close()
            raise Turned from error

    def turned_away(self, within: float) -> bool:
        """Whether the server ends it, unasked, within so many seconds."""
        self._sock.settimeout(within)
        try:
            return not self._sock.recv(4096)  # a banner is no end
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            self._sock.settimeout(DEADLINE)

    def finish(self) -> None:
        """Have the answer, and close."""
        found = b""
        try:
            self._sock.sendall(self.row.client.rest)
            while self.row.client.answer not in found:
                data = self._sock.recv(4096)
                if not data:
                    break
                found += data
        except OSError as error:
            raise Turned from error
        finally:
            self._sock.close()
        if self.row.client.answer not in found:
            raise Turned(found)

    def close(self) -> None:
        self._sock.close()


class Program:
    """A program under ``gserver exec``, and what can be seen of it from outside."""

    def __init__(self, row: Row, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gserver", "exec"),
                *("--max-connections", str(CAP), *options),
                *(str(PROGRAMS / row.program), *row.arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stop(signal.SIGKILL)
        self.port = int(line)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, number: int = signal.SIGINT) -> str:
        """Stop it with a signal; its stderr."""
        self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
            raise AssertionError(f"did not stop: {errors}") from None
        return str(errors)


@dataclass
class Result:
    """What a row did. Empty ``problems``: as it should."""

    slowest_ms: float = 0.0
    problems: list[str] = field(default_factory=list)


def run(row: Row) -> Result:
    """One row, from fill to stop."""
    result = Result()
    program = Program(row, *row.options)
    held: list[Conversation] = []
    try:
        until(lambda: serves(row, program.port, 1))  # what it opens once is open from now on
        baseline = settled(program)
        held = [Conversation(row, program.port) for _ in range(CAP)]
        within = 0.05  # for all of them together
        for conversation in held:
            if conversation.turned_away(within):
                result.problems.append("one of the first five turned away")
            within = 0.001
        for _ in range(OVER):
            began = monotonic()
            if not _turned_away(row, program.port):
                result.problems.append("a sixth was served")
            result.slowest_ms = max(result.slowest_ms, (monotonic() - began) * 1000)
        for _ in range(CHURN):
            try:
                held.pop().finish()
                held.append(Conversation(row, program.port))
            except Turned:
                result.problems.append("turned away though a slot was free")
                held.append(until(lambda: admitted(row, program.port)))
        if not _turned_away(row, program.port):
            result.problems.append("a sixth was served after the churn")
        while held:
            held.pop().finish()
        until(lambda: serves(row, program.port, CAP))
        if (left := settled(program, baseline) - baseline) > 0:
            result.problems.append(f"{left} descriptors left over")
    except Turned:
        result.problems.append("a held connection was cut")
    finally:
        for conversation in held:
            conversation.close()
        errors = program.stop()
    if program.process.returncode not in (0, -signal.SIGINT):
        result.problems.append(f"exit status {program.process.returncode}: {errors}")
    return result


def _turned_away(row: Row, port: int) -> bool:
    try:
        conversation = Conversation(row, port)
    except Turned:
        return True
    with contextlib.closing(conversation):
        return conversation.turned_away(DEADLINE / 10)


def admitted(row: Row, port: int) -> Conversation | None:
    try:
        conversation = Conversation(row, port)
    except Turned:
        return None
    if conversation.turned_away(0.02):
        conversation.close()
        return None
    return conversation


def serves(row: Row, port: int, number: int) -> bool:
    """Whether it serves that many at once."""
    conversations = []
    try:
        for _ in range(number):
            conversations.append(Conversation(row, port))
        while conversations:
            conversations.pop().finish()
    except Turned:
        return False
    finally:
        for conversation in conversations:
            conversation.close()
    return True


def settled(program: Program, wanted: int | None = None) -> int:
    """Its descriptors once their number has stopped falling."""
    deadline = monotonic() + 2.0
    number = program.descriptors()
    while monotonic() < deadline and (wanted is None or number > wanted):
        select.select([], [], [], 0.05)
        if (now := program.descriptors()) == number and wanted is None:
            break
        number = now
    return number


def until(condition: Callable[[], Any]) -> Any:
    deadline = monotonic() + DEADLINE
    while not (value := condition()):
        assert monotonic() < deadline
        select.select([], [], [], 0.01)
    return value


# ---- the table ---------------------------------------------------------------------------------


def table(rows: tuple[Row, ...] = ROWS) -> Iterator[str]:
    """The matrix as Markdown, a line at a time."""
    yield f"| program | version | cap held | turned away within | {CHURN} times reused |"
    yield "|---|---|---|---|---|"
    for row in rows:
        if missing := row.missing():
            yield f"| {row.name} | | not run: {missing} | | |"
            continue
        names = [requirement.partition("==")[0] for requirement in row.requires]
        version = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
        version = version or f"Python {sys.version.partition(' ')[0]}"
        result = run(row)
        if result.problems:
            problems = "; ".join(dict.fromkeys(result.problems))
            yield f"| {row.name} | {version} | **{problems}** | | |"
        else:
            yield f"| {row.name} | {version} | yes | {result.slowest_ms:.1f} ms | yes |"


def readme_table() -> list[str]:
    """The lines of README's table."""
    text = README.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description="The compatibility matrix of gserver exec.")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("name", nargs="?", default="")
    options = parser.parse_args()
    lines = []
    for line in table(tuple(row for row in ROWS if options.name in row.name)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        lines.append(line)
    if options.readme and not options.name:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join([before + BEGIN, *lines, END + after])
        README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
