"""SIGHUP: read the certificate's files again, if there are any."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import gevent

from gserver.daemon.signals import Hangups
from gserver.errors import SettingError
from gserver.server import StreamServer, WSGIServer
from gserver.tls_files import TlsFiles

__all__ = ["reload_on_hangup"]

log = logging.getLogger("gserver")


def reload_on_hangup(
    hangups: Hangups, files: TlsFiles | None, servers: Sequence[StreamServer | WSGIServer]
) -> None:
    """On each SIGHUP, serve the connections to come with what the files hold then; those that
    are open go on as they are. Files that cannot be used change nothing, and are one log line.

    Without files it is one log line too, and nothing else; a handler's module that handles SIGHUP
    itself goes on doing so."""
    loop = gevent.get_hub().loop

    def reload() -> None:
        if files is None:
            log.info("SIGHUP: nothing to read again")
            return
        try:
            context = files.context()
        except SettingError as error:
            log.error("SIGHUP: the certificate in use stays: %s", error)
            return
        for server in servers:
            server.set_ssl_context(context)
        log.info("SIGHUP: new connections get the certificate in %s", files.cert)

    hangups.notify(lambda: loop.run_callback_threadsafe(reload), take_over=files is not None)
