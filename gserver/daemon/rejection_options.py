"""Options about how clients are turned away."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from gserver.admission.verdict import Reason
from gserver.errors import SettingError
from gserver.net.rejection import Close, Refuse, Rejection, Reset, by_reason
from gserver.net.reply import Reply
from gserver.replies import BY_NAME

__all__ = ["Rejections", "rejection_options"]

_REJECT: Final = "--reject"
_REJECT_ON: Final = "--reject-on"
_DEFAULT: Final = "close"
_PLAIN: Final[dict[str, Callable[[], Rejection]]] = {
    "close": Close,
    "reset": Reset,
    "refuse": Refuse,
}
_ACCEPTED: Final = "accepted: close, reset, refuse, reply:NAME and reply-text:TEXT"
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.?))", re.DOTALL)
_ESCAPED: Final = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}


@dataclass(frozen=True, slots=True)
class Rejections:
    """How clients are turned away, as the user wrote it.

    :ivar given: by reason, the flag, its value, and the rejection that it stands for.
    :ivar is_default: whether the user has not said how the excess is turned away.
    """

    given: Mapping[Reason, tuple[str, str, Rejection]]
    is_default: bool = False

    def or_by_default(self, how: str) -> Rejections:
        """These, with the excess turned away as ``how`` says unless the user has said."""
        if not self.is_default:
            return self
        capacity = (_REJECT, how, _rejection(_REJECT, how, how))
        return Rejections({**self.given, Reason.CAPACITY: capacity})

    @property
    def by_reason(self) -> dict[str, Rejection]:
        """For a server's ``rejection``."""
        return {reason: rejection for reason, (_, _, rejection) in self.given.items()}

    @property
    def refuses(self) -> bool:
        """Whether listeners are shut while the server is full."""
        return isinstance(self.given[Reason.CAPACITY][2], Refuse)

    @property
    def max_lingering(self) -> int:
        """The most clients of one listener, each with a descriptor, that may be taking a reply at
        once."""
        return sum(how.max_lingering for _, _, how in self.given.values() if isinstance(how, Reply))

    def __str__(self) -> str:
        texts = [self.given[Reason.CAPACITY][1]]
        texts += [text for reason, (_, text, _) in self.given.items() if reason != Reason.CAPACITY]
        return ", ".join(texts)

    def in_flags(self, error: SettingError) -> SettingError:
        """The error, in the user's words if it is about one of these rejections."""
        for name, text, rejection in self.given.values():
            if rejection is error.given:
                return SettingError(name, text, error.problem)
        return error


def rejection_options(
    *, default: str = _DEFAULT, refuse: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options to a command, which is called with ``rejections``, a :class:`Rejections`,
    in their place.

    :param default: what the help calls the default.
    :param refuse: whether it tells of ``refuse``.
    """
    refusing = (
        "refuse: ECONNREFUSED, by the kernel, at no cost; who is refused is not counted. "
        if refuse
        else ""
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def build(*, reject: str | None, reject_on: tuple[str, ...], **arguments: Any) -> Any:
            return command(rejections=_read(reject, reject_on), **arguments)

        click.option(
            _REJECT_ON,
            multiple=True,
            metavar="REASON=HOW",
            help="The same for another reason than capacity, like denied=reset or "
            "source=reply:http. May be given again.  [default: as --reject says; but who is "
            "denied or penalised, or came when there was no descriptor left, is not replied to "
            "but reset]",
        )(build)
        click.option(
            _REJECT,
            metavar="HOW",
            help="What the excess sees. close: an end-of-file. reset: ECONNRESET, which leaves no "
            "TIME_WAIT here and is the better one above 2,000 rejections a second. "
            f"{refusing}reply:NAME: a busy message, NAME one of {', '.join(sorted(BY_NAME))}. "
            r"reply-text:TEXT: your own, in which \r, \n, \t, \\ and \xNN are what they are in C.  "
            f"[default: {default}]",
        )(build)
        return build

    return add


def _read(reject: str | None, reject_on: tuple[str, ...]) -> Rejections:
    is_default = reject is None
    reject = _DEFAULT if reject is None else reject
    given = {Reason.CAPACITY: (_REJECT, reject, _rejection(_REJECT, reject, reject))}
    for text in reject_on:
        word, equals, how = text.partition("=")
        if not equals or word not in set(Reason):
            known = ", ".join(reason for reason in Reason if reason != Reason.CAPACITY)
            raise SettingError(_REJECT_ON, text, f"give REASON=HOW, with one of {known}")
        reason = Reason(word)
        if reason == Reason.CAPACITY:
            raise SettingError(_REJECT_ON, text, f"give {_REJECT} {how}: it is for capacity")
        if reason in given:
            raise SettingError(_REJECT_ON, text, f"there is one for {reason} already")
        given[reason] = (_REJECT_ON, text, _rejection(_REJECT_ON, text, how))
    rejections = Rejections(given, is_default)
    try:
        by_reason(rejections.by_reason)
    except SettingError as error:
        raise rejections.in_flags(error) from None
    return rejections


def _rejection(setting: str, text: str, how: str) -> Rejection:
    kind, _, what = how.partition(":")
    try:
        if how in _PLAIN:
            return _PLAIN[how]()
        if kind == "reply":
            return Reply(what)
        if kind == "reply-text":
            return Reply(_unescaped(what))
    except SettingError as error:
        raise SettingError(setting, text, error.problem) from None
    raise SettingError(setting, text, _ACCEPTED)


def _unescaped(text: str) -> bytes:
    """The bytes of a message, UTF-8, its escapes replaced."""

    def replace(found: re.Match[bytes]) -> bytes:
        digits, letter = found.groups()
        if digits is not None:
            return bytes.fromhex(digits.decode())
        if letter not in _ESCAPED:
            raise SettingError("", text, r"after a backslash comes r, n, t, xNN or another one")
        return _ESCAPED[letter]

    return _ESCAPE.sub(replace, text.encode("utf-8", "surrogateescape"))
