"""SIGINT and SIGTERM: stop admitting, let the admitted finish, in bounded time, with status 0.
SIGHUP, which tests/test_tls_files.py has with TLS, ends nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import pytest
from program import client, module, served, serving, started, wait_for

BOTH = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)


def short_of_grace(seconds: float) -> Sequence[str]:
    """The command with a shorter grace, so that the watchdog need not be waited for as long."""
    text = (
        "import gserver.cli, gserver.daemon.signals as signals;"
        f"signals.GRACE_S = {seconds};"
        "gserver.cli.main()"
    )
    return (sys.executable, "-c", text)


# ---- the drain -------------------------------------------------------------------------------


@BOTH
def test_an_idle_server_ends_at_once_with_status_0(signum: signal.Signals) -> None:
    with serving("echo") as program:
        with program.client() as sock:  # one that came and went
            assert served(sock)
        program.send(signum)
        assert program.read_rest() == ""
        assert program.wait() == 0
        assert f"INFO {signum.name}: no longer admitting; " in program.log
        assert "Traceback" not in program.log
        with pytest.raises(ConnectionRefusedError):
            program.client()


LATER = """
import _thread, os, signal, time

def handle(sock, address):
    pass

def interrupt():
    os.read(0, 1)
    time.sleep(0.2)  # until the main thread is inside its poll, which nothing tells
    signal.pthread_kill(_thread.get_ident(), signal.SIGTERM)
    os.read(0, 1)

_thread.start_new_thread(interrupt, ())
"""


def test_a_signal_that_does_not_interrupt_the_poll_is_not_lost(tmp_path: Path) -> None:
    """One that is noted just before the poll does not, nor does one that another thread gets."""
    with serving(module(tmp_path, LATER), cwd=tmp_path, stdin=subprocess.PIPE) as program:
        assert program.process.stdin is not None
        with program.process.stdin as told:
            told.write(b".")
            told.flush()
            assert program.wait() == 0


ANSWERS = """
def handle(sock, address):
    while count := sock.recv(100):
        sock.sendall(bytes(range(256)) * int(count))
"""


@BOTH
def test_the_admitted_finish_to_the_last_byte_and_nobody_else_is_admitted(
    signum: signal.Signals, tmp_path: Path
) -> None:
    with serving(module(tmp_path, ANSWERS), cwd=tmp_path) as program, program.client() as sock:
        sock.sendall(b"65536")  # 16 MiB: more than the kernel takes before the client reads
        sock.recv(1, socket.MSG_PEEK)
        program.send(signum)
        program.until_logged("no longer admitting; 1 active, 10 s to finish")
        with pytest.raises(ConnectionError):
            program.client()
        assert program.process.poll() is None
        data = b""
        while chunk := sock.recv(1 << 20):
            data += chunk
        assert data == bytes(range(256)) * 65536
        assert program.wait() == 0
        assert ": 1 finished, 0 killed" in program.log


HOLDS = """
import os, gevent

def handle(sock, address):
    try:
        sock.sendall(b'+')
        gevent.sleep(1000)
    finally:
        os.write(1, b'ended\\n')
"""


def test_who_has_not_finished_in_time_is_ended(tmp_path: Path) -> None:
    with serving(module(tmp_path, HOLDS), "--drain-timeout", "0.2", cwd=tmp_path) as program:
        with program.client() as sock:
            assert sock.recv(1) == b"+"
            began = monotonic()
            assert program.stop() == 0
            assert monotonic() - began >= 0.2
            assert sock.recv(1) == b""
        assert program.read_rest() == "ended\n"
        assert ": 0 finished, 1 killed" in program.log


SWALLOWS = """
import gevent

def handle(sock, address):
    sock.sendall(b'+')
    while True:
        try:
            gevent.sleep(1000)
        except gevent.GreenletExit:
            pass
