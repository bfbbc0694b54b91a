"""``gserver exec`` is transparent: the program sees what ``python PROGRAM`` would have shown it."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from capped import with_entry_point

from gserver.candidates import MOST_HELD

EXEC = (sys.executable, "-m", "gserver", "exec", "--max-connections", "5")
PYTHON = (sys.executable,)


def run(command: tuple[str, ...], *arguments: str, cwd: Path, **settings: str) -> tuple[str, ...]:
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        input="what comes in\n",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **settings},
        timeout=60,
        check=False,
    )
    out = re.sub("0x[0-9a-f]+", "ADDRESS", done.stdout)
    return str(done.returncode), out, done.stderr


LOOK = """
import __main__, os, sys
print(sys.argv, __name__, __file__, __spec__, __package__, __doc__, sys.path[0])
print(sorted(name for name in vars(__main__)), __main__.__dict__ is globals())
print(type(__loader__).__name__, os.getcwd(), repr(sys.stdin.read()))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "look.py").write_text(LOOK)
    (tmp_path / "link.py").symlink_to(tmp_path / "sub" / "look.py")
    (tmp_path / "look_here.py").write_text(LOOK)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(LOOK)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("sub/look.py", "--help", "-m", "x", "--", "--max-connections"),
        ("./sub/../sub/look.py",),
        ("link.py", "a"),
        ("-m", "look_here", "--help"),
        ("-m", "package", "--settle", "-1"),
        ("package", "b"),
        ("archive.zip", "c"),
    ],
    ids=" ".join,
)
def test_the_program_finds_itself_as_python_would_have_started_it(
    arguments: tuple[str, ...], here: Path
) -> None:
    assert run(EXEC, *arguments, cwd=here) == run(PYTHON, *arguments, cwd=here)


ENDS = {
    "returns": "print('done')",
    "exits": "import sys; sys.exit(3)",
    "exits with words": "raise SystemExit('so it is')",
    "raises": "def f():\n    return 1 / 0\nf()",
    "raises a chain": "try:\n    {}['a']\nexcept KeyError as e:\n    raise OSError(2, 'b') from e",
    "raises EOFError": "raise EOFError('which a command line might catch')",
    "does not parse": "x = (",
    "has a hook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0])\n1 / 0",
    "has a hook that fails": "import sys\nsys.excepthook = lambda *a: None.x\n1 / 0",
    "ends in a thread": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(.1), print('last'))).start()"
    ),
    "has functions at exit": "import atexit\natexit.register(print, 'bye')\n1 / 0",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "is interrupted": "raise KeyboardInterrupt",
    "is sent Ctrl-C": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ninput()",
    "has a signal handler that raises": (
        "import os, signal\n"
        "def handler(number, frame):\n    raise ValueError('so it is')\n"
        "signal.signal(signal.SIGUSR1, handler)\nos.kill(os.getpid(), signal.SIGUSR1)\ninput()"
    ),
    "raises a group": (
        "try:\n    1 / 0\nexcept Exception as e:\n    raise ExceptionGroup('g', [e]) from e"
    ),
    "is interrupted, with functions at exit": (
        "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt"
    ),
    "aborts": "import os; os._exit(9)",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_program_ends_as_python_would_have_ended_it(end: str, tmp_path: Path) -> None:
    (tmp_path / "end.py").write_text(ENDS[end])
    found = run(EXEC, "end.py", cwd=tmp_path)
    expected = run(PYTHON, "end.py", cwd=tmp_path)
    assert found[:2] == expected[:2]
    if end != "has a hook that fails":  # whose own traceback names the caller
        assert found[2] == expected[2]


CALLS = {
    "accept": "l = socket.create_server(('127.0.0.1', 0)); l.settimeout(0.01); l.accept()",
    "os.close": "os.close(9999)",
    "select": "select.select([9999], [], [], 0)",
    "signal": "signal.signal(9999, 1)",
}


