"""`agentguard dev`: first contact with a server of one's own, guarded, on this machine alone."""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
import secrets
import shlex
import shutil
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer

from agentguard.adapters.lowlevel import tools_of
from agentguard.adapters.serving import Served, is_server, unguarded
from agentguard.cli.decisions import Teller, TellingLedger, on_stderr
from agentguard.cli.loading import load_server, streams_kept
from agentguard.cli.output import say
from agentguard.cli.saving import Saving
from agentguard.cli.serving import LOOPBACK, http_server, listening, logging_shown, prints_aside, url_of
from agentguard.cli.starter import write_starter
from agentguard.cli.wrap import OURS, own_folder, require_no_auth, safe_name, tell_open_routes
from agentguard.errors import ConfigurationError, PolicyError, Refusal
from agentguard.evidence.vocabulary import RecordKind
from agentguard.guard import Guard
from agentguard.host.atend import call_at_end
from agentguard.host.private import private_folder
from agentguard.identity.issuers import TrustedIssuer
from agentguard.identity.keys import FixedKeys
from agentguard.identity.sources import stdio_audience
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.issuer import Issuer
from agentguard.limits import Limits
from agentguard.policy.files.folder import WRITTEN, read_files
from agentguard.policy.files.source import read_folder
from agentguard.state import State, open_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from agentguard.evidence.kept import Kept
    from agentguard.lifecycle.runs import Run
    from agentguard.policy.files.source import PolicySource

_PATH: Final = "/mcp"
_STDIO_ISSUER: Final = "urn:agentguard:dev"
_EVERYTHING: Final = "permit (principal, action, resource);"
# Nobody works on one start for longer.
_LASTS: Final = 7 * 86_400
_BEGINS: Final = "dev-"
_STALE: Final = "a request came with the secret of another start: copy the line above again"
_BARE: Final = "a request came without the secret: copy the line above as a whole"
_CHANGED: Final = (
    "the policies have changed, and those of the start still decide: start `agentguard dev` again, or with --watch"
)

ServerArgument = Annotated[
    str, typer.Argument(metavar="SERVER", help="path/to/server.py, path/to/server.py:name, or module:server.")
]
AgentOption = Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent that calls.")]
PoliciesOption = Annotated[
    Path | None, typer.Option("--policies", metavar="FOLDER", help="The policies; else `policies` beside the server.")
]


