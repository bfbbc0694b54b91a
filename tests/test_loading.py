"""Finding the user's handler, and one line about it where it cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gserver import SettingError
from gserver.daemon.loading import load_handler


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


HANDLER = "def handle(sock, address): return 'handled'\n"


def test_a_handler_is_found_in_the_folder_named(tmp_path: Path) -> None:
    (tmp_path / "app_a.py").write_text(HANDLER)
    assert load_handler("app_a:handle", str(tmp_path))(None, None) == "handled"


def test_the_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app_b.py").write_text(HANDLER)
    monkeypatch.chdir(tmp_path)
    assert load_handler("app_b:handle", ".")(None, None) == "handled"
    assert sys.path[0] == str(tmp_path)  # and means the same after a chdir


def test_the_folder_comes_before_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "this.py").write_text(HANDLER)  # the standard library has one too
    assert load_handler("this:handle", str(tmp_path))(None, None) == "handled"


def test_a_handler_may_be_in_a_package_and_an_attribute_of_a_thing(tmp_path: Path) -> None:
    (tmp_path / "package_c").mkdir()
    (tmp_path / "package_c" / "__init__.py").touch()
    (tmp_path / "package_c" / "app.py").write_text(
        "class Service:\n"
        "    def handle(self, sock, address): return 'handled'\n"
        "service = Service()\n"
    )
    assert load_handler("package_c.app:service.handle", str(tmp_path))(None, None) == "handled"


@pytest.mark.parametrize(
    "text",
    [
        "handle = print\n",
        "handle = lambda *all: None\n",
        "def handle(sock, address=None, *, more=1): pass\n",
        "class handle:\n    def __init__(self, sock, address): pass\n",
        "class C:\n    def __call__(self, sock, address): pass\nhandle = C()\n",
        "import functools\ndef f(a, sock, address): pass\nhandle = functools.partial(f, 1)\n",
        "handle = max\n",  # a builtin that does not tell its arguments
        "def handle(sock, address): pass\nhandle.__signature__ = 'nonsense'\n",
    ],
)
def test_anything_callable_with_two_arguments_will_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "app_d.py").write_text(text)
    assert callable(load_handler("app_d:handle", str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "app_e has no 'handle'"),
        ("def serve(s, a): pass\ndef _no(): pass\n", "app_e has no 'handle'; it has serve"),
        ("handle = 3\n", "is not callable, but a int"),
        ("handle = None\n", "is not callable, but a NoneType"),
        ("def handle(): pass\n", "takes ()"),
        ("def handle(sock): pass\n", "takes (sock)"),
        ("def handle(a, b, c): pass\n", "takes (a, b, c)"),
        ("def handle(sock, address, *, name): pass\n", "takes (sock, address, *, name)"),
        ("async def handle(sock, address): pass\n", "is async, and nothing would await it"),
        ("async def handle(sock, address): yield\n", "is async, and nothing would await it"),
        ("def handle(sock, address): yield\n", "is a generator"),
        ("class C:\n    async def __call__(s, a, b): pass\nhandle = C()\n", "is async"),
        ("import no_such_module\n", "importing it raised ModuleNotFoundError: No module named"),
        ("import no.such\n", "app_e.py, line 1)"),
        ("1 / 0\n", "importing it raised ZeroDivisionError: division by zero (/"),
        ("\n\n1 / 0\n", "app_e.py, line 3)"),
        ("raise Exception\n", "importing it raised Exception ("),
        ("raise Exception('a\\nb')\n", "importing it raised Exception: a b ("),
        ("import sys\nsys.exit('bye')\n", "importing it raised SystemExit: bye ("),
        ("raise KeyboardInterrupt\n", "importing it raised KeyboardInterrupt ("),
        ("import gevent\nraise gevent.GreenletExit\n", "importing it raised GreenletExit ("),
        ("def handle(:\n", "importing it raised SyntaxError: "),
        ("\0\n", "importing it raised "),
    ],
)
def test_what_cannot_serve_is_one_line_that_says_why(
    text: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "app_e.py").write_text(text)
    with pytest.raises(SettingError) as caught:
        load_handler("app_e:handle", str(tmp_path))
    message = str(caught.value)
    assert message.startswith("HANDLER 'app_e:handle': ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name",
    ["", "eco", "app", ":", "app:", ":handle", ".app:handle", "a..b:c", "app:a..b", "./app.py:h"],
)
def test_what_is_no_name_of_a_handler_says_how_one_looks(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="give MODULE:HANDLER, or one of: console, echo"):
        load_handler(name, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such:handle", r"no module 'no_such' in .* or installed$"),
        ("app_f.inner:handle", r"no module 'app_f.inner' in "),
        ("app_f.py:handle", r"a module is named without its file's ending: app_f:handle$"),
        ("sub/app.py:handle", r"a module is named without its file's ending: sub.app:handle$"),
    ],
)
def test_a_missing_module_says_where_it_was_looked_for(
    name: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "app_f.py").write_text(HANDLER)
    with pytest.raises(SettingError, match=problem) as caught:
        load_handler(name, str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_is_said_to_be(kind: str, tmp_path: Path) -> None:
    if kind == "file":
        (tmp_path / "d").touch()
    with pytest.raises(SettingError, match=r"--app-dir .*: no such directory"):
        load_handler("app:handle", str(tmp_path / "d"))
