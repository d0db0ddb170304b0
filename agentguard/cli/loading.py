"""Load the server that a command line names, as `python FILE` would, without starting it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from inspect import Parameter, isfunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentguard.errors import ConfigurationError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from threading import Thread
    from types import ModuleType

T = TypeVar("T")

_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_FORMS: Final = "write module:server, path/to/server.py, or path/to/server.py:name"
_SERVERS: Final = "an MCPServer, a FastMCP or a low-level Server"
_SUFFIX: Final = ".py"
_OLD: Final = "mcp.server.fastmcp"

LEFT: Final[set[Thread]] = set()
"""Threads of a server that was only looked at, for whose end nobody has to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A server that was found.

    Attributes:
        server: The object.
        folder: The folder of its file, or the working folder, for what belongs to it.
    """

    server: Any
    folder: Path


def load_server(target: str, *, is_server: Callable[[object], bool], factories: bool = False) -> Loaded:
    """Return the server that *target* names; its own start, below ``__main__``, is not run.

    What the module prints while it is loaded goes to standard error.

    Args:
        target: ``module:server``, ``path/to/server.py`` or ``path/to/server.py:name``. Without
            a name, the module has one server.
        is_server: Whether an object is one.
        factories: Whether the name may be that of a function that returns one.

    Raises:
        ConfigurationError: It cannot be loaded, or it is not said which server is meant.
    """
    place, name = _split(target)
    if place.endswith(_SUFFIX) or os.sep in place:
        file = _file(place)
        folder, run = file.parent, lambda: _run_file(file)
        sys.path.insert(0, str(folder))
        sys.argv = [str(file)]
    else:
        folder, run = Path.cwd(), lambda: importlib.import_module(place)
        sys.path.insert(0, str(folder))
        sys.argv = [place]
    module = _loaded(place, run, folder, factories=factories)
    names = vars(module)
    if factories and isfunction(made := names.get(name)):
        return Loaded(server=_made(place, name, made, is_server, folder), folder=folder)
    return Loaded(server=_named(place, name, names, is_server, factories=factories), folder=folder)


def _split(target: str) -> tuple[str, str]:
    """Return the module or the file, and the name in it; empty where none is given."""
    place, colon, name = target.rpartition(":")
    if not colon:
        place, name = target, ""
    named = name.isidentifier() if colon else True
    modular = all(part.isidentifier() for part in place.split("."))
    if not place or not named or not (modular or place.endswith(_SUFFIX) or os.sep in place):
        message = f"a server wants its module or file, got `{target}`: {_FORMS}"
        raise ConfigurationError(message)
    return place, name


def _file(place: str) -> Path:
    file = Path(place).absolute()
    if not file.is_file():
        got = "a folder" if file.is_dir() else "no such file"
        message = f"a server wants its file, got `{file}`, {got}: {_FORMS}"
        raise ConfigurationError(message)
    if file.suffix != _SUFFIX:
        message = f"a server wants a file of Python, got `{file}`: {_FORMS}"
        raise ConfigurationError(message)
    return file


def _run_file(file: Path) -> ModuleType:
    # A name of its own where the file's is taken: what is loaded already stays what it is.
    name = f"_served_{file.stem}" if file.stem in sys.modules else file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    # Types that are named by text are looked up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _loaded(place: str, run: Callable[[], T], folder: Path, *, factories: bool) -> T:
    """Return the module, or the server that a function of it makes; what its code raises is told in one line.

    Raises:
        ConfigurationError: It raised, or it started its server by itself.
    """
    module: T | None = None
    with _unserved() as started, streams_kept():
        try:
            module = run()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  a module may raise anything, `exit()` included
            if not started:
                raise _mistake(place, error, folder, factories=factories) from None
    if started or module is None:
        message = (
            f"`{place}` starts its server when it is loaded, which nobody would guard: "
            'put that below `if __name__ == "__main__":`'
        )
        raise ConfigurationError(message)
    return module


@contextmanager
def _unserved() -> Iterator[list[bool]]:
    """Let no HTTP server be started, and tell whether one was to be: its calls would pass no guard."""
    import uvicorn  # noqa: PLC0415  `LEFT` is asked for by commands that load no server

    started: list[bool] = []

    async def serve(*_: object, **__: object) -> None:
        started.append(True)
        raise SystemExit

    before = uvicorn.Server.serve
    uvicorn.Server.serve = serve  # type: ignore[method-assign]
    try:
        yield started
    finally:
        uvicorn.Server.serve = before  # type: ignore[method-assign]


@contextmanager
def streams_kept() -> Iterator[None]:
    """Keep standard input and output for the protocol: nothing else reads the one or writes to the other.

    A server that speaks stdio as soon as it is loaded finds nothing there, and ends.
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    kept = {number: os.dup(number) for number in (0, 1)}
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _mistake(place: str, error: BaseException, folder: Path, *, factories: bool) -> ConfigurationError:
    """Return the one line that says what a module raised, and where."""
    if isinstance(error, PolicyError | ConfigurationError):
        return ConfigurationError(str(error))
    if isinstance(error, ModuleNotFoundError) and place.partition(".")[0] == (error.name or "").partition(".")[0]:
        return ConfigurationError(f"module `{place}` is not found, from `{folder}`: {_FORMS}")
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_below(frame.filename, folder)]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else place
    if isinstance(error, SystemExit):
        fix = f"put that below `if __name__ …`, or {_as_command(place, factories=factories)}"
        return ConfigurationError(f"{where}: ends the process when it is loaded: {fix}")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(_OLD):
        fix = "write `from mcp.server import MCPServer`, which took its place"
        return ConfigurationError(f"{where}: `{_OLD}` was in version 1 of the SDK, and this is 2: {fix}")
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        fix = "pip install 'agentguard[fastmcp]'" if error.name == "fastmcp" else "install it beside agentguard"
        return ConfigurationError(f"{where}: {what}: {fix}, in the same environment")
    return ConfigurationError(f"{where}: {what}: mend it there")