@pytest.mark.parametrize("call", CALLS)
def test_no_frame_of_ours_is_in_a_traceback(call: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        f"import os, select, signal, socket\ndef f():\n    {CALLS[call]}\nf()\n"
    )
    status, _, errors = run(EXEC, "program.py", cwd=tmp_path)
    assert status == "1"
    assert errors.startswith("Traceback (most recent call last):\n")
    assert "line 4, in <module>" in errors
    assert "line 3, in f" in errors
    assert "gserver" not in errors


def test_a_program_may_come_from_standard_input() -> None:
    text = "import sys; print(sys.argv, sys.path[0], sorted(globals()), __file__, __loader__); 1/0"
    found = [
        subprocess.run(
            [*command, "-", "a", "--help"],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for command in (EXEC, PYTHON)
    ]
    assert found[0].stdout == found[1].stdout
    assert found[0].stderr == found[1].stderr
    assert found[0].returncode == found[1].returncode == 1


def test_a_stream_that_is_closed_is_none_for_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; print(sys.stdin, file=sys.stderr)")
    closed = ("sh", "-c", 'exec "$@" <&-', "sh")
    assert run((*closed, *EXEC), "program.py", cwd=tmp_path) == ("0", "", "None\n")


SERVER = """
import signal, socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", 0))
def busy():
    while True:
        sum(range(2000)); time.sleep(0)
threading.Thread(target=busy, daemon=True).start()
{setup}
try:
    print("serving", flush=True)
    while True:
        listener.accept()
finally:
    print("main ends", flush=True)
"""


#: How the cap got there; under each a signal does the same.
WAYS = ("exec", "environment", "install")
INSTALL = """
import gevent.monkey; gevent.monkey.patch_all()
import gserver.legacy; gserver.legacy.install(5)
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("setup", "number", "status"),
    [
        ("", signal.SIGINT, -signal.SIGINT),
        ("", signal.SIGTERM, -signal.SIGTERM),
        ("signal.signal(15, lambda *a: sys.exit(7))", signal.SIGTERM, 7),
        (
            "signal.signal(2, signal.SIG_IGN); signal.signal(15, signal.getsignal(2))",
            signal.SIGUSR1,
            -signal.SIGUSR1,
        ),
        ("signal.signal(10, lambda *a: 1 / 0)", signal.SIGUSR1, 1),
    ],
)
def test_a_signal_does_to_a_busy_program_what_it_does_under_python(
    setup: str, number: int, status: int, way: str, tmp_path: Path
) -> None:
    program = SERVER.format(setup=setup)
    (tmp_path / "server.py").write_text(INSTALL + program if way == "install" else program)
    variables = {"GSERVER_MAX_CONNECTIONS": "5"} if way == "environment" else {}
    command = {
        "exec": EXEC,
        "environment": (*PYTHON, "-m", "gevent.monkey"),
        "install": PYTHON,
    }
    with subprocess.Popen(
        [*command[way], "server.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env={**with_entry_point(tmp_path), **variables},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        try:
            said, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == status
    assert said == ("main ends\n" if status != -number or number == signal.SIGINT else "")


def test_a_handler_is_what_the_program_set() -> None:
    (status, said, _) = run(
        (sys.executable, "-c"),
        "import gevent.monkey; gevent.monkey.patch_all()\n"
        "from gserver.legacy.signals import deliver_to_main; deliver_to_main()\n"
        "import signal\n"
        "print(signal.getsignal(2) is signal.default_int_handler)\n"
        "f = lambda *a: None\n"
        "print(signal.signal(15, f) is signal.SIG_DFL, signal.getsignal(15) is f)\n"
        "print(signal.signal(15, signal.SIG_IGN) is f)",
        cwd=Path.cwd(),
    )
    assert (status, said) == ("0", "True\nTrue True\nTrue\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reject", "refuse"), "--reject 'refuse'"),
        (("--only", "8999"), "--only '8999'"),
        (("--only", "a..b:8999"), "--only 'a..b:8999': the host does not resolve"),
        (("--settle", "-1"), "--settle '-1'"),
        (("--max-connections", "0"), "--max-connections '0'"),
        (("--max-connections", "10000000"), "--max-connections 10000000"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_marked_line_and_status_2(
    options: tuple[str, ...], said: str, here: Path
) -> None:
    status, out, errors = run((*EXEC, *options), "look_here.py", cwd=here)
    assert (status, out) == ("2", "")
    assert errors.startswith("gserver: ")
    assert said in errors
    assert errors.count("\n") == 1


def test_a_program_that_cannot_be_read_is_one_marked_line_and_status_2(here: Path) -> None:
    status, out, errors = run(EXEC, "nothing.py", cwd=here)
    assert (status, out) == ("2", "")
    assert errors == "gserver: PROGRAM 'nothing.py': cannot be read: No such file or directory\n"


LOGGING = """
import logging, logging.config, socket
logging.basicConfig(filename="program.log", level=logging.DEBUG)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
listener = socket.create_server(("127.0.0.1", 0))
clients = [socket.create_connection(listener.getsockname()) for _ in range(6)]
held = [listener.accept() for _ in range(5)]
clients[5].recv(1)
"""


def test_our_messages_are_marked_and_neither_mixed_with_the_programs_nor_turned_off(
    tmp_path: Path,
) -> None:
    (tmp_path / "program.py").write_text(LOGGING)
    _, _, errors = run(EXEC, "program.py", cwd=tmp_path)
    assert "gserver: full 5/5, rejecting\n" in errors
    assert "gserver" not in (tmp_path / "program.log").read_text()


LIMITED = ("sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh", *EXEC, "--max-connections", "500")
#: Ways to start another program, which says what its limit is.
STARTS = """
    subprocess.run(command, check=True)
    subprocess.run(command, check=True, preexec_fn=lambda: None)
    print(os.popen(shlex.join(command)).read(), end="", flush=True)
    os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)
    os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)
    os.spawnv(os.P_WAIT, command[0], command)
    worker = multiprocessing.get_context("spawn").Process(target=show)
    worker.start(); worker.join()
    if not os.fork():
        show(); os._exit(0)
    os.wait()
