from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard import ConfigurationError
from agentguard.adapters.serving import is_server
from agentguard.cli.loading import Loaded, load_server

SERVER = "from mcp.server import MCPServer, Server\nserver = MCPServer('records')\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget what was loaded from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def named() -> str:
    """Return a module's name that no other test has."""
    return f"served_{uuid.uuid4().hex}"


def load(text: str, target: str = "{name}.py") -> Loaded:
    """Write a module, and load what *target* names in it."""
    name = named()
    Path(f"{name}.py").write_text(text)
    return load_server(target.format(name=name), is_server=is_server)


def mistake(text: str, target: str = "{name}.py") -> str:
    """Return what is said of a module that cannot be served."""
    with pytest.raises(ConfigurationError) as refused:
        load(text, target)
    said = str(refused.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("target", ["{name}.py", "{name}.py:server", "./{name}.py", "{name}:server", "{name}"])
def test_server_is_found_in_its_file_or_module(place: Path, target: str) -> None:
    """By its name, or as the only one."""
    loaded = load(SERVER, target)

    assert (loaded.server.name, loaded.folder) == ("records", place)


def test_one_server_under_two_names_is_one(place: Path) -> None:
    """An alias does not make two of it."""
    assert load(f"{SERVER}mcp = server\n").server.name == "records"


def test_low_level_server_is_found(place: Path) -> None:
    """And a class of servers is none."""
    assert load("from mcp.server import Server\nlow = Server('low')\n").server.name == "low"


def test_fastmcp_server_is_found(place: Path) -> None:
    """As soon as the module itself has imported FastMCP."""
    assert load("from fastmcp import FastMCP\nfast = FastMCP('fast')\n").server.name == "fast"


def test_file_is_run_as_python_would(place: Path) -> None:
    """Its folder is on the path, the working folder is not, and it is not `__main__`."""
    (place / "app").mkdir()
    helper = named()
    (place / "app" / f"{helper}.py").write_text("NAME = 'beside'\n")
    (place / "app" / "server.py").write_text(
        f"import sys\nfrom mcp.server import MCPServer\nimport {helper}\nserver = MCPServer({helper}.NAME)\n"
        "if __name__ == '__main__':\n    raise SystemExit('started')\n"
        "assert sys.argv == [__file__]\nassert sys.modules[__name__].server is server\n"
    )

    loaded = load_server("app/server.py", is_server=is_server)

    assert loaded.server.name == "beside"
    assert sys.path[0] == str(place / "app")
    assert str(place) not in sys.path


def test_file_with_the_name_of_a_loaded_module_leaves_that_alone(place: Path) -> None:
    """A server may be kept in `json.py`."""
    (place / "json.py").write_text(SERVER)
    before = sys.modules["json"]

    loaded = load_server("json.py", is_server=is_server)

    assert loaded.server.name == "records"
    assert sys.modules["json"] is before
    del sys.modules["_served_json"]


def test_standard_output_stays_empty(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It belongs to the protocol: what a module prints, or a program that it starts, goes to standard error."""
    load(
        f"import os, subprocess\nprint('printed')\nsubprocess.run(['echo', 'echoed'])\nos.write(1, b'wrote')\n{SERVER}"
    )

    out, err = capfd.readouterr()
    assert out == ""
    assert {"printed", "echoed", "wrote"} <= set(err.replace("wrote", "wrote\n").split())


def test_server_that_speaks_stdio_as_it_is_loaded_finds_nobody_there(place: Path) -> None:
    """The attack: the module serves while it is imported, before there is a guard."""
    reads, writes = os.pipe()
    os.write(writes, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    kept = os.dup(0)
    os.dup2(reads, 0)
    try:
        loaded = load("import sys\nsys.stdin = open(0, closefd=False)\n" + SERVER + "server.run('stdio')\n")
        assert os.read(0, 100).startswith(b'{"jsonrpc"')
    finally:
        os.dup2(kept, 0)
        for number in (reads, writes, kept):
            os.close(number)

    assert loaded.server.name == "records"


@pytest.mark.parametrize("around", ["{}", "try:\n    {}\nexcept BaseException:\n    pass\n"])
def test_server_that_serves_http_as_it_is_loaded_is_refused(place: Path, around: str) -> None:
    """The attack: a port would be open whose calls pass no guard. It is none either if the module hides it."""
    said = mistake(SERVER + around.format("server.run('streamable-http', port=0)"))

    assert said.endswith(
        'starts its server when it is loaded, which nobody would guard: put that below `if __name__ == "__main__":`'
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_like_it\n", ":1: ModuleNotFoundError: No module named 'nothing_like_it': install it beside"),
        ("\n\n1 / 0\n", ":3: ZeroDivisionError: division by zero: mend it there"),
        (
            "from mcp.server.fastmcp import FastMCP\n",
            ":1: `mcp.server.fastmcp` was in version 1 of the SDK, and this is",
        ),
        ("import mcp.server.fastmcp.server\n", " 2: write `from mcp.server import MCPServer`, which took its place"),
        ("raise ValueError\n", ":1: ValueError: mend it there"),
        ("raise ValueError('two\\nlines')\n", ":1: ValueError: two lines: mend it there"),
        ("def f(:\n", ":1: SyntaxError: invalid syntax: mend it there"),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: "),
        ("import sys\nsys.exit(3)\n", ":2: ends the process when it is loaded: put that below"),
        (
            "from agentguard import Guard\nGuard('missing', state='state')\n",
            "a guard wants one way to verify identities",
        ),
        (
            "server = 7\n",
            "wants one server, an MCPServer, a FastMCP or a low-level Server, got none: assign the server",
        ),
        (f"{SERVER}b = MCPServer('b')\n", "got 2: name it, "),
    ],
)
def test_module_that_cannot_be_served_is_refused_in_one_line(place: Path, text: str, said: str) -> None:
    """With the file and the line of the module's own code, and without a traceback."""
    assert said in mistake(text)


def test_fastmcp_that_is_not_installed_is_an_extra(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the version that is served, and not just any."""
    monkeypatch.setitem(sys.modules, "fastmcp", None)

    assert "fastmcp" in (said := mistake("from fastmcp import FastMCP\n"))
    assert said.endswith(": pip install 'agentguard[fastmcp]', in the same environment")


@pytest.mark.parametrize(("target", "command"), [("{name}.py", "python {name}.py"), ("{name}", "python -m {name}")])
@pytest.mark.parametrize(
    "text", ["import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n", "def main():\n    server = 7\n"]
)
def test_server_that_cannot_be_loaded_is_wrapped_by_its_command(
    place: Path, text: str, target: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it reads its command line at once, or is made in a function."""
    name = named()
    monkeypatch.setitem(globals(), "named", lambda: name)

    said = mistake(text, target)

    assert said.endswith(f", or serve its command: agentguard wrap --policies FOLDER -- {command.format(name=name)}")


def test_server_that_is_only_looked_at_may_be_made_by_a_function(place: Path) -> None:
    """Which is said where none is found; and a command is given, not served."""
    Path(f"{(name := named())}.py").write_text("def main():\n    server = 7\n")

    with pytest.raises(ConfigurationError) as refused:
        load_server(f"{name}.py", is_server=is_server, factories=True)

    assert str(refused.value).endswith(
        f"name a function that returns it, {name}.py:FUNCTION, or give its command: -- python {name}.py"
    )


def test_servers_to_choose_from_are_named(place: Path) -> None:
    """As they are typed."""
    said = mistake(f"{SERVER}b = MCPServer('b')\n", "{name}:c")
    assert "got no such name: name it, served_" in said
    assert ":b or served_" in said

    assert "got `type`: name it, served_" in mistake(SERVER, "{name}.py:MCPServer")
    assert "got no such name: assign the server to a name" in mistake("", "{name}:server")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", "a server wants its module or file, got ``: write module:server"),
        ("a b", "a server wants its module or file, got `a b`"),
        ("server:", "a server wants its module or file, got `server:`"),
        ("server.py:1", "a server wants its module or file, got `server.py:1`"),
        ("nowhere.py", "a server wants its file, got `{place}/nowhere.py`, no such file"),
        ("{place}", "a server wants its file, got `{place}`, a folder"),
        ("./there.txt", "a server wants a file of Python, got `{place}/there.txt`"),
        ("no_such_package.server:x", "module `no_such_package.server` is not found, from `{place}`"),
    ],
)
def test_target_that_is_no_server_is_refused(place: Path, target: str, said: str) -> None:
    """With the forms that there are."""
    (place / "there.txt").touch()

    with pytest.raises(ConfigurationError) as refused:
        load_server(target.format(place=place), is_server=is_server)

    assert str(refused.value).startswith(said.format(place=place))
    assert "write module:server, path/to/server.py, or path/to/server.py:name" in str(refused.value)


def test_error_that_is_raised_nowhere_in_the_servers_folder_names_the_module(place: Path) -> None:
    """A module that is installed has no line of ours."""
    said = mistake("import os\nos.chdir('/')\n__builtins__['exec']('raise OSError', {})\n")
    assert "OSError: mend it there" in said

    with pytest.raises(ConfigurationError, match=r"^this: "):
        _load_with_an_error_elsewhere()


def _load_with_an_error_elsewhere() -> None:
    from agentguard.cli import loading

    def run() -> None:
        raise OSError

    loading._loaded("this", run, Path("/nowhere"), factories=False)


def test_interrupt_is_no_mistake(place: Path) -> None:
    """Ctrl-C ends the command."""
    with pytest.raises(KeyboardInterrupt):
        load("raise KeyboardInterrupt\n")


def test_no_loader_for_a_file_is_a_mistake(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever import hooks a site has."""
    monkeypatch.setattr("importlib.util.spec_from_file_location", lambda *_: None)

    assert "ImportError: served_" in mistake(SERVER)


def made(text: str) -> Loaded:
    """Write a module, and load the server that its function makes."""
    name = named()
    Path(f"{name}.py").write_text(text)
    return load_server(f"{name}.py:build", is_server=is_server, factories=True)


def test_server_is_made_by_the_function_that_is_named(place: Path) -> None:
    """Whatever it takes besides has defaults; what it prints goes to standard error."""
    loaded = made(f"{SERVER}\ndef build(*rest, name='made', **more):\n    print(name)\n    return MCPServer(name)\n")

    assert (loaded.server.name, loaded.folder) == ("made", place)


def test_server_that_is_named_is_no_function(place: Path) -> None:
    """Where functions are taken too."""
    assert made(f"{SERVER}\nbuild = server\n").server.name == "records"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "def build(url, key): ...",
            "wants to be called without arguments, and needs `url`: name a function that needs none",
        ),
        (
            "def build(): return 1",
            "wants to return an MCPServer, a FastMCP or a low-level Server, got `int`: name a function that does",
        ),
        ("def build(): raise ValueError('no key')", "ValueError: no key: mend it there"),
        (
            "def build(): import anyio, uvicorn; anyio.run(uvicorn.Server(uvicorn.Config(None)).serve)",
            "starts its server when it is loaded, which nobody would guard",
        ),
    ],
)
def test_function_that_makes_no_server_is_told(place: Path, text: str, said: str) -> None:
    """In one line, whatever it does."""
    with pytest.raises(ConfigurationError) as refused:
        made(f"{SERVER}\n{text}\n")

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_function_is_no_server_where_none_is_taken(place: Path) -> None:
    """Who serves what a command line names has the server itself."""
    assert "got `function`: name it" in mistake(f"{SERVER}\ndef build(): return server\n", "{name}.py:build")