def _is_below(filename: str, folder: Path) -> bool:
    path = Path(filename)
    return path.is_relative_to(folder) and "site-packages" not in path.parts


def _named(
    place: str,
    name: str,
    names: Mapping[str, object],
    is_server: Callable[[object], bool],
    *,
    factories: bool,
) -> object:
    """Return the object of that name, or the one server that there is."""
    servers = {id(value): called for called, value in reversed(list(names.items())) if is_server(value)}
    if name:
        found = names.get(name)
        if is_server(found):
            return found
        got = f"`{type(found).__qualname__}`" if name in names else "no such name"
        message = f"`{place}:{name}` wants to be {_SERVERS}, got {got}: {_which(place, servers, factories=factories)}"
        raise ConfigurationError(message)
    if len(servers) != 1:
        got = f"{len(servers)}" if servers else "none"
        message = f"`{place}` wants one server, {_SERVERS}, got {got}: {_which(place, servers, factories=factories)}"
        raise ConfigurationError(message)
    (called,) = servers.values()
    return names[called]


def _made(
    place: str, name: str, make: Callable[..., object], is_server: Callable[[object], bool], folder: Path
) -> object:
    """Return the server that a function makes."""
    needed = [
        parameter.name
        for parameter in signature(make).parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
    ]
    if needed:
        message = (
            f"`{place}:{name}` wants to be called without arguments, and needs `{needed[0]}`: "
            "name a function that needs none"
        )
        raise ConfigurationError(message)
    server = _loaded(f"{place}:{name}", make, folder, factories=True)
    if not is_server(server):
        message = (
            f"`{place}:{name}` wants to return {_SERVERS}, got `{type(server).__qualname__}`: name a function that does"
        )
        raise ConfigurationError(message)
    return server


def _which(place: str, servers: Mapping[int, str], *, factories: bool) -> str:
    if servers:
        return "name it, " + " or ".join(f"{place}:{name}" for name in sorted(servers.values()))
    made = f"name a function that returns it, {place}:FUNCTION, " if factories else ""
    return f"assign the server to a name at the top of the module, {made}or {_as_command(place, factories=factories)}"


def _as_command(place: str, *, factories: bool) -> str:
    """Return how a server is reached that cannot be loaded."""
    module = "" if place.endswith(_SUFFIX) or os.sep in place else "-m "
    command = f"-- python {module}{shlex.quote(place)}"
    # What is only looked at is not served.
    how = "give its command:" if factories else "serve its command: agentguard wrap --policies FOLDER"
    return f"{how} {command}"
