"""Coverage-guided fuzzing of the PROXY header's parser.

    pip install atheris
    python tests/net/fuzz_proxy_header.py -runs=1000000

Options are libFuzzer's. It stops at the first input that breaks an invariant of
``test_proxy_header.hold_invariants`` and writes that input to a file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gserver.net.proxy_header"]):
    from gserver.net import proxy_header  # noqa: F401  # loaded here, so that it is instrumented

sys.path.insert(0, str(Path(__file__).parent))
from test_proxy_header import BAD, GOOD, hold_invariants

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as corpus:
        for number, (data, _) in enumerate([*GOOD, *BAD]):
            Path(corpus, str(number)).write_bytes(data)
        # libFuzzer ends the process itself; the folder stays behind in the system's own.
        atheris.Setup([*sys.argv, "-max_len=512", corpus], hold_invariants)
        atheris.Fuzz()
