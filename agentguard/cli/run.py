"""`agentguard run`: one identity for one command, which ends with it, however it ends."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from agentguard.cli.dashes import OURS
from agentguard.cli.issuing import open_issuer, open_store
from agentguard.cli.options import (
    STORE_VARIABLE,
    AgentOption,
    AudienceOption,
    EndsInOption,
    GrantOption,
    IssuerKeyOption,
    IssuerOption,
    PurposeOption,
    ScopeOption,
    ServerOption,
    StoreOption,
    TaskOption,
    ToolOption,
    UserOption,
    audience_of,
    read_grant,
    seconds,
)
from agentguard.cli.output import fail, refused, say
from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.sources import TOKEN_VARIABLE
from agentguard.lifecycle.child import (
    Child,
    exit_status,
    fill_streams,
    hold_signals,
    how,
    mark_of,
    unstartable,
    waiting_to_end,
)
from agentguard.lifecycle.guardian import Guardian
from agentguard.lifecycle.states import COMPLETED
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentguard.lifecycle.issuer import Issuer
    from agentguard.lifecycle.runs import Run
    from agentguard.lifecycle.store import Store

_LEEWAY: Final = Limits().leeway_seconds
_NOT_HANDED_ON: Final = frozenset({STORE_VARIABLE, TOKEN_VARIABLE})
_SHORTEST, _LONGEST = 10, 900
_OVER: Final = {Reason.EXPIRED: "is over", Reason.REVOKED: "was ended"}

LifetimeOption = Annotated[
    str,
    typer.Option(
        "--token-lifetime", metavar="TIME", help="How long each of its tokens lasts, 10s to 15m; they are renewed."
    ),
]
CommandArgument = Annotated[list[str], typer.Argument(metavar="COMMAND", help="The command, and its arguments.")]


def run(
    *,
    command: CommandArgument,
    agent: AgentOption,
    tool: ToolOption = None,
    grant: GrantOption = None,
    audience: AudienceOption = None,
    server: ServerOption = None,
    user: UserOption = None,
    task: TaskOption = None,
    purpose: PurposeOption = None,
    scope: ScopeOption = None,
    ends_in: EndsInOption = "1d",
    token_lifetime: LifetimeOption = "5m",  # noqa: S107  a time
    issuer: IssuerOption = None,
    issuer_key: IssuerKeyOption = None,
    store: StoreOption = None,
) -> None:
    """Give one command an identity that ends with it.

    The command is an agent, or a server over stdio that a host starts. It finds the name of
    a file with its token in `AGENTGUARD_TOKEN_FILE`. The run ends when the command does, or
    when this one is killed, and after `--ends-in` at the latest.

    Exits as the command does: its status, or 128 and the number of the signal that ended it.
    125 is a failure of ours, 126 a command that cannot be executed, 127 one that is not found.

    Example: `agentguard run --agent billing-agent --tool read_record --server records -- python server.py`
    """
    with _told():
        lasts, each = seconds(ends_in), seconds(token_lifetime)
        if not _SHORTEST <= each <= _LONGEST:
            message = f"--token-lifetime wants 10s to 15m, got `{token_lifetime}`: leave it out for 5m"
            raise ConfigurationError(message)
        server_uri, text = audience_of(audience=audience, server=server), read_grant(grant)
        if not tool and text is None:
            message = "a run wants --tool or --grant, got neither: say what it may call"
            raise ConfigurationError(message)
        fill_streams()
        held = hold_signals()
        with ExitStack() as undo:
            # Both before there is a store, and with it a thread that a fork would leave behind.
            child = Child(command, held=held)
            undo.callback(child.give_up)
            guardian = Guardian.start(partial(open_store, store), held=held)
            undo.callback(guardian.dismiss)
            guardian.tell(pid=child.pid, mark=mark_of(child.pid))
            opened = open_issuer(issuer=issuer, issuer_key=issuer_key, store=store, audience=server_uri)
            used = undo.enter_context(closing(cast("Store", opened.store)))
            begun = _begun(
                opened,
                guardian,
                agent=agent,
                user=user,
                task=task,
                purpose=purpose,
                scopes=scope or (),
                tools=tool,
                grant=text,
                ends_in=lasts,
                token_lifetime=each,
            )
            # From here on there is a run to end.
            undo.pop_all()
        with closing(used):
            status = _supervised(begun, child, guardian)
    raise typer.Exit(status)


@contextmanager
def _told() -> Iterator[None]:
    """Exit with our own status on what is a mistake or a failure of ours."""
    try:
        yield
    except ConfigurationError as error:
        fail(str(error), OURS)
    except Refusal as refusal:
        fail(refused(refusal), OURS)
    except OSError as error:
        fail(f"the run cannot be set up: {error}", OURS)


def _begun(issuer: Issuer, guardian: Guardian, *, ends_in: int, **options: Any) -> Run:
    """Begin the run, whose id the guardian knows before the store does."""
    run_id = uuid.uuid4().hex
    guardian.tell(run=run_id, issuer=issuer.issuer, until=time.time() + ends_in + _LEEWAY)
    return issuer.begin(run=run_id, ends_in=ends_in, **options)


def _supervised(run: Run, child: Child, guardian: Guardian) -> int:
    """Run the command as *run*, end both, and return with what to exit."""
    try:
        status, reason = _carried_out(run, child, guardian)
    # The guardian ends whatever is there by now, the command included.
    except Exception as error:  # noqa: BLE001
        say(f"agentguard: {type(error).__name__} while the command was run: {error}")
        guardian.tell(reason=f"supervising the command failed: {type(error).__name__}")
        run.stop()
        guardian.leave()
        return OURS
    guardian.tell(reason=reason)
    try:
        run.end(reason)
    except Refusal:
        # It goes on trying when we have exited.
        guardian.leave()
    else:
        guardian.dismiss()
    return status


def _carried_out(run: Run, child: Child, guardian: Guardian) -> tuple[int, str]:
    """Run the command; return with what to exit, and the reason with which the run ends."""
    # Told of before it is there, as everything is that there will be to end.
    folder = Path(tempfile.gettempdir()) / f"agentguard-{uuid.uuid4().hex}"
    guardian.tell(folder=str(folder), until=run.facts.ends_at + _LEEWAY)
    own = run.environment(folder=folder)
    if (number := waiting_to_end()) is not None:
        child.give_up()
        return exit_status(-number), f"{COMPLETED}: {how(-number)} before the command was started"
    # An outer run's token is not for this command, and neither is a store's password.
    child.start({name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON} | own)
    try:
        ended = child.wait(each_second=_watch(run))
    except OSError as error:
        program = error.filename
        say(f"agentguard: `{program}` cannot be started: {error.strerror}: {_remedy(program)}")
        return unstartable(error), f"{COMPLETED}: the command could not be started"
    return exit_status(ended), f"{COMPLETED}: {how(ended)}" if how(ended) else COMPLETED


def _remedy(program: str) -> str:
    if program.endswith(".py"):
        return f"agentguard run … -- python {program}"
    return "give its path, or one that may be executed"


def _watch(run: Run) -> Callable[[], None]:
    """Return what tells once that the run is over while its command goes on."""
    told = False

    def look() -> None:
        nonlocal told
        if told:
            return
        try:
            run.token()
        except Refusal as refusal:
            # Ending the command is up to whoever started it: it may have something to
            # tidy up, and can do nothing here any more.
            if happened := _OVER.get(refusal.reason):
                say(f"agentguard: run `{run.id}` {happened}: its calls are denied, and the command goes on without it")
                told = True

    return look
