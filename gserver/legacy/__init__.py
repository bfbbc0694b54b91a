"""Programs written for blocking sockets and threads, unmodified, under a hard cap.

The layout, lowest first:

    children.py   what forked children still have open
    holders.py    the slot of a connection lives with its descriptor's owner
    listener.py   what the program's accept() finds; the overload watcher; TLS handshakes
    service.py    which listeners count
    sockets.py    gevent's sockets, taught the above: where the cap enters the program
    readiness.py  select, poll and selectors, taught it too
    install.py    all of it together: install()
"""

from gserver.legacy.install import Installed, install

__all__ = ["Installed", "install"]
