"""What the calibration's clients were told, which every admitted client must be told again. Pure.

A profile says what an admitted client's answer looks like at any server; what it looks like at this
one is only seen where nobody else is connected. HAProxy's ``http-request deny`` answers 403, others
500: an answer, and no admission. Where the first who comes is answered 404, so are the admitted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from gserver.probe.profiles import STATUS, Profile

__all__ = ["learned"]


def learned(profile: Profile, answers: Sequence[bytes]) -> Profile:
    """*profile*, narrowed to what single clients, one after the other, received: *answers*."""
    if profile.status is None:
        return profile
    found = {match[1] for answer in answers if (match := profile.status.search(answer))}
    if not found:
        return profile
    any_of_them = b"(?:%s)" % b"|".join(sorted(found))
    expect = profile.status.pattern.replace(STATUS, any_of_them)
    return replace(profile, expect=re.compile(expect, re.DOTALL))
