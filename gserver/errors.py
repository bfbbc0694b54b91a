"""Errors, by who is at fault.

The user's (a bad setting, a handler that cannot be imported, a port that is taken) is a
:class:`SettingError`: the command line prints it as one line and exits with status 2. The
handler's and the peer's are never raised to the user: they are logged and counted where the
connection ends (``gserver/connection.py``).
"""

from __future__ import annotations

__all__ = ["SettingError"]


class SettingError(ValueError):
    """A setting whose value cannot be used. One line that says what to do.

    :param setting: the setting's name as the user wrote it: ``max_connections`` or
        ``--max-connections``.
    :param given: the value that was given.
    :param problem: what is wrong with it, and what is accepted instead. Another setting is named
        after "needs", "goes without" or "at least", or has an underscore: so the command line can
        tell it from the ordinary word, and name its flag instead (``gserver/daemon/flags.py``).
    """

    def __init__(self, setting: str, given: object, problem: str) -> None:
        super().__init__(setting, given, problem)
        self.setting = setting
        self.given = given
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.setting} {self.given!r}: {self.problem}"
