"""``python -m gserver``: the same program as ``gserver``."""

from gserver.cli import main

if __name__ == "__main__":
    main()
