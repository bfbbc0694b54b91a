"""gevent's own tests of its servers, run against ours: the proof of "drop-in".

    gevent_suite.py MODULE uncapped|capped CAP

MODULE of gevent.tests is run with gserver's classes in the place of gevent.server.StreamServer
and gevent.pywsgi.WSGIServer. ``capped`` gives every server without a limit of its own one of CAP.
Prints one line of JSON: how many ran on how many servers, and which failed.
"""

from __future__ import annotations

import importlib
import json
import sys
import unittest
from collections import Counter
from typing import Any

import gevent
import gevent.pywsgi
import gevent.server
from gevent.pool import Pool

import gserver


def capped(server_class: Any, cap: int) -> Any:
    class Capped(server_class):
        def set_spawn(self, spawn: Any) -> None:
            # Where gevent's tests start greenlets without a limit.
            if spawn in ("default", None, gevent.spawn, gevent.spawn_raw):
                spawn = Pool(cap)
            super().set_spawn(spawn)

    Capped.__name__ = server_class.__name__
    return Capped


def counted(server_class: Any, made: Counter[bool]) -> Any:
    class Counted(server_class):
        def init_socket(self) -> None:
            super().init_socket()
            made[self.max_connections is not None] += 1

    Counted.__name__ = server_class.__name__
    return Counted


def main() -> None:
    name, mode, cap = sys.argv[1:]
    made: Counter[bool] = Counter()
    stream, wsgi = counted(gserver.StreamServer, made), counted(gserver.WSGIServer, made)
    if mode == "capped":
        stream, wsgi = capped(stream, int(cap)), capped(wsgi, int(cap))
    gevent.server.StreamServer = stream
    gevent.pywsgi.WSGIServer = wsgi
    sys.argv[1:] = []
    module = importlib.import_module(f"gevent.tests.{name}")
    out, sys.stdout = sys.stdout, sys.stderr
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    json.dump(
        {
            "ran": result.testsRun,
            "servers": {"uncapped": made[False], "capped": made[True]},
            "skipped": len(result.skipped),
            "failed": sorted(
                test.id().removeprefix("gevent.tests.")
                for test, _ in result.failures + result.errors
            ),
        },
        out,
    )
    print(file=out)


if __name__ == "__main__":
    main()
