"""TLS from files: modern defaults, one-line errors, and a reload that changes all or nothing."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest
from gevent import socket
from missing import needs
from support import CERTIFICATE, DEADLINE, HERE, KEY, LOCAL, connect, echo, outcome, running

from gserver import SettingError, StreamServer
from gserver.tls_files import TlsFiles

WEAK = CERTIFICATE.with_name("keycert.pem")  # with its key, of 1024 bits


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another certificate, its own issuer, with its key in the same file."""
    needs("openssl")
    path = tmp_path_factory.mktemp("tls") / "other.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"),
            *("-subj", "/CN=other", "-keyout", str(path), "-out", str(path) + ".crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


def der(path: Path) -> bytes:
    text = path.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERT") :])


def ours(certificate: Path | None = None) -> Any:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def files(*names: Path | None) -> TlsFiles:
    return TlsFiles(*(None if name is None else str(name) for name in names))  # type: ignore[arg-type]


def served_certificate(address: Any) -> bytes:
    with (
        socket.create_connection(address, timeout=DEADLINE) as plain,
        ours().wrap_socket(plain) as client,
    ):
        assert outcome(client) == "served"
        return client.getpeercert(binary_form=True)  # type: ignore[no-any-return]


def test_clients_are_served_with_the_certificate_in_the_files(other: Path) -> None:
    for names in (CERTIFICATE, KEY), (other,):
        server = StreamServer(LOCAL, echo, max_connections=1, ssl_context=files(*names).context())
        with running(server):
            assert served_certificate(server.address) == der(names[0])


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_nothing_older_than_tls_1_2_and_no_weak_ciphers() -> None:
    context = files(CERTIFICATE, KEY).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    for cipher in context.get_ciphers():
        assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-")
        assert cipher["aead"]
    with running(StreamServer(LOCAL, echo, max_connections=1, ssl_context=context)) as server:
        old = ours()
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with connect(server) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain)


