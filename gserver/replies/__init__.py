"""Busy replies: how clients of each protocol are told that the server is full.

``script`` says what a reply is; every other module holds one protocol's, as ``BUSY``, and cites
its specification. No sockets, no gevent, no clock: ``gserver/net/linger.py`` drives them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from gserver.errors import SettingError
from gserver.replies import (
    ftp,
    http,
    imap,
    irc,
    memcached,
    mqtt,
    mysql,
    nntp,
    pop3,
    postgres,
    redis,
    smtp,
    ssh,
    tls_alert,
)
from gserver.replies.script import Reply, Script, Turn

__all__ = ["BY_NAME", "Reply", "Script", "Turn", "named"]

#: Every reply by the name that users give it.
BY_NAME: Final = MappingProxyType[str, Script](
    {
        "ftp": ftp.BUSY,
        "http": http.BUSY,
        "imap": imap.BUSY,
        "irc": irc.BUSY,
        "memcached": memcached.BUSY,
        "mqtt": mqtt.BUSY,
        "mysql": mysql.BUSY,
        "nntp": nntp.BUSY,
        "pop3": pop3.BUSY,
        "postgres": postgres.BUSY,
        "redis": redis.BUSY,
        "smtp": smtp.BUSY,
        "ssh": ssh.BUSY,
        "tls-alert": tls_alert.BUSY,
    }
)


def named(name: str, *, setting: str = "reply") -> Script:
    """The reply for a protocol.

    :param name: a key of :data:`BY_NAME`.
    :param setting: what the user calls the setting, for the error's text.
    :raises SettingError: no reply has that name; the error lists those there are.
    """
    try:
        return BY_NAME[name]
    except KeyError:
        known = ", ".join(sorted(BY_NAME))
        raise SettingError(setting, name, f"no such reply; one of {known}") from None
