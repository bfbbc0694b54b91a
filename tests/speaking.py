"""What a client says before it is served, and what it sees. Standard library only.

How it speaks is a text: ``""`` (it waits for the server), or some of these in this order, joined
by ``+``: ``v1`` or ``v2`` (a PROXY protocol header, for another source each time; ``v1@HOST``:
for that one), ``tls``, ``http``.
"""

from __future__ import annotations

import errno
import itertools
import select
import socket
import ssl
import struct

V2 = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
#: The first byte of an HTTP response; the servers of the tests greet with another.
_REPLY = b"H"


def v1(host: str, port: int = 50_000) -> bytes:
    kind = "TCP6" if ":" in host else "TCP4"
    to = "2001:db8::80" if ":" in host else "198.51.100.80"
    return f"PROXY {kind} {host} {to} {port} 443\r\n".encode()


def v2(host: str, port: int = 50_000, more: bytes = b"") -> bytes:
    """``more``: the TLVs behind the addresses."""
    family, kind = (socket.AF_INET6, 0x21) if ":" in host else (socket.AF_INET, 0x11)
    address = socket.inet_pton(family, host)
    body = address + address + struct.pack("!HH", port, 443) + more
    return V2 + bytes([0x21, kind]) + struct.pack("!H", len(body)) + body


class Manner:
    """How the clients of a test speak."""

    def __init__(self, text: str) -> None:
        self._header, self.tls, self.words = None, None, b""
        self._host = ""
        self._hosts = (f"100.64.{n >> 8 & 255}.{n & 255}" for n in itertools.count())
        for part in filter(None, text.split("+")):
            kind, _, host = part.partition("@")
            if kind in ("v1", "v2"):
                self._header, self._host = (v1 if kind == "v1" else v2), host
            elif kind == "tls":
                self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE
            elif kind == "http":
                self.words = REQUEST
            else:
                raise ValueError(text)

    def header(self) -> bytes:
        """The next client's."""
        if self._header is None:
            return b""
        return self._header(self._host or next(self._hosts))


class Client:
    """One client, never blocking: connects at once, then wants a :meth:`step` whenever its socket
    is ready for :attr:`wants`."""

    def __init__(self, address: tuple[str, int], manner: Manner, source: str = "") -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect_ex(address)
        self._manner = manner
        self._to_send = manner.header()
        self._secured = manner.tls is None
        self._said = not manner.words
        silent = not self._to_send and self._secured and self._said
        self.wants = select.EPOLLIN if silent else select.EPOLLOUT

    def step(self) -> str | None:
        """What it has seen: "served", "replied" (in HTTP), "closed" or "reset"; None: nothing
        yet."""
        try:
            return self._step()
        except (BlockingIOError, ssl.SSLWantReadError):
            self.wants = select.EPOLLIN
        except ssl.SSLWantWriteError:
            self.wants = select.EPOLLOUT
        except ConnectionResetError:
            return "reset"
        except ConnectionRefusedError:
            return "refused"
        except (BrokenPipeError, ssl.SSLError):  # the latter also for an end-of-file
            return "closed"
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # gone before its handshake
                raise
            return "reset"
        return None

    def _step(self) -> str | None:
        self._send()
        if not self._secured:
            context = self._manner.tls
            if not isinstance(self.sock, ssl.SSLSocket):
                self.sock = context.wrap_socket(self.sock, do_handshake_on_connect=False)
            self.sock.do_handshake()
            self._secured = True
        if not self._said:
            self._said = True
            self._to_send = self._manner.words
        self._send()
        byte = self.sock.recv(1)
        return "replied" if byte == _REPLY else "served" if byte else "closed"

    def _send(self) -> None:
        while self._to_send:
            self._to_send = self._to_send[self.sock.send(self._to_send) :]

    def close(self) -> None:
        self.sock.close()
