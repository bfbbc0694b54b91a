"""The cap by environment variable, for programs that patch themselves.

gevent calls :func:`did_patch_all` at the end of every ``patch_all()`` (an entry point of its
group ``gevent.plugins.monkey.did_patch_all``). Without ``GSERVER_MAX_CONNECTIONS`` it does
nothing; with it, ``python -m gevent.monkey old_server.py`` runs under that cap.

    GSERVER_MAX_CONNECTIONS    the cap
    GSERVER_SETTLE             seconds; see gserver.legacy.install
    GSERVER_REJECT             close or reset
    GSERVER_ONLY               the listeners that count, separated by spaces
    GSERVER_HANDSHAKE_TIMEOUT  seconds; 0: for ever
    GSERVER_REAP_AFTER         seconds; unset: never
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["did_patch_all", "not_by_environment"]

Number = TypeVar("Number", int, float)

_SWITCH = "GSERVER_MAX_CONNECTIONS"
_installed = False


def did_patch_all(event: object) -> None:
    """gevent's event: everything is patched. A setting that cannot be used ends the process
    with status 2: the program must not run without the cap it was given.

    Further calls do nothing: a program may patch again, and gevent tells of that again."""
    global _installed
    if _installed or not os.environ.get(_SWITCH):
        return
    _installed = True
    from gserver.errors import SettingError

    try:
        _install()
    except SettingError as error:
        sys.stderr.write(f"gserver: {error}\n")
        sys.exit(2)


def _install() -> None:
    # Only now, and only here: processes without the variable load none of this.
    from gserver.errors import SettingError
    from gserver.legacy import descriptors, messages
    from gserver.legacy.install import install
    from gserver.net.rejection import Close, Reset

    environment = os.environ
    reject = environment.get("GSERVER_REJECT", "close")
    rejections: dict[str, type[Close] | type[Reset]] = {"close": Close, "reset": Reset}
    if reject not in rejections:
        raise SettingError("GSERVER_REJECT", reject, "must be close or reset")
    cap = _number(_SWITCH, int)
    assert cap is not None
    messages.to_stderr()
    descriptors.raise_limit(cap)
    handshake = _number("GSERVER_HANDSHAKE_TIMEOUT", float)
    install(
        cap,
        settle=_number("GSERVER_SETTLE", float),
        rejection=rejections[reject](),
        only=environment.get("GSERVER_ONLY", "").split(),
        handshake_timeout=10.0 if handshake is None else handshake or None,
        reap_after=_number("GSERVER_REAP_AFTER", float),
    )


def _number(name: str, kind: Callable[[str], Number]) -> Number | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        from gserver.errors import SettingError

        raise SettingError(name, text, "must be a number") from None


@contextlib.contextmanager
def not_by_environment() -> Iterator[None]:
    """For a while, what patches is not the program: the variable is out of sight."""
    value = os.environ.pop(_SWITCH, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[_SWITCH] = value