"""
BECOMES = ("os.execv(command[0], command)", "os.execlp(command[0], *command)")
LIMITS = """
import multiprocessing, os, resource, shlex, subprocess, sys
def limit():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
def show():
    print(limit(), flush=True)
if __name__ == "__main__":
    ours = limit()
    print(ours >= int(sys.argv[1]), flush=True)
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    command = [sys.executable, "-c", code]
"""
STILL = """
    try: os.execv("/", ["/"])
    except OSError: pass
    print(limit() == ours, flush=True)
    print(os.execve in os.supports_fd, flush=True)
    meanwhile = f"resource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE)[0] == {ours}"
    code = f"import resource; print({meanwhile})"
    os.system(shlex.join([sys.executable, "-c", code]))
"""


@pytest.mark.parametrize(
    ("start", "out"),
    [
        (STARTS + STILL, "True\n" + "256\n" * 8 + "True\n" * 3),
        *((f"    {become}\n", "True\n256\n") for become in BECOMES),
    ],
    ids=("others are started", *BECOMES),
)
def test_the_limit_of_descriptors_is_raised_for_the_program_and_not_for_what_it_starts(
    start: str, out: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(LIMITS + start)
    needed = str(500 + MOST_HELD)  # of the cap, and of those who have no verdict yet
    assert run(LIMITED, "program.py", needed, cwd=tmp_path) == ("0", out, "")


IN_THE_BACKGROUND = """
import os, resource, socket, subprocess, sys
def listen():
    return socket.create_server(("127.0.0.1", 0))
def serve(listener):
    client = socket.create_connection(listener.getsockname())
    conn, _ = listener.accept()
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= int(sys.argv[1]), flush=True)
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    subprocess.run([sys.executable, "-c", code], check=True)
    os._exit(0)
