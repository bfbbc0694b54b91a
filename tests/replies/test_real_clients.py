"""Every reply with the client that people use: it raises its own error, with our text.

Each runs twice: answered on accept, and answered when the client's own first words already lie
unread in the kernel, where a plain close would have been a reset.
"""

from __future__ import annotations

import ftplib
import imaplib
import importlib
import os
import poplib
import smtplib
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from missing import missing, needs

from gserver.replies import named

TIMEOUT_S = 20
Busy = Callable[..., Any]


def library(module: str, install: str) -> Any:
    """The client library, or a skip (or failure) that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        missing(f"{module} is missing: pip install {install}")


def run(command: str, *arguments: str, install: str) -> subprocess.CompletedProcess[str]:
    """The client program's outcome, or a skip (or failure) that says how to get the program."""
    needs(command, install)
    # LC_ALL: the messages in English. PG*: no settings of the machine's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}
    return subprocess.run(
        [command, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_http_urllib(busy: Busy) -> None:
    server = busy(named("http"))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=TIMEOUT_S)
    with caught.value as error:
        assert error.code == 503
        assert error.headers["Retry-After"] == "1"
        assert b"Too many connections" in error.read()


def test_http_urllib_while_it_uploads(busy: Busy) -> None:
    server = busy(named("http"))
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/", data=b"x" * 4_000_000)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=TIMEOUT_S)
    with caught.value as error:
        assert error.code == 503


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_http_curl(busy: Busy, method: str) -> None:
    server = busy(named("http"))
    how = ["--head"] if method == "HEAD" else ["--include"]
    outcome = run("curl", "-sS", *how, f"http://127.0.0.1:{server.port}/", install="curl")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("HTTP/1.1 503 ")
    assert ("Too many connections" in outcome.stdout) == (method == "GET")


def test_smtp_smtplib(busy: Busy) -> None:
    server = busy(named("smtp"))
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        smtplib.SMTP("127.0.0.1", server.port, timeout=TIMEOUT_S)
    assert caught.value.smtp_code == 421
    assert b"Too many connections" in caught.value.smtp_error


def test_ftp_ftplib(busy: Busy) -> None:
    server = busy(named("ftp"))
    with ftplib.FTP() as ftp, pytest.raises(ftplib.error_temp, match="421 Too many connections"):
        ftp.connect("127.0.0.1", server.port, timeout=TIMEOUT_S)


def test_imap_imaplib(busy: Busy) -> None:
    server = busy(named("imap"))
    with pytest.raises(imaplib.IMAP4.error, match="Too many connections"):
        imaplib.IMAP4("127.0.0.1", server.port, timeout=TIMEOUT_S)


# poplib's own: it leaves its socket open when the greeting is an error.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
def test_pop3_poplib(busy: Busy) -> None:
    server = busy(named("pop3"))
    with pytest.raises(poplib.error_proto, match="Too many connections"):
        poplib.POP3("127.0.0.1", server.port, timeout=TIMEOUT_S)


@pytest.mark.filterwarnings("ignore:.*nntplib:DeprecationWarning")
def test_nntp_nntplib(busy: Busy) -> None:
    server = busy(named("nntp"))
    # Part of Python up to 3.12.
    nntplib = library("nntplib", "standard-nntplib")
    with pytest.raises(nntplib.NNTPTemporaryError, match="400 Too many connections"):
        nntplib.NNTP("127.0.0.1", server.port, timeout=TIMEOUT_S)


def test_nntp_by_hand(busy: Busy) -> None:
    server = busy(named("nntp"))
    with socket.create_connection(server.address, timeout=TIMEOUT_S) as client:
        client.sendall(b"CAPABILITIES\r\n")
        with client.makefile("rb") as lines:
            assert lines.readlines() == [b"400 Too many connections, try again later\r\n"]


def test_irc_irc(busy: Busy) -> None:
    server = busy(named("irc"))
    client = library("irc.client", "irc")
    reactor = client.Reactor()
    events: list[Any] = []
    reactor.add_global_handler("all_events", lambda _, event: events.append(event))
    connection = reactor.server().connect("127.0.0.1", server.port, "nobody")
    for _ in range(TIMEOUT_S * 10):
        if any(event.type == "disconnect" for event in events):
            break
        reactor.process_once(timeout=0.1)
    connection.close()
    errors = [event.target for event in events if event.type == "error"]
    assert errors == ["Closing Link: Too many connections, try again later"]


def test_redis_redis_py(busy: Busy) -> None:
    server = busy(named("redis"))
    redis = library("redis", "redis")
    with (
        redis.Redis("127.0.0.1", server.port, socket_timeout=TIMEOUT_S, retry=None) as client,
        pytest.raises(redis.ConnectionError, match="max number of clients reached"),
    ):
        client.ping()


def test_redis_cli(busy: Busy) -> None:
    server = busy(named("redis"))
    outcome = run("redis-cli", "-p", str(server.port), "PING", install="redis-tools")
    assert "ERR max number of clients reached" in outcome.stdout + outcome.stderr


def test_memcached_pymemcache(busy: Busy) -> None:
    server = busy(named("memcached"))
    library("pymemcache", "pymemcache")
    base = importlib.import_module("pymemcache.client.base")
    exceptions = importlib.import_module("pymemcache.exceptions")
    client = base.Client(("127.0.0.1", server.port), timeout=TIMEOUT_S)
    with pytest.raises(exceptions.MemcacheServerError, match="Too many connections"):
        client.get("key")
    client.close()


@pytest.mark.parametrize("sslmode", ["prefer", "allow", "disable"])
def test_postgres_psycopg(busy: Busy, sslmode: str) -> None:
    server = busy(named("postgres"))
    psycopg = library("psycopg", "'psycopg[binary]'")
    where = f"host=127.0.0.1 port={server.port} user=u dbname=d connect_timeout={TIMEOUT_S}"
    if sslmode != "prefer":  # the default
        where += f" sslmode={sslmode}"
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(where)
    assert "FATAL:  sorry, too many clients already" in str(caught.value)


def test_postgres_psycopg_that_insists_on_encryption_names_that(busy: Busy) -> None:
    """The limit of a plaintext reply: such a client ends the exchange itself."""
    server = busy(named("postgres"))
    psycopg = library("psycopg", "'psycopg[binary]'")
    with pytest.raises(psycopg.OperationalError, match="SSL was required"):
        psycopg.connect(f"host=127.0.0.1 port={server.port} user=u dbname=d sslmode=require")


def test_postgres_cancel_request_is_just_closed(busy: Busy) -> None:
    server = busy(named("postgres"))
    with socket.create_connection(server.address, timeout=TIMEOUT_S) as client:
        client.sendall(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02")
        assert client.recv(100) == b""


def test_postgres_psql(busy: Busy) -> None:
    server = busy(named("postgres"))
    where = f"host=127.0.0.1 port={server.port} user=u dbname=d"
    outcome = run("psql", where, "-c", "select 1", install="postgresql-client")
    assert outcome.returncode == 2
    assert "FATAL:  sorry, too many clients already" in outcome.stderr


def test_mysql_pymysql(busy: Busy) -> None:
    server = busy(named("mysql"))
    pymysql = library("pymysql", "PyMySQL")
    with pytest.raises(pymysql.err.OperationalError) as caught:
        pymysql.connect(host="127.0.0.1", port=server.port, connect_timeout=TIMEOUT_S)
    assert caught.value.args[:2] == (1040, "Too many connections")


@pytest.mark.parametrize("tls", [True, False], ids=["tls-preferred", "no-tls"])
def test_mysql_mariadb(busy: Busy, tls: bool) -> None:
    server = busy(named("mysql"))
    outcome = run(
        "mariadb", "-h", "127.0.0.1", "-P", str(server.port), "-e", "select 1",
        *([] if tls else ["--skip-ssl"]),
        install="mariadb-client",
    )  # fmt: skip
    assert outcome.returncode == 1
    # Where TLS is preferred, newer clients say of any error this early that it is unverified.
    assert ("1040 - Too many connections" if tls else "ERROR 1040") in outcome.stderr
    assert "Too many connections" in outcome.stderr


def test_ssh_openssh(busy: Busy) -> None:
    server = busy(named("ssh"))
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    outcome = run(
        "ssh", "-F", "none", *(f"-o{option}" for option in options),
        "-p", str(server.port), "nobody@127.0.0.1", "true",
        install="openssh-client",
    )  # fmt: skip
    assert outcome.returncode == 255
    assert ":12: Too many connections, try again later" in outcome.stderr


@pytest.mark.parametrize("protocol", ["MQTTv31", "MQTTv311", "MQTTv5"])
def test_mqtt_paho(busy: Busy, protocol: str) -> None:
    server = busy(named("mqtt"))
    mqtt = library("paho.mqtt.client", "paho-mqtt")
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id="c", protocol=getattr(mqtt, protocol)
    )
    client.connect_timeout = TIMEOUT_S
    refusals: list[Any] = []
    client.on_connect = lambda c, data, flags, reason, properties: refusals.append(
        (str(reason), getattr(properties, "ReasonString", None))
    )
    client.connect("127.0.0.1", server.port)
    for _ in range(TIMEOUT_S * 10):
        if client.loop(timeout=0.1) or refusals:
            break
    client.disconnect()
    client.loop(timeout=0.1)
    if protocol == "MQTTv5":
        assert refusals == [("Server busy", "Too many connections, try again later")]
    else:
        assert refusals == [("Server unavailable", None)]


@pytest.mark.parametrize(("version", "words"), [("311", "unavailable"), ("5", "busy")])
def test_mqtt_mosquitto_pub(busy: Busy, version: str, words: str) -> None:
    server = busy(named("mqtt"))
    outcome = run(
        "mosquitto_pub", "-h", "127.0.0.1", "-p", str(server.port), "-V", version,
        "-t", "topic", "-m", "message",
        install="mosquitto-clients",
    )  # fmt: skip
    assert outcome.returncode != 0
    assert words in (outcome.stdout + outcome.stderr).lower()


def test_tls_alert_ssl(busy: Busy) -> None:
    server = busy(named("tls-alert"))
    context = ssl.create_default_context()
    with (
        socket.create_connection(server.address, timeout=TIMEOUT_S) as client,
        pytest.raises(ssl.SSLError) as caught,
    ):
        context.wrap_socket(client, server_hostname="localhost")
    assert "ALERT_INTERNAL_ERROR" in str(caught.value.reason)


def test_tls_alert_curl(busy: Busy) -> None:
    server = busy(named("tls-alert"))
    outcome = run("curl", "-sS", f"https://127.0.0.1:{server.port}/", install="curl")
    assert outcome.returncode == 35  # curl(1): a TLS handshake that failed, not a reset (56)
    assert "alert internal error" in outcome.stderr.lower()
