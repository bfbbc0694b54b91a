"""``gserver probe cap``, as a stranger calls it, against every server of the comparison.

Each peer limits in its own way, and several count in ways of their own. The right limit, the right
policy, exactly one more after one has left: and nobody called admitted who was not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from missing import missing
from support import CERTIFICATE, KEY

from bench.peers import PEERS, Missing, Peer, Policy, start
from bench.peers.base import HOST, Launch, Site
from bench.peers.ours import GserverClose, GserverReply

pytestmark = pytest.mark.long

CAP = 10

#: Where there is no limit to find.
MOST = 120

OUTCOME = {
    Policy.FIN: "fin",
    Policy.RST: "rst",
    Policy.MESSAGE: "message",
    Policy.REFUSED: "refused",
    Policy.QUEUE: "queued",
}


class Says(GserverReply):
    """Ours with another busy message: one that comes before the client has spoken."""

    asked = False

    def __init__(self, rejection: str, message: bytes) -> None:
        # Of the instance, where a peer's are of its class: these are no rows of the comparison.
        self.name = f"gserver-{rejection.partition(' ')[0]}"  # type: ignore[misc]
        self.rejection = rejection  # type: ignore[misc]
        self.message = message  # type: ignore[misc]


class SpeaksTls(GserverClose):
    """Ours once more: nothing but a handshake shows who was admitted."""

    name = "gserver-tls"
    profile = "tls"

    def render(self, site: Site) -> Launch:
        files = ["--tls-cert", str(CERTIFICATE), "--tls-key", str(KEY)]
        return Launch([*super().render(site).argv, *files])


ROWS: list[Peer] = [
    *PEERS.values(),
    SpeaksTls(),
    Says("reply:smtp", b"421 "),
    Says("reply-text:full up", b"full up"),
]


def probe_cap(port: int, report: Path) -> dict[str, Any]:
    """What the command finds, told nothing but where: not even what the server speaks."""
    done = subprocess.run(
        [sys.executable, "-m", "gserver", "probe", "cap", f"{HOST}:{port}",
         "--max", f"{MOST}", "--quiet-time", "50ms", "--deadline", "1s", "--json", str(report)],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["invalid"] == []
    return found


@pytest.mark.parametrize("peer", ROWS, ids=lambda peer: peer.name)
def test_the_limit_and_the_policy_of_every_peer_are_found(peer: Peer, tmp_path: Path) -> None:
    try:
        peer.find()
    except Missing as error:
        missing(f"{peer.name}: {error}", error.install)
    with start(peer, CAP) as running:
        report = probe_cap(running.port, tmp_path / "report.json")
    found, figures = report["details"]["cap"], report["figures"]
    assert report["details"]["calibration"]["profile"] == peer.profile
    assert found["dropped_while_held"] == 0
    if peer.policy is Policy.UNLIMITED:
        assert (found["limit"], found["peak"], found["turned_away"]) == (None, MOST, {})
        return
    limit = peer.capacity(CAP)
    # The peak is of those who were proven served: one more would be an admission that never was.
    assert (found["limit"], found["peak"], found["over_admissions"]) == (limit, limit, 0)
    assert (found["fits_after_close"], found["slots_lost"]) == (1, 0)
    outcome = OUTCOME[peer.policy]
    assert found["policy"] == outcome
    # RST, too: of who came as the port was shut, or was closed when our probe lay unread.
    assert set(found["turned_away"]) - {"rst"} == {outcome} - {"rst"}
    assert figures[outcome] > 0
    if peer.message:
        assert found["message"].encode("latin-1").startswith(peer.message)
