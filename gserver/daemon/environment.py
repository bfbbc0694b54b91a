"""The cap by environment variables, for programs that patch themselves.

gevent calls :func:`did_patch_all` at the end of every ``patch_all()`` (an entry point of its
group ``gevent.plugins.monkey.did_patch_all``), in every program where gserver is installed. So
this imports nothing, and does nothing, without ``GSERVER_MAX_CONNECTIONS``. With it,
``python -m gevent.monkey old_server.py`` runs under that cap.

Every option of ``gserver exec`` is such a variable: ``GSERVER_`` and its name, ``--per-source 10``
is ``GSERVER_PER_SOURCE=10``. Values of one that may be given again are separated by spaces;
switches are 1 or 0.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gserver.daemon.exec_options import ExecSettings

__all__ = ["did_patch_all", "have_no_effect"]

_PREFIX = "GSERVER"
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
    problem = _install()
    if problem:
        sys.stderr.write(f"gserver: {problem}\n")
        sys.exit(2)


def _install() -> str:
    """What is wrong with the variables; empty when the cap is in place."""
    import re

    import click

    from gserver.daemon.exec_options import exec_options
    from gserver.daemon.flags import variable
    from gserver.errors import SettingError

    @click.command()
    @exec_options
    def install(settings: ExecSettings) -> None:
        settings.install()

    known = {variable(_PREFIX, name) for param in install.params for name in param.opts}
    for name in sorted(os.environ.keys() - known):
        if name.startswith(_PREFIX + "_"):
            sys.stderr.write(f"gserver: {name} is no setting, and has no effect\n")
    try:
        install.main([], standalone_mode=False, auto_envvar_prefix=_PREFIX)
    except SettingError as error:
        line = str(error)
    except click.ClickException as error:
        line = error.format_message()
    else:
        return ""
    return re.sub(r"--[a-z][a-z-]*", lambda found: variable(_PREFIX, found[0]), line)


def have_no_effect() -> None:
    """This process gets its cap in another way, even if the variables are set."""
    global _installed
    _installed = True
