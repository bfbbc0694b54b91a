"""Running a Python program as ``python PROGRAM`` and ``python -m MODULE`` do.

Sources: pymain_run_python in CPython's Modules/main.c, which this follows, and runpy, which
CPython itself uses for ``-m``, for directories and for zip files.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import importlib.machinery
import io
import logging
import os
import pkgutil
import runpy
import signal
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Final

from gserver.errors import SettingError

__all__ = ["run_module", "run_program"]

_OURS: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
_interrupted = False
_kept: list[Any] = []  # the command's own __main__: its globals stay alive


def run_program(path: str, arguments: Sequence[str]) -> int:
    """Run a script, a directory or zip file with a ``__main__.py``, or, ``-``, standard input.

    :return: the exit status, 0 or 1. The caller exits with it at once: what the interpreter does
        at exit (threads, atexit) is still to come.
    :raises SystemExit: the program's.
    :raises SettingError: the file cannot be read.
    """
    sys.argv = [path, *arguments]
    main = _fresh_main()
    if path == "-":
        _set_first_path("")
        loader: Any = importlib.machinery.BuiltinImporter
        main.__dict__.update(__file__="<stdin>", __cached__=None, __loader__=loader)
        return _run(lambda: _execute(sys.stdin.buffer.read(), "<stdin>", main))
    absolute = os.path.join(os.getcwd(), path)  # as CPython makes it: not normalised
    if pkgutil.get_importer(absolute) is not None:
        _set_first_path(absolute)
        return _run(lambda: runpy._run_module_as_main("__main__", False))  # type: ignore[attr-defined]
    try:
        with io.open_code(absolute) as file:
            source = file.read()
    except OSError as error:
        raise SettingError("PROGRAM", path, f"cannot be read: {error.strerror}") from None
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    loader = importlib.machinery.SourceFileLoader("__main__", absolute)
    main.__dict__.update(__file__=absolute, __cached__=None, __loader__=loader)
    return _run(lambda: _execute(source, absolute, main))


def run_module(name: str, arguments: Sequence[str]) -> int:
    """Run a module or package, as :func:`run_program`."""
    sys.argv = ["-m", *arguments]  # runpy puts the file there once it has found it
    _fresh_main()
    _set_first_path(os.getcwd())
    return _run(lambda: runpy._run_module_as_main(name))  # type: ignore[attr-defined]


def _execute(source: bytes, name: str, main: types.ModuleType) -> None:
    exec(compile(source, name, "exec", dont_inherit=True), vars(main))


def _fresh_main() -> types.ModuleType:
    for name in ("stdin", "stdout", "stderr"):  # None where it was closed, as the program expects
        setattr(sys, name, getattr(sys, f"__{name}__"))
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __annotations__={})
    _kept.append(sys.modules.get("__main__"))
    sys.modules["__main__"] = main
    return main


def _set_first_path(path: str) -> None:
    """Put ``path`` where the interpreter put the command's own."""
    if not sys.flags.safe_path:  # python -P puts nothing there
        sys.path[:1] = [path]


def _run(program: Callable[[], object]) -> int:
    try:
        program()
    except SystemExit:
        raise
    except BaseException as error:
        _report(error)
        if isinstance(error, KeyboardInterrupt):
            _die_of_sigint_at_exit()
        return 1
    return 0


def _report(error: BaseException) -> None:
    """What the interpreter does with an exception that nobody caught: PyErr_Print."""
    _leave_out_our_frames(error)
    traceback = error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    sys.last_exc = error  # type: ignore[attr-defined]  # Python 3.12
    try:
        sys.excepthook(type(error), error, traceback)
    except Exception as problem:
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(problem), problem, problem.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, traceback)


def _leave_out_our_frames(error: BaseException) -> None:
    """Of its traceback, and of those of the exceptions it came from. What goes wrong in our own
    code is seen with ``python -X dev``, which leaves them where they are."""
    left: list[BaseException | None] = [error]
    seen = set()
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        left += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
        frames = []
        traceback = each.__traceback__
        while traceback is not None:
            frames.append(traceback)
            traceback = traceback.tb_next
        for it in reversed(frames):
            file = it.tb_frame.f_code.co_filename
            if file.startswith(_OURS) and (file == __file__ or not sys.flags.dev_mode):
                continue
            traceback = types.TracebackType(traceback, it.tb_frame, it.tb_lasti, it.tb_lineno)
        each.__traceback__ = traceback


def _die_of_sigint_at_exit() -> None:
    """A program that Ctrl-C ended tells its shell so: it dies of SIGINT, after everything else
    (exit_sigint in Modules/main.c)."""
    global _interrupted
    _interrupted = True


@atexit.register  # before any of the program's functions, so that it is called after them
def _die_if_interrupted() -> None:
    if _interrupted:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