def dev(
    ctx: typer.Context,
    server: ServerArgument,
    *,
    stdio: Annotated[bool, typer.Option("--stdio", help="Serve whoever starts this over stdio, and not HTTP.")] = False,
    agent: AgentOption = "developer",
    policies: PoliciesOption = None,
    port: Annotated[int, typer.Option("--port", metavar="N", help="The port on loopback.", min=0, max=65_535)] = 8000,
    watch: Annotated[
        bool, typer.Option("--watch", metavar="", help="Take the policies that you save, by locking their folder.")
    ] = False,
) -> None:
    """Serve your server guarded on this machine, with nothing to configure.

    It gives the caller an identity that ends with this command, begins with policies of its
    own if there are none, and tells each decision on standard error. For loopback and stdio alone.

    Example: `agentguard dev server.py`
    """
    if ctx.args:
        given = shlex.join((server, *ctx.args))
        message = (
            f"`agentguard dev` wants one server, got `{given}`: name its module or file, "
            f"or serve a command with `agentguard wrap --policies FOLDER -- {given}`"
        )
        raise ConfigurationError(message)
    # Whoever is called here acts by the identity that this command makes.
    for name in OURS:
        os.environ.pop(name, None)
    loaded = load_server(server, is_server=is_server)
    known = unguarded(loaded.server)
    folder = _folder(policies, loaded.folder / "policies")
    if (written := write_starter(folder)) is not None:
        say(f"agentguard: wrote {written}, to begin with: read it, and make it yours")
    source = _source(folder)
    places: dict[str, str] = {}

    def taken(source: PolicySource) -> None:
        places.clear()
        places.update({policy.id: f"{_shown(folder)}/{policy.file}:{policy.line}" for policy in source.policies})

    taken(source)
    saving = Saving(folder, Limits(), taken) if watch else None
    # Each decision is told by its line.
    with logging_shown(logging.WARNING, sdk=logging.WARNING), _state(known.name) as (state, kept):
        teller = Teller(
            places=places,
            folder=_shown(folder),
            explain=_explaining(folder, kept),
            console=on_stderr(),
        )
        session = Session(
            known=known,
            server=loaded.server,
            folder=folder,
            state=replace(state, ledger=TellingLedger(state.ledger, teller if watch else _telling(teller, source))),
            agent=agent,
            saving=saving,
        )
        anyio.run(session.over_stdio if stdio else partial(session.over_http, port))


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One server, for as long as this command lasts.

    Attributes:
        known: How it is served.
        server: The server.
        folder: Its policies.
        state: Where its evidence is kept for that time.
        agent: Who calls.
        saving: Takes the policies that are saved meanwhile; None if nobody does.
    """

    known: Served
    server: Any
    folder: Path
    state: State
    agent: str
    saving: Saving | None = None

    async def over_stdio(self) -> None:
        """Serve whoever started this."""
        issuer = Issuer(issuer=_STDIO_ISSUER, store=self.state.store)
        tools = await self._tools()
        with _running(issuer, self.agent, stdio_audience(self.known.name)) as run:
            # The guard takes it out again, before a line of the server runs.
            os.environ.update(run.environment())
            with self._locked():
                guard = self._guarded(issuer, None, tools)
                self._tell("on stdio")
                with prints_aside():
                    await self._while_saving(guard, self.known.speak)

    async def over_http(self, port: int) -> None:
        """Serve whoever has the secret, on loopback."""
        require_no_auth(self.known)
        tools = await self._tools()
        with listening(LOOPBACK, port, option="--port") as listens:
            url = url_of(listens, LOOPBACK, _PATH)
            issuer = Issuer(issuer=url.removesuffix(_PATH), store=self.state.store)
            with _running(issuer, self.agent, url) as run, self._locked():
                guard = self._guarded(issuer, url, tools)
                secret = f"{_BEGINS}{secrets.token_urlsafe(16)}"
                app = StandIn(self.known.app(guard, path=_PATH, host=LOOPBACK), secret=secret, token=run.token)
                self._tell(f"at {url}")
                tell_open_routes(self.known)
                header = f'--header "Authorization: Bearer {secret}"'
                say("in another terminal, for your client (the Inspector wants Node 22.19 or later):")
                say(f"  npx @modelcontextprotocol/inspector@2 --transport http --server-url {url} {header}")
                say(f"  claude mcp add --transport http {shlex.quote(self.known.name)} {url} {header}")
                await self._while_saving(guard, partial(http_server(app, lifespan=True).serve, sockets=[listens]))

    def _locked(self) -> AbstractContextManager[None]:
        return nullcontext() if self.saving is None else self.saving.locked()

    async def _while_saving(self, guard: Guard, serve: Callable[[], Awaitable[None]]) -> None:
        """Serve, and take meanwhile what is saved."""
        if self.saving is None:
            await serve()
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.saving.take, guard.reload)
            await serve()
            tasks.cancel_scope.cancel()

    async def _tools(self) -> list[Any] | None:
        with streams_kept():
            return await tools_of(self.server)

    def _guarded(self, issuer: Issuer, audience: str | None, tools: list[Any] | None) -> Guard:
        verifier = InvocationVerifier(
            TrustedIssuer(issuer=issuer.issuer), audience=audience, keys={issuer.issuer: FixedKeys(issuer.jwks())}
        )
        guard = Guard(self.folder, verifier=verifier, state=self.state, environment="development")
        # To list what it has, a server may run code of its own, which may print.
        with streams_kept():
            guard.attach(self.server, tools=tools, unguarded="guard")
        return guard

    def _tell(self, where: str) -> None:
        say(
            f"agentguard: serving `{self.known.name}` {where} to agent `{self.agent}`, guarded by {_shown(self.folder)}"
        )


class StandIn:
    """Lets one secret stand for the tokens of a run, which are over in minutes.

    What it puts in its place is verified like any other token. Somebody whose client has no
    secret, or that of an earlier start, reads so where this runs.

    Args:
        app: The application that demands tokens.
        secret: What a client sends.
        token: Gives the run's token of now.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], *, secret: str, token: Callable[[], str]) -> None:
        self._app = app
        self._secret = f"Bearer {secret}".encode()
        self._token = token
        self._told: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            if scope["path"] == _PATH:
                self._hint([value for name, value in scope["headers"] if name == b"authorization"])
            headers = [
                (name, self._exchanged(value) if name == b"authorization" else value)
                for name, value in scope["headers"]
            ]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)

    def _hint(self, sent: list[bytes]) -> None:
        """Say why a client is refused: once, until one is let in."""
        if any(hmac.compare_digest(value, self._secret) for value in sent):
            self._told.clear()
            return
        stale = any(value.lower().startswith(f"bearer {_BEGINS}".encode()) for value in sent)
        what = _STALE if stale else "" if sent else _BARE
        if what and what not in self._told:
            self._told.add(what)
            say(f"agentguard: {what}")

    def _exchanged(self, value: bytes) -> bytes:
        if not hmac.compare_digest(value, self._secret):
            return value
        try:
            return f"Bearer {self._token()}".encode()
        except Refusal:
            # The run is over. Nobody takes the secret for a token.
            return value


