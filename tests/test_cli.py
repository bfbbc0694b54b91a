"""The command line: what it says and exits with, and what bad input leaves behind: nothing."""

from __future__ import annotations

import os
import socket
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from program import GSERVER, gserver, one_line, shell
from support import HERE

from gserver import Limiter, Limits, cli
from gserver.daemon import flags
from gserver.errors import SettingError

# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--max-connections", "0"], "--max-connections '0': must be a whole number, 1 to "),
        (["--max-connections", "-1"], "--max-connections '-1': must be a whole number, 1 to "),
        (["--max-connections", "many"], "--max-connections 'many': must be a whole number"),
        (["--max-connections", "1.5"], "--max-connections '1.5': must be a whole number"),
        (["--max-connections", "1_0"], "--max-connections '1_0': must be a whole number"),
        (["--max-connections", "9" * 30], f"--max-connections '{'9' * 30}': must be a whole"),
        (["--max-connections", "9" * 9999], "must be a whole number"),
        (["--max-connections", "10000000"], "descriptors and the hard limit is "),
        (["--backlog", "0"], "--backlog '0': must be a whole number, 1 to 2,147,483,647"),
        (["--backlog", "2147483648"], "must be a whole number, 1 to 2,147,483,647"),
        (["--settle", "-1"], "--settle '-1': must be a number of seconds, 0 to "),
        (["--settle", "nan"], "--settle 'nan': must be a number of seconds"),
        (["--settle", "soon"], "--settle 'soon': must be a number of seconds"),
        (["--drain-timeout", "inf"], "--drain-timeout 'inf': must be a number of seconds"),
        (["--drain-timeout", "1e300"], "--drain-timeout '1e300': must be a number of seconds"),
        (
            ["--reject", "politely"],
            "--reject 'politely': accepted: close, reset, refuse",
        ),
        (["--listen", "nowhere"], "--listen 'nowhere': no port; give HOST:PORT, "),
        (["--listen", "127.0.0.1:99999"], "the port must be 0 to 65535"),
        (["--listen", "::1:0"], "an IPv6 address goes in brackets"),
        (["--listen", "no.such.host.invalid:0"], "the host does not resolve"),
        (["--listen", "192.0.2.1:0"], "this machine has no such address"),
        (["--listen", "unix:/etc/hosts"], "exists and is not a socket; choose another path"),
        (["--listen", "unix:/no/such/s"], "cannot listen there: No such file or directory"),
        (["--listen"], "Option '--listen' requires an argument."),
        (["--lisen", ":0"], "No such option '--lisen'. (Did you mean one of: "),
        (["echo", "more"], "Got unexpected extra argument (more). Try 'gserver serve --help'."),
        (["echo", "a\nb\x1b[2J"], "extra argument (a\\nb\\x1b[2J). Try"),
        (["eco"], "HANDLER 'eco': give MODULE:HANDLER, or one of: console, echo"),
        (["no_such:handle"], "HANDLER 'no_such:handle': no module 'no_such' in "),
        (["os:sep"], "HANDLER 'os:sep': is not callable, but a str"),
        (["echo", "--app-dir"], "Option '--app-dir' requires an argument."),
        (["os:kill", "--app-dir", "/no/such"], "--app-dir '/no/such': no such directory"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], line: str, refusal: Callable[..., str]
) -> None:
    assert line in refusal("serve", *arguments)


@pytest.mark.parametrize("given", [0, 10_000_001, 3_000_000_000])
def test_the_cap_has_one_bound_in_one_wording(given: int, refusal: Callable[..., str]) -> None:
    bound = "must be a whole number, 1 to 10,000,000"
    option = ("--max-connections", str(given))
    for command in (("serve", *option), ("exec", *option, "program.py")):
        assert refusal(*command) == f"gserver: --max-connections '{given}': {bound}\n"
    limiter = Limiter(1)
    for give in (
        lambda: Limits(max_connections=given),
        lambda: Limiter(given),
        lambda: setattr(limiter, "max_connections", given),
    ):
        with pytest.raises(SettingError) as caught:
            give()
        assert str(caught.value) == f"max_connections {given}: {bound}"


