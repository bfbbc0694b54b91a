"""What holds for every test: it ends what it starts, and its loop saw no unexpected error."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psutil
import pytest
from gevent.hub import Hub
from greenlet import greenlet
from missing import only_these_may_miss
from program import one_line
from support import eventually

from gserver import cli, slots
from gserver.limiter import Limiter


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-long", action="store_true", help="run the tests marked long, too")
    parser.addoption(
        "--may-miss",
        action="append",
        metavar="WORD",
        help="a test skipped for want of a program or a package fails, unless the reason has "
        "WORD in it (may be given several times)",
    )


def pytest_configure(config: pytest.Config) -> None:
    only_these_may_miss(config.getoption("--may-miss"))
    # A shell without job control starts what it puts in the background deaf to SIGINT (POSIX, sh,
    # 2.11), and nohup to SIGHUP; and so would be the programs that the tests stop by them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        # Each of the hundreds of programs that the tests start would compile the package anew.
        cache = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="gserver-tests-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-long"):
        return
    skip = pytest.mark.skip(reason="long: give --run-long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _loop() -> None:
    """The hub, with the descriptors it makes once, before anybody counts them."""
    hub = gevent.get_hub()
    hub.threadpool.apply(lambda: None)
    gevent.spawn(lambda: None).join()


@pytest.fixture
def hub_errors(monkeypatch: pytest.MonkeyPatch, _loop: None) -> list[BaseException]:
    """What the hub would have printed as a traceback. A test that expects it empties the list."""
    errors: list[BaseException] = []
    monkeypatch.setattr(
        gevent.get_hub(),
        "print_exception",
        lambda context, kind, value, tb: errors.append(value or kind()),
    )
    return errors


@pytest.fixture
def limiters(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Limiter]]:
    """Every limiter made in the test."""
    made: list[weakref.ref[Limiter]] = []
    original = Limiter.__init__

    def remember(self: Limiter, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Limiter, "__init__", remember)
    return made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs the command in this process, where what it leaves open is seen; its exit status. It
    must not come as far as serving."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {signum: signal.getsignal(signum) for signum in signals}
    root = logging.getLogger()
    logs, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "path", sys.path[:])

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gserver", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code

    yield run
    root.handlers[:] = logs
    root.setLevel(level)
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def refusal(here: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command with a mistake of the user's; the one line that says so."""

    def run(*arguments: str) -> str:
        assert here(*arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        return one_line(err)

    return run


@pytest.fixture(autouse=True)
def _nothing_left_behind(
    _loop: None, hub_errors: list[BaseException], limiters: list[weakref.ref[Limiter]]
) -> Iterator[None]:
    """No descriptor, greenlet, child process or slot outlives its test."""
    descriptors = _descriptors()
    children = _children()
    # What there is already is set aside: at the end the collector knows only what is of this
    # test, some hundred objects instead of 100,000, and so tells its greenlets in no time.
    gc.freeze()
    try:
        yield
        for reference in limiters:
            _end_report(reference())

        def left() -> list[str]:
            found = [f"descriptor {fd}: {what}" for fd, what in _descriptors() - descriptors]
            found += [f"greenlet {g!r}" for g in _greenlets()]
            found += [f"child {child}" for child in _children() - children]
            for reference in limiters:
                limiter = reference()
                if limiter is not None:
                    found += _held(limiter)
            return found

        if left():
            gc.collect()
            try:
                eventually(lambda: not left(), within=3.0)
            except AssertionError:
                pytest.fail("left behind:\n" + "\n".join(left()), pytrace=False)
        if hub_errors:
            pytest.fail(f"errors in the loop: {hub_errors!r}", pytrace=False)
        gc.collect()  # what only warns when it is collected warns in its own test
    finally:
        gc.unfreeze()


def _end_report(limiter: Limiter | None) -> None:
    """Its last line, "accepting again", would come in the middle of another test."""
    if limiter is not None and limiter._log._timer is not None:
        limiter._log._timer.stop()
        limiter._log._timer.close()


def _held(limiter: Limiter) -> list[str]:
    books = limiter.snapshot()
    found = []
    if books.occupied:
        found.append(f"{books.occupied} slots")
    if books.pending:
        found.append(f"{books.pending} candidates")
    if limiter.connections:
        found.append(f"connections {limiter.connections}")
    if slots.semaphore_error(limiter.pool):
        found.append(f"semaphore off by {slots.semaphore_error(limiter.pool)}")
    if not books.balanced:
        found.append(f"unbalanced books {books}")
    return found


def _descriptors() -> set[tuple[str, str]]:
    """(number, what it is): a socket's text holds its inode."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:
            continue  # the listing's own
    return found


def _children() -> set[psutil.Process]:
    try:
        if hasattr(os, "waitid"):  # macOS has it from Python 3.13
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all, and no need to look through all processes
        return set()
    return set(psutil.Process().children())


def _greenlets() -> list[Any]:
    """This thread's greenlets that have begun, or are scheduled to, and have not ended; without
    those that were there before the test."""
    main = _main_of(gevent.getcurrent())
    found = []
    for thing in gc.get_objects():
        if not issubclass(type(thing), greenlet) or isinstance(thing, Hub):
            continue
        if thing.parent is None or thing.dead or _main_of(thing) is not main:
            continue
        if thing or (isinstance(thing, gevent.Greenlet) and thing.started):
            found.append(thing)
    return found


def _main_of(thing: Any) -> Any:
    """The main greenlet of the thread that this one belongs to."""
    while thing.parent is not None:
        thing = thing.parent
    return thing
