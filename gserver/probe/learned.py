"""What the calibration's clients were told, which every admitted client must be told again. Pure.

A profile says what an admitted client's answer looks like at any server; what it looks like at this
one is only seen where nobody else is connected. HAProxy's ``http-request deny`` answers 403, others
500: an answer, and no admission. Where the first who comes is answered 404, so are the admitted.
And a server that greets may greet with "busy", and leave it at that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gserver.probe.profiles import STATUS, Profile, Speaks

__all__ = ["learned"]

_MOST: Final = 128  # bytes of a greeting that are looked at
_WORD: Final = re.compile(rb"[0-9A-Za-z]+|[ \t]+|[^0-9A-Za-z \t]")
_DIGIT: Final = re.compile(rb"[0-9]")
_CODE: Final = re.compile(rb"[0-9]{3}")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # escapes colour a text


def learned(profile: Profile, answers: Sequence[bytes]) -> Profile:
    """*profile*, narrowed to what single clients, one after the other, received: *answers*."""
    if profile.status is not None:
        return _with_status(profile, profile.status, answers)
    if profile.admits_any_greeting or _is_greeted(profile, answers):
        return replace(profile, greeting=_in_common(answers))
    return profile


def _is_greeted(profile: Profile, answers: Sequence[bytes]) -> bool:
    """Whether something comes before the answer that is expected, and shows nothing."""
    if profile.speaks is not Speaks.CLIENT or profile.expect is None:
        return False
    return not any(profile.expect.search(_first_line(answer)) for answer in answers)


def _with_status(profile: Profile, status: re.Pattern[bytes], answers: Sequence[bytes]) -> Profile:
    found = {match[1] for answer in answers if (match := status.search(answer))}
    if not found:
        return profile
    expect = status.pattern.replace(STATUS, b"(?:%s)" % b"|".join(sorted(found)))
    return replace(profile, expect=re.compile(expect, re.DOTALL))


def _in_common(greetings: Sequence[bytes]) -> re.Pattern[bytes] | None:
    """How the first line of all of *greetings* begins; None: there is nothing to go by.

    A word that is the same in all stands for itself. A number is one of any length: a process's,
    the time, how many have come so far; so is, as far as it goes, a word with a digit in it. Only
    three digits that it begins with and that are the same in all are taken for a code, as SMTP's.
    Where words differ it ends, before what may be a challenge; of binary there is no telling.
    """
    if not all(map(_is_text, greetings)):
        return None
    found = b""
    for words in zip(*(_WORD.findall(_first_line(text)) for text in greetings), strict=False):
        if not found and len(set(words)) == 1 and _CODE.fullmatch(words[0]):
            found += words[0]
        elif all(word.isdigit() for word in words):
            found += b"[0-9]+"
        elif not any(word.strip(b" \t") for word in words):
            found += b"[ \t]*"  # a number may be filled up with blanks
        elif len(set(words)) > 1:
            break
        else:
            found += b"[0-9A-Za-z]+" if _DIGIT.search(words[0]) else re.escape(words[0])
    return re.compile(rb"\s*" + found, re.DOTALL) if found else None


def _is_text(greeting: bytes) -> bool:
    try:
        greeting.decode()
    except UnicodeDecodeError:
        return False
    return not _BINARY.search(greeting)


def _first_line(greeting: bytes) -> bytes:
    """With its end, as far as there is one: a greeting may begin with empty lines."""
    line, end, _ = greeting.lstrip().partition(b"\n")
    return (line + end)[:_MOST]