@pytest.mark.parametrize(
    "arguments", [["--max-connections", "0"], ["no_such:handle"], ["--listen", "x"]]
)
def test_bad_input_ends_the_process_with_one_line(arguments: list[str]) -> None:
    result = gserver("serve", *arguments)
    one_line(result.stderr)
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sevre"], "gserver: No such command 'sevre'."),
        (["--no-such"], "gserver: No such option '--no-such'."),
        (["demo", "now"], "gserver demo: Got unexpected extra argument (now)."),
    ],
)
def test_a_wrong_command_is_one_line_that_points_to_the_help(
    arguments: list[str], line: str, refusal: Callable[..., str]
) -> None:
    said = refusal(*arguments)
    assert said.startswith(line)
    assert " Try 'gserver" in said


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_that_is_taken_is_said_to_be(
    kind: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as other:
        other.bind(str(tmp_path / "s") if kind == "unix" else ("127.0.0.1", 0))
        other.listen()
        name = other.getsockname()
        listen = f"unix:{name}" if kind == "unix" else "{}:{}".format(*name)
        error = refusal("serve", "--listen", listen)
        assert listen in error
        assert "stop " in error
        if kind == "unix":  # the live one's file is still its own
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(name)


def test_a_later_listener_that_fails_leaves_nothing_of_the_earlier(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = gserver(
        *["serve", "--listen", f"127.0.0.1:{port}", "--listen", f"unix:{tmp_path}/s"],
        *["--listen", "192.0.2.1:0"],
    )
    assert "192.0.2.1" in one_line(result.stderr)
    assert (result.returncode, result.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


@pytest.mark.skipif(os.geteuid() != 0, reason="drops root's privileges; needs them first")
def test_a_privileged_port_is_one_line() -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as setting:
        if int(setting.read()) <= 80:
            pytest.skip("every user may listen below 1024 here")
    # Everything is imported first: that user may not be allowed to read it.
    text = (
        "import encodings.idna, gserver.daemon.loading, gserver.daemon.serve, os, sys\n"
        "from gserver.cli import main\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sys.argv[1:] = ['serve', '--listen', '127.0.0.1:80']\n"
        "main()\n"
    )
    result = gserver(command=[sys.executable, "-c", text])
    assert "not permitted: ports below 1024 need root" in one_line(result.stderr)
    assert result.returncode == 2


@pytest.mark.parametrize(
    ("convert", "given", "expected"),
    [
        (flags.Count().convert, "1", 1),
        (flags.Count().convert, 100, 100),
        (flags.Count().convert, "2147483647", 2**31 - 1),
        (flags.Seconds().convert, "0", 0.0),
        (flags.Seconds().convert, "0.5", 0.5),
        (flags.Seconds().convert, "1e3", 1000.0),
    ],
)
def test_numbers_are_read(convert: Callable[..., Any], given: Any, expected: float) -> None:
    assert convert(given, None, None) == expected


@pytest.mark.parametrize("given", ["", " ", "٣", "0x10", "1e3", "²"])
def test_what_is_no_whole_number_is_not_read_as_one(given: str) -> None:
    parameter = click.Option(["--cap"])
    with pytest.raises(SettingError, match=r"--cap .*must be a whole number"):
        flags.Count().convert(given, parameter, None)


# ---- help, version, streams ------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["serve"], ["demo"]])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_standard_output_and_fits_80_columns(
    command: list[str],
    flag: str,
    here: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert here(*command, flag) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith(" ".join(["Usage: gserver", *command]))
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_of_serve_names_every_option_with_its_default(
    here: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    here("serve", "--help")
    text = " ".join(capfd.readouterr().out.split())
    for option, default in {
        "--listen ADDRESS": "127.0.0.1:8999",
        "--max-connections N": "100",
        "--reject HOW": "close; reply:http for a WSGI application without TLS",
        "--settle SECONDS": "0",
        "--backlog N": "the system's limit, somaxconn",
        "--drain-timeout SECONDS": "10",
        "--app-dir DIR": "the current directory",
    }.items():
        assert option in text
        assert f"[default: {default}]" in text.split(option)[1].split(" --")[0]


def test_no_command_at_all_shows_the_help_and_fails() -> None:
    result = gserver()
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: gserver")
    assert result.stdout == ""


def test_version_is_one_line() -> None:
    result = gserver("--version")
    assert (result.returncode, result.stderr) == (0, "")
    name, version = result.stdout.split(maxsplit=1)
    assert name == "gserver"
    assert version


def installed_script() -> list[str]:
    """What pip makes of the entry point."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["gserver"].partition(":")
    return [sys.executable, "-c", f"import sys; from {module} import {name}; sys.exit({name}())"]


def test_the_installed_script_is_the_same_program() -> None:
    script = installed_script()
    for arguments in ["serve", "--help"], ["serve", "--backlog", "0"]:
        ours, theirs = gserver(*arguments), gserver(*arguments, command=script)
        assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)
        assert ours.returncode == theirs.returncode


def test_help_into_a_pipe_that_closes_early_is_quiet() -> None:
    """As in ``gserver --help | head -1``, with the reader gone before the first byte."""
    result = shell("{ sleep 0; $gserver --help; echo $? >&2; } | true")
    assert "Traceback" not in result.stderr
    assert "Error" not in result.stderr
    assert result.stderr.split()[-1] in {"0", "1"}  # whoever was first


def test_a_full_disk_is_one_line_and_status_1() -> None:
    result = shell("$gserver --help > /dev/full")
    assert one_line(result.stderr) == (
        "gserver: cannot write the output: No space left on device\n"
    )
    assert result.returncode == 1


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>/dev/full"])
def test_closed_or_full_standard_streams_change_no_status(streams: str) -> None:
    assert shell(f"$gserver serve --backlog 0 {streams}").returncode == 2
    assert shell(f"$gserver --version {streams}").returncode == 0


def test_an_error_does_not_go_to_standard_output_where_standard_error_is_closed() -> None:
    assert shell("$gserver serve --backlog 0 2>&-").stdout == ""


def test_closed_descriptors_are_taken_before_a_socket_can_be(tmp_path: Path) -> None:
    script = tmp_path / "fds.py"
    script.write_text(
        "import os, sys\n"
        "from gserver.cli import _open_standard_streams\n"
        "_open_standard_streams()\n"
        "assert [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)] == ['/dev/null'] * 3\n"
        "assert None not in (sys.stdin, sys.stdout, sys.stderr)\n"
        "os._exit(7)\n"
    )
    result = shell(f"{GSERVER[0]} {script} <&- >&- 2>&-")
    assert result.returncode == 7


def test_an_unexpected_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise OSError(5, "on purpose")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(OSError, match="on purpose"):
        cli.main()


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_ctrl_c_outside_a_server_is_quiet_and_the_shells_status(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", [list(GSERVER), installed_script()], ids=["-m", "script"])
def test_ctrl_c_while_it_is_being_imported_is_quiet_too(command: list[str], tmp_path: Path) -> None:
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "click.py").write_text(text)  # found first, in the current directory
    result = gserver("probe", "cap", "127.0.0.1:1", command=command, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
