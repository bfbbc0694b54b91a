"""Options about how clients are turned away."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import click

from gserver.admission.verdict import Reason
from gserver.daemon.descriptors import Share
from gserver.daemon.flags import Count, Time
from gserver.descriptors import taking_replies
from gserver.errors import SettingError
from gserver.net.rejection import UNEXPLAINED, Close, Refuse, Rejection, Reset, by_reason
from gserver.net.reply import Reply
from gserver.replies import BY_NAME

__all__ = ["Rejections", "rejection_options"]

_REJECT: Final = "--reject"
_REJECT_ON: Final = "--reject-on"
_DEFAULT: Final = "close"
_REPLY_TIMEOUT: Final = "--reply-timeout"
_MAX_LINGERING: Final = "--reply-max-lingering"
_OF_REPLIES: Final = {"timeout": _REPLY_TIMEOUT, "max_lingering": _MAX_LINGERING}
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
    :ivar of_replies: what the user said of every ``Reply``, as its arguments.
    """

    given: Mapping[Reason, tuple[str, str, Rejection]]
    is_default: bool = False
    of_replies: Mapping[str, Any] = field(default_factory=dict)

    def or_by_default(self, how: str) -> Rejections:
        """These, with the excess turned away as ``how`` says unless the user has said."""
        if not self.is_default:
            return self
        capacity = (_REJECT, how, _rejection(_REJECT, how, how, self.of_replies))
        return Rejections({**self.given, Reason.CAPACITY: capacity}, of_replies=self.of_replies)

    def check_replies(self) -> None:
        """To be called when it is known what the default is.

        :raises SettingError: the user said something of replies, and there is none.
        """
        if not self._replies:
            for setting, given in self.of_replies.items():
                problem = "needs a reply: give --reject or --reject-on one"
                raise SettingError(_OF_REPLIES[setting], given, problem)

    @property
    def by_reason(self) -> dict[str, Rejection]:
        """For a server's ``rejection``."""
        return {reason: rejection for reason, (_, _, rejection) in self.given.items()}

    @property
    def refuses(self) -> bool:
        """Whether listeners are shut while the server is full."""
        return isinstance(self.given[Reason.CAPACITY][2], Refuse)

    @property
    def _replies(self) -> list[Reply]:
        return [how for _, _, how in self.given.values() if isinstance(how, Reply)]

    def shares(self, listeners: int = 1) -> list[Share]:
        """The descriptors of those that may be taking a reply at once, on so many listeners."""
        replies = self._replies
        if not replies:
            return []
        each = replies[0].max_lingering  # the same option for all of them
        return [Share(_MAX_LINGERING, each, taking_replies(replies, listeners) // each)]

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
        "refuse: ECONNREFUSED, by the kernel, at no cost; who is refused is not counted; other "
        "reasons reset. "
        if refuse
        else ""
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def build(
            *,
            reject: str | None,
            reject_on: tuple[str, ...],
            reply_timeout: float | None,
            reply_max_lingering: int | None,
            **arguments: Any,
        ) -> Any:
            of_replies = {"timeout": reply_timeout, "max_lingering": reply_max_lingering}
            of_replies = {name: value for name, value in of_replies.items() if value is not None}
            return command(rejections=_read(reject, reject_on, of_replies), **arguments)

        click.option(
            _MAX_LINGERING,
            type=Count(),
            help="The clients of a listener that may be taking a reply at once; the next ones are "
            "closed without a word.  [default: 256]",
        )(build)
        click.option(
            _REPLY_TIMEOUT,
            type=Time(),
            help="How long a client has to take its reply, and to leave.  [default: 2]",
        )(build)

        click.option(
            _REJECT_ON,
            multiple=True,
            metavar="REASON=HOW",
            help="The same for another reason than capacity, like denied=reset or "
            f"source=reply:http. Any but {Reason.DESCRIPTORS} may have a reply. May be given "
            f"again.  [default: as --reject says; but {', '.join(UNEXPLAINED)} have no reply: they "
            "are closed if --reject is close, and reset if it is anything else]",
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


def _read(
    reject: str | None, reject_on: tuple[str, ...], of_replies: Mapping[str, Any]
) -> Rejections:
    is_default = reject is None
    reject = _DEFAULT if reject is None else reject
    given = {Reason.CAPACITY: (_REJECT, reject, _rejection(_REJECT, reject, reject, of_replies))}
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
        given[reason] = (_REJECT_ON, text, _rejection(_REJECT_ON, text, how, of_replies))
    rejections = Rejections(given, is_default, of_replies)
    try:
        by_reason(rejections.by_reason)
    except SettingError as error:
        raise rejections.in_flags(error) from None
    return rejections


def _rejection(setting: str, text: str, how: str, of_replies: Mapping[str, Any]) -> Rejection:
    kind, _, what = how.partition(":")
    try:
        if how in _PLAIN:
            return _PLAIN[how]()
        if kind == "reply":
            return Reply(what, **of_replies)
        if kind == "reply-text":
            return Reply(_unescaped(what), **of_replies)
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
