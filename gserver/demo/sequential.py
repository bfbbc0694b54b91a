"""The article's first server: one client after the other, and no limit.

A program of its own (``python -m gserver.demo.sequential``) that prints its port. Whoever
connects while it serves somebody waits in the kernel's queue, connected, and hears nothing.
"""

from __future__ import annotations

import socket

__all__ = ["main"]


def main() -> None:
    """Serve for ever, echoing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)  # noqa: T201  # its interface
        while True:
            client, _ = listener.accept()
            with client:
                while data := client.recv(4096):
                    client.sendall(data)


if __name__ == "__main__":
    main()