@contextmanager
def _running(issuer: Issuer, agent: str, audience: str) -> Iterator[Run]:
    """Begin a run that may do whatever the policies let it; nobody gets a token of it after the block."""
    run = issuer.begin(agent=agent, grant=_EVERYTHING, audience=audience, ends_in=_LASTS)
    call_at_end(run.stop)
    try:
        yield run
    finally:
        run.stop()


@contextmanager
def _state(name: str) -> Iterator[tuple[State, Path]]:
    """Give a state that ends with the block, in a folder in which others can look at it until then."""
    above = own_folder("dev")
    private_folder(above)
    with ExitStack() as undo:
        folder = _claimed(above, safe_name(name), undo)
        # Before the lock is given back, and never after: then the folder is somebody else's.
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        call_at_end(undo.close)
        state = open_state(folder)
        undo.callback(state.close)
        yield state, folder


def _claimed(above: Path, name: str, undo: ExitStack) -> Path:
    """Return a folder that no other process uses; what a killed one left in it is removed."""
    number = 1
    while True:
        folder = above / (name if number == 1 else f"{name}-{number}")
        lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, lock)
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            return folder
        number += 1


def _folder(given: Path | None, beside: Path) -> Path:
    """Return the folder of policies; only the one beside the server is made where there is none.

    Raises:
        ConfigurationError: Another one was named that is no folder.
    """
    folder = beside if given is None else given.absolute()
    if folder != beside and not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        message = f"--policies wants a folder, got `{folder}`, {got}: name one that is there, or leave it out"
        raise ConfigurationError(message)
    return folder


def _source(folder: Path) -> PolicySource:
    try:
        return read_folder(folder, Limits())
    except PolicyError as error:
        raise error.within(folder) from None


def _explaining(folder: Path, evidence: Path) -> str:
    """Return the command that says why something was decided, with `ID` for the decision's id."""
    if (folder / WRITTEN).is_file():
        return f"agentguard explain ID {_shown(folder)} --evidence {_shown(evidence)}"
    # To judge the call again takes what the server offers, written down.
    return f"agentguard evidence show {_shown(evidence)} --decision ID"


def _telling(teller: Teller, source: PolicySource) -> Callable[[Kept], None]:
    """Return what tells of a record, and once that the policies are no longer those that decide."""
    told = False

    def tell(record: Kept) -> None:
        nonlocal told
        teller(record)
        if not told and record.kind == RecordKind.DECISION and _files(source.folder) != source.files:
            told = True
            say(f"agentguard: {_CHANGED}")

    return tell


def _files(folder: str) -> tuple[tuple[str, str], ...]:
    """Return what a folder of policies holds now; nothing where that could not be served."""
    try:
        return tuple(read_files(Path(folder)).items())
    except PolicyError:
        return ()


def _shown(path: Path) -> str:
    """Return a path as it can be read and typed: from the working folder, or from home."""
    for above, sign in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(above) and path != above:
            text = str(path.relative_to(above))
            return f"{sign}{text}" if shlex.quote(text) == text else shlex.quote(str(path))
    return shlex.quote(str(path))