"""
FORKS = {
    "listens before": """
listener = listen()
if not (pid := os.fork()): serve(listener)
os.waitpid(pid, 0)
""",
    "listens after": """
if not (pid := os.fork()):
    os.setsid()
    if not (pid := os.fork()): serve(listen())
    os.waitpid(pid, 0)
    os._exit(0)
os.waitpid(pid, 0)
""",
}


@pytest.mark.parametrize("forks", FORKS)
def test_the_limit_of_descriptors_is_raised_for_a_child_that_serves(
    forks: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(IN_THE_BACKGROUND + FORKS[forks])
    _, out, _ = run(LIMITED, "program.py", "500", cwd=tmp_path)
    assert out == "True\n256\n"


CONSOLE = """
import socketserver, sys, threading
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    print(server.server_address[1], flush=True)
    {read}
    server.shutdown()
    print("over", flush=True)
"""
READS = {
    "input": "while (line := input('> ')) != 'quit': print(repr(line), flush=True)",
    "iteration": (
        "for line in sys.stdin:\n"
        "        if line == 'quit\\n': break\n"
        "        print(repr(line.strip()), flush=True)"
    ),
    "its descriptor": (
        "while (line := sys.stdin.buffer.raw.read(100).decode()) != 'quit\\n':\n"
        "        print(repr(line.strip()), flush=True)"
    ),
}


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("read", READS)
def test_clients_are_served_while_the_program_waits_for_its_operator(
    read: str, terminal: bool, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(CONSOLE.format(read=READS[read]))
    ours, its = os.openpty() if terminal else (-1, subprocess.PIPE)
    process = subprocess.Popen(
        [*EXEC, "program.py"],
        stdin=its,
        stdout=its if terminal else subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    if terminal:
        os.close(its)
        typed: Any = os.fdopen(os.dup(ours), "wb", buffering=0)
        said: Any = os.fdopen(ours, "rb", buffering=0)
    else:
        typed, said = process.stdin, process.stdout
    lines = Lines(said)
    try:
        address = ("127.0.0.1", int(lines.until(b"\n")))
        for word in (b"one", b"two"):
            with socket.create_connection(address, 20.0) as client:
                client.sendall(b"hello\n")
                assert client.recv(100) == b"hello\n"
            typed.write(word + b"\n")
            typed.flush()
            lines.until(repr(word.decode()).encode())
        typed.write(b"quit\n")
        typed.flush()
        lines.until(b"over")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        typed.close()
        said.close()


class Lines:
    """What a program says, as far as it is expected."""

    def __init__(self, said: Any) -> None:
        self._said = said
        self._seen = b""

    def until(self, end: bytes) -> bytes:
        while end not in self._seen:
            assert select.select([self._said], [], [], 20.0)[0], self._seen
            data = os.read(self._said.fileno(), 1000)
            assert data, self._seen
            self._seen += data
        found, _, self._seen = self._seen.partition(end)
        return found


@pytest.mark.parametrize("way", ["input()", "sys.stdin.readline()", "sys.stdin.read()"])
def test_what_stdin_is_and_how_it_ends_is_as_under_python(way: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys\nprint(sys.stdin, sys.stdin.buffer, sys.stdin.encoding, sys.stdin.errors,\n"
        "sys.stdin.newlines, sys.stdin.fileno(), sys.stdin.closed, sys.stdin.isatty())\n"
        f"for _ in range(3): print(repr({way}))\n"
    )
    found, expected = (run(command, "program.py", cwd=tmp_path) for command in (EXEC, PYTHON))
    assert found == expected


FORKED_MEANWHILE = """
import multiprocessing, os, sys, threading, time
def work():
    print("worker", sys.stdin.read() == "", flush=True)
