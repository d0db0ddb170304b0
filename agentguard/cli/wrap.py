"""`agentguard wrap`: serve a server whose code one does not touch, with every tool guarded."""

from __future__ import annotations

import os
import shlex
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import anyio
import typer

from agentguard.adapters.lowlevel import tools_of
from agentguard.adapters.serving import Served, is_server, unguarded
from agentguard.adapters.upstream import upstream
from agentguard.cli.dashes import COMMAND
from agentguard.cli.loading import load_server, streams_kept
from agentguard.cli.options import STORE_VARIABLE, JsonOption
from agentguard.cli.output import result_json, say
from agentguard.cli.serving import http_server, listening, logging_shown, prints_aside, read_address, url_of
from agentguard.errors import ConfigurationError
from agentguard.guard import Guard
from agentguard.identity.sources import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE
from agentguard.lifecycle.local import UnsafeLocalIssuer, local_folder, require_local_audience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

_NAME: Final = 100
_TOKENS: Final = frozenset((TOKEN_VARIABLE, TOKEN_FILE_VARIABLE))
# What neither the module of a server nor the program behind it has any business with.
OURS: Final = _TOKENS | {STORE_VARIABLE}

PoliciesOption = Annotated[Path, typer.Option("--policies", metavar="FOLDER", help="The policies that decide.")]
HttpOption = Annotated[
    str | None,
    typer.Option("--http", metavar="[HOST:]PORT", help="Serve HTTP, on loopback unless a host is named; else stdio."),
]
PathOption = Annotated[str, typer.Option("--path", metavar="PATH", help="Where, over HTTP.")]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FOLDER",
        help="Where evidence and the ends of runs are kept; else a folder of yours, by the server's name.",
    ),
]
IssuerOption = Annotated[
    str | None, typer.Option("--issuer", metavar="URL", help="Whose tokens to believe; else the local issuer's.")
]
AudienceOption = Annotated[
    str | None,
    typer.Option("--audience", metavar="URI", help="What its tokens are for, over HTTP; else the server's URL."),
]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", metavar="NAME", help="What policies know as `context.environment`.")
]
ZoneOption = Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="The zone of `context.local`.")]
ForwardOption = Annotated[
    str | None, typer.Option("--forward", metavar="URL", help="Ship the evidence as spans to this OTLP endpoint.")
]
LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="NAME", help="A name for people, beside the policies' version.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch", metavar="", help="Take changed policies without a restart, once they arrived whole.")
]
ShadowOption = Annotated[
    Path | None,
    typer.Option(
        "--shadow", metavar="FOLDER", help="Policies that decide nothing: the evidence has where they differ."
    ),
]
ServerArgument = Annotated[
    str | None, typer.Argument(metavar="SERVER", help="module:server, path/to/server.py, or path/to/server.py:name.")
]


