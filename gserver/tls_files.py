"""TLS from files: a server's context with modern defaults, and a new one when they change."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gevent.ssl

from gserver.errors import SettingError

__all__ = ["TlsFiles"]

#: For TLS 1.2: forward secrecy and authenticated encryption only, as RFC 9325 section 4.2
#: recommends. TLS 1.3 has no others (RFC 8446 appendix B.4), and OpenSSL chooses there by itself.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


#: What OpenSSL says of a certificate below its security level (SSL_CTX_set_security_level(3)).
_WEAK: Final = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a TLS server, all PEM.

    :ivar cert: the certificate, followed by what leads from it to a root.
    :ivar key: its private key, not encrypted; None: it is in ``cert``.
    :ivar client_ca: those who may sign clients' certificates. Then every client must have one.
    """

    cert: str
    key: str | None = None
    client_ca: str | None = None

    def context(self) -> ssl.SSLContext:
        """A new context of what the files hold now.

        TLS 1.2 and 1.3, forward secrecy, no compression (CRIME), no renegotiation (it lets a
        client make the server work), the server's order of ciphers. A client that leaves without
        a close_notify is an end-of-file. Reads the files each time.

        :raises SettingError: a file cannot be used; names its option, ``--tls-cert`` and so on.
        """
        context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= (
            ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        )
        # Else OpenSSL 3 answers the end-of-file of a nudge, too, with a fatal alert, and the
        # client reports a decode_error. Handlers could not see the difference in any case:
        # suppress_ragged_eofs is the default.
        context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        context.set_ciphers(_CIPHERS)
        self._load_certificate(context)
        if self.client_ca is not None:
            _check("--tls-client-ca", self.client_ca, "CERTIFICATE-----")
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise _bad("--tls-client-ca", self.client_ca, error) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        key_setting, key = (
            ("--tls-cert", self.cert) if self.key is None else ("--tls-key", self.key)
        )
        _check("--tls-cert", self.cert, "CERTIFICATE-----")
        _check(key_setting, key, "PRIVATE KEY-----")
        try:
            context.load_cert_chain(self.cert, key, password=_no_password(key_setting, key))
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                problem = f"is not the key of the certificate in {self.cert}"
                raise SettingError(key_setting, key, problem) from None
            if error.reason in _WEAK or not _readable_certificate(self.cert):
                raise _bad("--tls-cert", self.cert, error) from None
            raise _bad(key_setting, key, error) from None


def _check(setting: str, path: str, wanted: str) -> None:
    """OpenSSL's errors do not say which file they are about: look first."""
    try:
        text = Path(path).read_text("latin-1")
    except (OSError, ValueError) as error:
        strerror = getattr(error, "strerror", None) or error
        raise SettingError(setting, path, f"cannot be read: {strerror}") from None
    if wanted not in text:
        what = wanted.strip("-").lower()
        raise SettingError(setting, path, f"holds no {what} in PEM format")


def _readable_certificate(path: str) -> bool:
    """Whether the certificates in a file can be read at all: then it is the key that cannot."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return False
    return True


def _bad(setting: str, path: str, error: Exception) -> SettingError:
    reason = getattr(error, "reason", None) or error
    return SettingError(setting, path, f"cannot be used: {str(reason).replace('_', ' ').lower()}")


def _no_password(setting: str, path: str) -> Callable[[], str]:
    """Instead of OpenSSL's question on the terminal, which would hold up the server."""

    def ask() -> str:
        raise SettingError(setting, path, "is encrypted; give a key without a passphrase")

    return ask