def start():
    while not reading: time.sleep(0.01)
    time.sleep(0.01)
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join(20)
    print(worker.exitcode, flush=True)
    if not os.fork():
        os.dup2(os.open("lines", os.O_RDONLY), 0)
        print(sys.stdin.readline(), end="", flush=True)
        os._exit(0)
    os.wait()
    print("over", flush=True)
reading = []
thread = threading.Thread(target=start)
thread.start()
reading.append(True)
print(repr(sys.stdin.readline()), flush=True)
thread.join()
"""
TWO_READERS = """
import sys, threading
def read():
    print(repr(sys.stdin.buffer.readline()), flush=True)
threads = [threading.Thread(target=read) for _ in range(2)]
for thread in threads: thread.start()
print("ready", flush=True)
for thread in threads: thread.join()
"""


def conversation(script: str, *exchanges: tuple[str, bytes], folder: Path) -> str:
    """What the program says in the end, after each of ``exchanges``: what it says first, and what
    it is then told."""
    (folder / "program.py").write_text(script)
    with subprocess.Popen(
        [*EXEC, "program.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdin is not None
        lines = Lines(process.stdout)
        try:
            for said, told in exchanges:
                if said:
                    lines.until(said.encode())
                process.stdin.write(told)
                process.stdin.flush()
            return process.communicate(timeout=20)[0].decode()
        finally:
            process.kill()


def test_a_child_forked_while_another_thread_waits_for_the_operator_lives(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("its own\n")
    exchange = ("worker True\n0\nits own\nover\n", b"line\n")
    assert conversation(FORKED_MEANWHILE, exchange, folder=tmp_path) == "'line\\n'\n"


def test_of_two_threads_that_read_stdin_each_has_its_turn_and_whole_lines(tmp_path: Path) -> None:
    exchanges = (("ready\n", b"fi"), ("", b"rst\nsec"), ("b'first\\n'\n", b"ond\n"))
    assert conversation(TWO_READERS, *exchanges, folder=tmp_path) == "b'second\\n'\n"


POLLED = """
import os, sys, time
told, tell = os.pipe()
os.dup2(told, 0)
os.set_blocking(0, False)
binary = sys.stdin.buffer
for _ in range(2):
    print(binary.read1(), binary.readline(), binary.read(3), binary.peek(), binary.read())
    print(binary.raw.read(5), binary.raw.read(), binary.readinto(bytearray(3)))
    os.write(tell, b"one\\ntwothree\\nfour")
    print(binary.read1(2), binary.readline(), binary.read(3), binary.peek(), binary.read())
os.close(tell)
while binary.raw.read(1) is None: time.sleep(0.001)
print(binary.read1(), binary.readline(), binary.read(3), binary.peek(), binary.read())
"""
FILE = """
import os, sys
os.dup2(os.open("lines", os.O_RDONLY), 0)
binary = sys.stdin.buffer
into = bytearray(3)
print(binary.read(2), binary.peek(1)[:3], binary.readinto(into), into, binary.read1(2))
print(binary.readline(2), binary.readline(), binary.readinto1(into), into, next(binary))
print(sys.stdin.readline(), sys.stdin.read(3))
print(binary.readlines(), binary.read(), binary.read(3), binary.read1(), binary.readline())
binary.close()
try: binary.read(1)
except ValueError as error: print(error)
"""


@pytest.mark.parametrize("script", [POLLED, FILE], ids=["that does not block", "that is a file"])
def test_a_stdin_is_read_as_under_python(script: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(script)
    (tmp_path / "lines").write_text("".join(f"{number} of many\n" for number in range(20)))
    found, expected = (run(command, "program.py", cwd=tmp_path) for command in (EXEC, PYTHON))
    assert found == expected
    assert found[0] == "0", found


def test_ctrl_c_ends_a_program_that_waits_for_its_operator(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("print('ready', flush=True)\ninput()\n")
    for command in (EXEC, PYTHON):
        with subprocess.Popen(
            [*command, "program.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            finally:
                process.kill()
            assert process.returncode == -signal.SIGINT