def wrap(
    ctx: typer.Context,
    server: ServerArgument = None,
    *,
    policies: PoliciesOption,
    http: HttpOption = None,
    path: PathOption = "/mcp",
    state: StateOption = None,
    issuer: IssuerOption = None,
    audience: AudienceOption = None,
    environment: EnvironmentOption = "production",
    time_zone: ZoneOption = "UTC",
    label: LabelOption = None,
    watch: WatchOption = False,
    shadow: ShadowOption = None,
    forward: ForwardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an unmodified server with every tool guarded, over stdio or HTTP.

    SERVER is an MCPServer, a FastMCP or a low-level server, by its module or file. A server
    that is a program is given as its command, after `--`.

    Over HTTP every request needs a bearer token, over stdio the process has one in its
    environment: `agentguard run … -- agentguard wrap …`. With --json, what is served over
    HTTP is told on standard output.

    Example: `agentguard wrap path/to/server.py --policies policies`
    """
    command = ctx.meta[COMMAND]
    if (server is None) is (not command) or (server is not None and command is not None):
        got = "neither" if server is None else "both"
        message = f"`agentguard wrap` wants a server, or a command after `--`, got {got}: give one of them"
        raise ConfigurationError(message)
    if http is None and (audience or as_json):
        what = "--audience" if audience else "--json"
        message = f"{what} is for HTTP, got stdio, where the protocol has its own: leave it out, or add --http PORT"
        raise ConfigurationError(message)
    if not path.startswith("/"):
        message = f"--path wants a path, got `{path}`: begin it with /"
        raise ConfigurationError(message)
    address = None if http is None else read_address(http, option="--http")
    options: dict[str, Any] = {
        "environment": environment,
        "time_zone": time_zone,
        "label": label,
        "forward": forward or False,
    }
    options |= {"watch": watch, "shadow": shadow}
    with logging_shown():
        own = {name: value for name in OURS if (value := os.environ.pop(name, None)) is not None}
        wrapped = None if server is None else load_server(server, is_server=is_server).server
        wrapping = Wrapping(
            policies=policies, state=state, issuer=issuer, audience=audience, options=options, as_json=as_json
        )
        anyio.run(partial(wrapping.serve, wrapped, command, own=own, address=address, path=path))


@contextmanager
def _closing(guard: Guard) -> Iterator[None]:
    """Close what a guard holds when the block ends."""
    try:
        yield
    finally:
        # Before: what came into force after that could not be recorded.
        guard.stop_watching()
        guard.state.close()


@asynccontextmanager
async def _upstream_or(server: object, command: Sequence[str]) -> AsyncIterator[Any]:
    """Give the server, or the one that a command is."""
    if server is not None:
        yield server
        return
    async with upstream(command) as proxied:
        yield proxied


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """What a server is wrapped with.

    Attributes:
        policies: The folder of policies.
        state: The state folder; None for one by the server's name.
        issuer: Whose tokens to believe; None for the local issuer's.
        audience: What tokens over HTTP are for; None for the server's URL.
        options: Further options of the guard.
        as_json: Whether a program reads what is served.
    """

    policies: Path
    state: Path | None
    issuer: str | None
    audience: str | None
    options: dict[str, Any]
    as_json: bool

    async def serve(
        self,
        server: object,
        command: Sequence[str],
        *,
        own: dict[str, str],
        address: tuple[str, int] | None,
        path: str,
    ) -> None:
        """Serve it until somebody ends that."""
        async with _upstream_or(server, command) as wrapped:
            known = unguarded(wrapped)
            with streams_kept():
                tools = await tools_of(wrapped)
            # The guard takes these out again; what else is ours, its tools have no business with either.
            os.environ.update({name: own[name] for name in _TOKENS & own.keys()})
            if address is None:
                with _closing(self._attach(wrapped, known, None, tools)):
                    if not own.keys() & _TOKENS:
                        say(f"agentguard: no token in the environment, so every call is denied: {_run(known.name)}")
                    with prints_aside():
                        await known.speak()
                return
            require_no_auth(known)
            host, _ = address
            with listening(*address, option="--http") as listens:
                url = url_of(listens, host, path)
                if self.issuer is None:
                    # Whatever the audience says: it is where it listens that others reach.
                    require_local_audience(url)
                guard = self._attach(wrapped, known, self.audience or url, tools)
                with _closing(guard):
                    app = known.app(guard, path=path, host=host)
                    self._tell(known, url)
                    await http_server(app, lifespan=True).serve(sockets=[listens])

    def _attach(self, server: Any, known: Served, audience: str | None, tools: list[Any] | None) -> Guard:
        guard = Guard(
            self.policies,
            issuer=self.issuer or UnsafeLocalIssuer(),
            audience=audience,
            state=self.state or state_folder(known.name),
            **self.options,
        )
        # To list what it has, a server may run code of its own, which may print.
        with streams_kept():
            guard.attach(server, tools=tools, unguarded="guard")
        return guard

    def _tell(self, known: Served, url: str) -> None:
        tell_open_routes(known)
        if self.as_json:
            result_json({"server": known.name, "url": url, "audience": self.audience or url})
            return
        say(f"agentguard: serving `{known.name}` at {url}, guarded by `{self.policies.absolute()}`")
        if self.issuer is None:
            say(f"a token: agentguard token --agent NAME --tool TOOL --audience {self.audience or url}")


def require_no_auth(known: Served) -> None:
    """Pass only a server that has no authentication of its own over HTTP.

    Raises:
        ConfigurationError: It has.
    """
    if known.has_auth:
        message = (
            f"server `{known.name}` has an authentication of its own, and one request cannot have two: "
            "take it out of its code, or put a guard into it"
        )
        raise ConfigurationError(message)


def tell_open_routes(known: Served) -> None:
    """Say which paths are served past the guard."""
    for route in known.open_routes:
        say(f"agentguard: `{route}` is served to anybody: no policy is asked, for it is a route and no tool")


def _run(name: str) -> str:
    return f"agentguard run --agent NAME --tool TOOL --server {shlex.quote(name)} -- agentguard wrap …"


def state_folder(name: str) -> Path:
    """Return where the state of a server is kept, where nothing is said."""
    return own_folder("servers") / safe_name(name)


def own_folder(name: str) -> Path:
    """Return a folder beside the local issuer's key, which nobody else may look into."""
    above = local_folder()
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    return above / name


def safe_name(name: str) -> str:
    """Return the name of a folder for a server, whatever it calls itself."""
    # A name may be no text that could be written at all.
    whole = name.encode("utf-8", "surrogatepass")
    safe = quote(whole, safe="").replace(".", "%2E")
    return safe if 0 < len(safe) <= _NAME else sha256(whole).hexdigest()
