"""Programs written for blocking sockets and threads, unmodified, under a hard cap.

The layout, lowest first:

    children.py   what forked children still have open
    prefork.py    several processes on one listener, told of
    holders.py    the slot of a connection lives with its descriptor's owner
    timed.py      a slot that timeouts can end
    descriptors.py  the limit of descriptors that the cap takes
    handshakes.py TLS handshakes, each with a deadline
    listener.py   what the program's accept() finds; the overload watcher
    service.py    which listeners count
    moves.py      descriptors closed, duplicated and inherited without a socket object
    sockets.py    gevent's sockets, taught the above: where the cap enters the program
    readiness.py  select, poll and selectors, taught it too
    watch.py      what the cap cannot see or help, told in the log
    install.py    all of it together: install()
    run.py  signals.py  stdin.py  messages.py
                  a program run as Python itself would run it

``gserver exec`` and the environment variables are in gserver/daemon/: exec.py, environment.py.
"""

from gserver.legacy.install import Installed, install

__all__ = ["Installed", "install"]
