"""The ``gserver`` command; also ``python -m gserver``.

Imports nothing before :func:`main`: to import the rest takes a third of a second, in which Ctrl-C
must not end in a traceback.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line, and exit."""
    try:
        from gserver.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as a shell reports it


if __name__ == "__main__":
    main()
