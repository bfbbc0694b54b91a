"""The bundled trivial rejecter: accepts and closes, as fast as Python can, in its own process.

``python -m gserver.probe.rejecter PARENT`` prints its port. What a client sees of it is the
client's own cost and the kernel's, and as the *sink* of a control flood it takes the load without
being the server under test.
"""

from __future__ import annotations

import _socket
import socket
import sys

from gserver.probe.children import die_with_parent

__all__ = ["main"]


def main() -> None:
    """Serve until killed."""
    die_with_parent(int(sys.argv[1]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    accept, close = listener._accept, _socket.close  # type: ignore[attr-defined]
    while True:
        try:
            fd, _ = accept()
        except OSError:
            continue
        close(fd)


if __name__ == "__main__":
    main()