"""


def test_a_handler_that_swallows_its_kill_cannot_hold_it_up(tmp_path: Path) -> None:
    """However many listeners there are, and though nobody reads what it prints."""
    name = module(tmp_path, SWALLOWS)
    listen = [f"unix:{tmp_path}/{number}" for number in range(5)]
    others = [word for address in listen[1:] for word in ("--listen", address)]
    with serving(name, "--drain-timeout", "0", *others, listen=listen[0], cwd=tmp_path) as program:
        with client(listen[0]) as first, client(listen[4]) as second:
            assert first.recv(1) == second.recv(1) == b"+"
            assert program.stop() == 0
            assert "0 finished, 2 killed" in program.log
            assert "Timeout" not in program.log  # the watchdog's word
            assert first.recv(1) == second.recv(1) == b""
        assert [path.name for path in tmp_path.iterdir() if path.is_socket()] == []


NEVER_YIELDS = """
def handle(sock, address):
    sock.sendall(b'+')
    while True:
        pass
"""


def test_a_handler_that_never_yields_is_shown_and_ended_by_the_watchdog(tmp_path: Path) -> None:
    with serving(
        *[module(tmp_path, NEVER_YIELDS), "--drain-timeout", "0.2"],
        cwd=tmp_path,
        command=short_of_grace(0.3),
    ) as program:
        with program.client() as sock:
            assert sock.recv(1) == b"+"
            began = monotonic()
            assert program.stop() == 1
            assert monotonic() - began >= 0.5
        assert "Timeout (0:00:00.5" in program.log
        assert re.search(r'/app.py", line \d in handle\n', program.log)


def test_the_watchdog_ends_it_though_nobody_reads_what_that_prints(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, b"." * 4096)
        os.set_blocking(writer, True)
        with serving(
            *[module(tmp_path, NEVER_YIELDS), "--drain-timeout", "0"],
            cwd=tmp_path,
            command=short_of_grace(0.1),
            stderr=writer,
        ) as program:
            with program.client() as sock:
                assert sock.recv(1) == b"+"
                assert program.stop() == -signal.SIGALRM
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_the_watchdog_needs_no_standard_error(closed: str, tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', *short_of_grace(0.1)]
    name = module(tmp_path, NEVER_YIELDS)
    with started(
        *[name, "--listen", where, "--drain-timeout", "0"], cwd=tmp_path, command=command
    ) as program:
        wait_for(lambda: _listens(where), lambda: "no server")
        with client(where) as sock:
            assert sock.recv(1) == b"+"
            assert program.stop() == 1


def _listens(where: str) -> bool:
    try:
        client(where).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


# ---- the second signal -----------------------------------------------------------------------


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_second_signal_ends_it_at_once_and_is_its_status(
    first: signal.Signals, second: signal.Signals
) -> None:
    with serving("echo", "--drain-timeout", "1000") as program, program.client() as sock:
        assert served(sock)
        program.send(first)
        program.until_logged("no longer admitting")
        assert program.stop(second) == -second


IN_C = """
from gevent.os import tp_read

def handle(sock, address):
    sock.sendall(b'+')
    tp_read(0, 1)
    sock.sendall(b'+')
    sum(range(10**15))
