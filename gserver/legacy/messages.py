"""What we have to say, inside somebody else's program: to its stderr, marked, and nothing else."""

from __future__ import annotations

import logging
import sys

__all__ = ["to_stderr"]


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in the stubs
    def handleError(self, record: logging.LogRecord) -> None:
        pass  # the program closed its stderr: it has daemonized, and there is nobody to tell


def to_stderr() -> None:
    """Send our log to stderr as it is now, each line marked ``gserver: ``.

    The program's own logging neither sees our lines nor can turn them off: our logger is taken
    from its registry, where ``logging.config`` disables what it finds.
    """
    log = logging.getLogger("gserver")
    handler = _Stderr(sys.stderr)
    handler.setFormatter(_Marked())
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)
    logging.root.manager.loggerDict.pop("gserver", None)


class _Marked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(f"gserver: {line}" for line in super().format(record).splitlines())
