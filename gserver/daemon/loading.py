"""Finding the handler that the user named: ``MODULE:HANDLER``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from gserver.errors import SettingError
from gserver.handlers.adapters import Kind, detect

__all__ = ["load_handler"]

_SETTING = "HANDLER"


def load_handler(name: str, app_dir: str, kind: Kind | None = None) -> Any:
    """Import ``MODULE:HANDLER``, MODULE being looked for in ``app_dir`` first.

    ``app_dir`` goes to the front of ``sys.path``: an installed script's own first entry is the
    folder the script lies in, not the current one.

    :param kind: what it was written for; None: as it looks.
    :return: a handler, a WSGI application or a class of socketserver's.
    :raises SettingError: not importable, not there, or not callable with (socket, address). One
        line that says which, and where an import failed.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and all(module_name.split(".")) and all(attribute.split("."))):
        raise SettingError(_SETTING, name, "give MODULE:HANDLER, or one of: console, echo")
    if not os.path.isdir(app_dir):
        raise SettingError("--app-dir", app_dir, "no such directory")
    sys.path.insert(0, os.path.abspath(app_dir))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            problem = f"no module {error.name!r} in {os.path.abspath(app_dir)} or installed"
            if "/" in module_name or module_name.endswith(".py"):
                stem = module_name.removesuffix(".py").strip("./").replace("/", ".")
                problem += f"; a module is named without its file's ending: {stem}:{attribute}"
        else:
            problem = f"importing it raised {_brief(error)}"
        raise SettingError(_SETTING, name, problem) from None
    except BaseException as error:  # SystemExit too: whatever it is, the module raised it
        raise SettingError(_SETTING, name, f"importing it raised {_brief(error)}") from None
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise SettingError(
                _SETTING, name, f"{module_name} has no {attribute!r}{_suggestions(found)}"
            ) from None
    problem = _why_no_handler(found)
    if problem and not _is_adaptable(found, kind):
        raise SettingError(_SETTING, name, f"{problem}; a handler is called with (socket, address)")
    return found


def _is_adaptable(found: Any, kind: Kind | None) -> bool:
    """Whether it is no handler, but something that an adapter serves."""
    try:
        return (kind or detect(found)) in (Kind.REQUEST_HANDLER, Kind.WSGI)
    except SettingError:
        return False


def _why_no_handler(found: Any) -> str:
    """Why ``found`` cannot serve clients; empty when nothing is known against it."""
    if not callable(found):
        return f"is not callable, but a {type(found).__name__}"
    for what in (found, getattr(found, "__call__", None)):  # noqa: B004  # its method is asked
        if inspect.iscoroutinefunction(what) or inspect.isasyncgenfunction(what):
            return "is async, and nothing would await it: handlers run in greenlets"
        if inspect.isgeneratorfunction(what):
            return "is a generator, and nothing would iterate over it"
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return ""  # a builtin that does not tell its arguments
    try:
        signature.bind(None, None)
    except TypeError:
        return f"takes {signature}"
    return ""


def _brief(error: BaseException) -> str:
    """An error and the place it came from, in one line."""
    text = " ".join(str(error).split())
    brief = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return brief
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and Path(frame.filename) != Path(__file__)
    ]
    return f"{brief} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else brief


def _suggestions(module: Any) -> str:
    names = (
        sorted(
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and not name.startswith("_")
        )
        if hasattr(module, "__dict__")
        else []
    )
    return f"; it has {', '.join(names[:5])}" if names else ""