"""


def test_the_second_signal_needs_no_interpreter(tmp_path: Path) -> None:
    with serving(
        *[module(tmp_path, IN_C), "--drain-timeout", "1000"], cwd=tmp_path, stdin=subprocess.PIPE
    ) as program:
        assert program.process.stdin is not None
        with program.process.stdin as told, program.client() as sock:
            assert sock.recv(1) == b"+"
            program.send()
            program.until_logged("no longer admitting")
            told.write(b".")
            told.flush()
            assert sock.recv(1) == b"+"
            assert program.stop() == -signal.SIGTERM


# ---- the hangup ------------------------------------------------------------------------------

NOTHING = "INFO SIGHUP: nothing to read again\n"


def test_a_hangup_without_tls_is_one_log_line_and_ends_nobody() -> None:
    with serving("echo") as program, program.client() as sock:
        assert served(sock)
        for count in (1, 2):
            program.send(signal.SIGHUP)
            wait_for(lambda n=count: program.log.count(NOTHING) == n, lambda: program.log)
            assert served(sock)
        assert program.log.count("\n") == 2
        assert program.stop() == 0


def test_a_hangup_during_the_drain_cuts_nobody_off(tmp_path: Path) -> None:
    with serving(module(tmp_path, ANSWERS), cwd=tmp_path) as program, program.client() as sock:
        sock.sendall(b"65536")
        sock.recv(1, socket.MSG_PEEK)
        program.send()
        program.until_logged("no longer admitting; 1 active")
        program.send(signal.SIGHUP)
        program.until_logged(NOTHING)
        data = b""
        while chunk := sock.recv(1 << 20):
            data += chunk
        assert data == bytes(range(256)) * 65536
        assert program.wait() == 0


def test_a_hangup_while_the_handlers_module_is_imported_is_not_lost(tmp_path: Path) -> None:
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\ndef handle(s, a): pass\n"
    with serving(module(tmp_path, text), cwd=tmp_path) as program:
        program.until_logged(NOTHING)
        assert program.stop() == 0


def test_a_module_that_handles_the_hangup_itself_goes_on_doing_so(tmp_path: Path) -> None:
    text = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'mine\\n'))\n"
        "def handle(sock, address): pass\n"
    )
    with serving(module(tmp_path, text), cwd=tmp_path) as program:
        program.send(signal.SIGHUP)
        assert program.read_line() == "mine\n"
        assert program.stop() == 0
        assert NOTHING not in program.log


# ---- while it starts -------------------------------------------------------------------------


@BOTH
def test_a_signal_while_the_handlers_module_is_imported_is_not_lost(
    signum: signal.Signals, tmp_path: Path
) -> None:
    text = f"import os\nos.kill(os.getpid(), {int(signum)})\ndef handle(sock, address): pass\n"
    with started(
        *[module(tmp_path, text), "--listen", f"unix:{tmp_path}/s"], cwd=tmp_path
    ) as program:
        assert program.wait() == 0
        assert f"{signum.name}: no longer admitting; 0 active" in program.log
        assert "Traceback" not in program.log
    assert not (tmp_path / "s").exists()


def test_a_signal_during_a_slow_import_ends_it_after_that(tmp_path: Path) -> None:
    text = "import os\nos.write(1, b'importing\\n')\nos.read(0, 1)\ndef handle(s, a): pass\n"
    with started(
        *[module(tmp_path, text), "--listen", "127.0.0.1:0"], cwd=tmp_path, stdin=subprocess.PIPE
    ) as program:
        assert program.read_line() == "importing\n"
        program.send()
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert program.wait() == 0


def test_a_second_signal_ends_an_import_that_hangs(tmp_path: Path) -> None:
    text = "import os\nos.write(1, b'importing\\n')\nos.read(0, 1)\n"
    with started(module(tmp_path, text), cwd=tmp_path, stdin=subprocess.PIPE) as program:
        assert program.read_line() == "importing\n"
        program.send()
        # Whether the first one has been noted cannot be seen from outside.

        def ended() -> bool:
            program.send()
            return program.process.poll() is not None

        wait_for(ended, lambda: "it hangs")
        assert program.wait() == -signal.SIGTERM
        assert program.process.stdin is not None
        program.process.stdin.close()


@BOTH
def test_a_module_that_monkey_patches_changes_nothing_about_it(
    signum: signal.Signals, tmp_path: Path
) -> None:
    text = (
        "from gevent import monkey\nmonkey.patch_all()\n"
        "def handle(sock, address):\n"
        "    while data := sock.recv(100): sock.sendall(data)\n"
    )
    with serving(module(tmp_path, text), cwd=tmp_path) as program, program.client() as sock:
        assert served(sock)
        program.send(signum)
        program.until_logged("no longer admitting; 1 active")
        assert sock.recv(1) == b""  # idle: it is nudged
        assert program.wait() == 0
