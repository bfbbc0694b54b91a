"""A capped process that has done its imports, and forks another for each script it is told.

A line of JSON on standard input is a script, and the files that take what it prints. Answers with
the new process's id, and when that has ended with its exit status, a line each. Ends when its
standard input does.
"""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import inside_capped  # noqa: E402
from gevent._hub_local import get_hub_if_exists  # noqa: E402


def next_script() -> str | None:
    """The script that this process, a new one, is to run; None in the first one, at the end."""
    fork = gevent.monkey.get_original("os", "fork")  # the others want a loop, and so make one
    waitpid = gevent.monkey.get_original("os", "waitpid")
    assert get_hub_if_exists() is None, "the scripts would share a loop"
    for line in sys.stdin.buffer:
        told: dict[str, Any] = json.loads(line)
        if not (pid := fork()):
            for number, path in enumerate((os.devnull, told["out"], told["err"])):
                fd = os.open(path, os.O_RDWR)
                os.dup2(fd, number)
                os.close(fd)
            return str(told["script"])
        os.write(1, b"%d\n" % pid)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(waitpid(pid, 0)[1]))
    return None


if (script := next_script()) is not None:
    names = {name: getattr(inside_capped, name) for name in inside_capped.__all__}
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__", **names})