def test_with_a_client_ca_only_its_clients_are_served(other: Path) -> None:
    context = files(CERTIFICATE, KEY, other).context()
    with running(StreamServer(LOCAL, echo, max_connections=1, ssl_context=context)) as server:
        with connect(server) as plain, ours(other).wrap_socket(plain) as client:
            assert outcome(client) == "served"
        with connect(server) as plain, pytest.raises((ssl.SSLError, OSError)):
            with ours().wrap_socket(plain) as client:
                client.recv(1)  # under TLS 1.3 the client hears of it only now
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_bad_files_are_one_line_naming_their_setting(tmp_path: Path, other: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing\n")
    broken_cert = tmp_path / "broken-cert.pem"
    broken_cert.write_text(re.sub(r"\n[A-Za-z0-9]", "\n!", CERTIFICATE.read_text()))
    broken_key = tmp_path / "broken-key.pem"
    broken_key.write_text(re.sub(r"\n[A-Za-z0-9]", "\n!", KEY.read_text()))
    locked = tmp_path / "locked.pem"
    locked.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    for wanted, names in [
        ("--tls-cert .*cannot be read: No such file", (tmp_path / "none", KEY)),
        ("--tls-cert .*cannot be read: Is a directory", (tmp_path, KEY)),
        ("--tls-cert .*holds no certificate", (garbage, KEY)),
        ("--tls-cert .*holds no certificate", (KEY, KEY)),
        ("--tls-cert .*holds no private key", (CERTIFICATE,)),
        ("--tls-cert .*cannot be used", (broken_cert, KEY)),
        ("--tls-cert .*cannot be used: ee key too small", (WEAK,)),
        ("--tls-key .*cannot be read", (CERTIFICATE, tmp_path / "none")),
        ("--tls-key .*holds no private key", (CERTIFICATE, garbage)),
        ("--tls-key .*cannot be used", (CERTIFICATE, broken_key)),
        ("--tls-key .*is not the key of the certificate in", (CERTIFICATE, other)),
        ("--tls-key .*(encrypted|cannot be used)", (CERTIFICATE, locked)),
        ("--tls-client-ca .*cannot be read", (CERTIFICATE, KEY, tmp_path / "none")),
        ("--tls-client-ca .*holds no certificate", (CERTIFICATE, KEY, garbage)),
        ("--tls-client-ca .*cannot be used", (CERTIFICATE, KEY, broken_cert)),
    ]:
        with pytest.raises(SettingError, match=f"^{wanted}") as error:
            files(*names).context()
        assert "\n" not in str(error.value)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    needs("openssl")
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", str(KEY), "-aes256", "-passout", "pass:x", "-out"]
    subprocess.run([*command, str(locked)], check=True, capture_output=True)
    with pytest.raises(SettingError, match=r"^--tls-key .*is encrypted; give a key without"):
        files(CERTIFICATE, locked).context()


def test_a_new_context_is_for_new_connections_and_leaves_open_ones_alone(other: Path) -> None:
    first, second = files(CERTIFICATE, KEY), files(other)
    server = StreamServer(LOCAL, echo, max_connections=2, ssl_context=first.context())
    with running(server), connect(server) as plain, ours().wrap_socket(plain) as old:
        assert outcome(old) == "served"
        server.set_ssl_context(second.context())
        assert served_certificate(server.address) == der(other)
        old.sendall(b"x")
        assert old.recv(1) == b"x"


@pytest.mark.parametrize(
    "made_with",
    [
        {"max_connections": 1},
        {"max_connections": 1, "certfile": str(CERTIFICATE), "keyfile": str(KEY)},
        {"ssl_context": files(CERTIFICATE, KEY).context()},
    ],
    ids=["no TLS", "files, whose arguments a context does not take", "no cap"],
)
def test_a_server_made_without_a_context_or_a_cap_takes_none(made_with: Any) -> None:
    server = StreamServer(LOCAL, echo, **made_with)
    with pytest.raises(SettingError, match=r"^ssl_context "):
        server.set_ssl_context(files(CERTIFICATE, KEY).context())


# ---- the daemon ----------------------------------------------------------------------------


class Daemon:
    """``gserver serve echo`` with TLS; its log, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"listening on 127\.0\.0\.1:(\d+);", first)
        assert found, first
        self.address = ("127.0.0.1", int(found[1]))

    def hang_up(self) -> str:
        """Send SIGHUP; the line it logs."""
        self.process.send_signal(signal.SIGHUP)
        assert self.process.stderr is not None
        return self.process.stderr.readline()


@contextlib.contextmanager
def daemon(*arguments: str) -> Iterator[Daemon]:
    with subprocess.Popen(
        [sys.executable, "-m", "gserver", "serve", "echo", "--listen", "127.0.0.1:0", *arguments],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Daemon(process)
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def greeting(address: Any) -> bytes:
    """The certificate served to a client of plain echo."""
    with (
        socket.create_connection(address, timeout=DEADLINE) as plain,
        ours().wrap_socket(plain) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        return client.getpeercert(binary_form=True)  # type: ignore[no-any-return]


def test_a_hangup_reloads_the_certificate_and_a_failing_one_keeps_it(
    tmp_path: Path, other: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(CERTIFICATE, cert)
    shutil.copy(KEY, key)
    with daemon("--tls-cert", str(cert), "--tls-key", str(key)) as serving:
        assert greeting(serving.address) == der(CERTIFICATE)
        shutil.copy(other, cert)  # half of a renewal
        line = serving.hang_up()
        assert "the certificate in use stays: --tls-key" in line
        assert greeting(serving.address) == der(CERTIFICATE)
        shutil.copy(other, key)
        assert "new connections get the certificate in" in serving.hang_up()
        assert greeting(serving.address) == der(other)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--tls-cert", "/nowhere"), "gserver: --tls-cert '/nowhere': cannot be read: No such"),
        (("--tls-key", "x"), "gserver: --tls-key 'x': needs --tls-cert"),
        (("--handshake-timeout", "3"), "gserver: --handshake-timeout 3.0: needs --tls-cert"),
        (("--idle-timeout", "0"), "gserver: --idle-timeout '0': must be a number of seconds"),
        (("--first-byte-timeout", "x"), "gserver: --first-byte-timeout 'x': must be a number"),
        (("--lifetime", "-1"), "gserver: --lifetime '-1': must be a number of seconds"),
        (("--evict-idle", "nan"), "gserver: --evict-idle 'nan': must be a number of seconds"),
        (("--tcp-user-timeout", "inf"), "gserver: --tcp-user-timeout 'inf': must be a number"),
        (("--handshake-timeout", "0"), "gserver: --handshake-timeout '0': must be a number"),
    ],
)
def test_a_bad_option_is_one_line_and_status_2(
    arguments: tuple[str, ...], line: str, refusal: Callable[..., str]
) -> None:
    assert refusal("serve", "--listen", "127.0.0.1:0", *arguments).startswith(line)


def test_the_daemon_s_timeouts_and_deferred_start_work_together() -> None:
    options = ("--first-byte-timeout", "0.1", "--deferred-start", "--max-connections", "1")
    with daemon(*options, "--idle-timeout", "0.3", "--lifetime", "60") as serving:
        with socket.create_connection(serving.address, timeout=DEADLINE) as silent:
            assert outcome(silent) == "closed"
        with socket.create_connection(serving.address, timeout=DEADLINE) as client:
            client.sendall(b"x")
            assert outcome(client) == "served"
            assert outcome(client) == "closed"  # idle
