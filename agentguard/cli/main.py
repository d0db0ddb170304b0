"""The `agentguard` command: what it is made of, and how its mistakes are told."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from agentguard.cli.dashes import RunCommand, WrapCommand
from agentguard.cli.lazy import MARKUP, SETTINGS, LazyCommand, readable
from agentguard.cli.loading import LEFT
from agentguard.cli.output import REFUSED, USAGE, mistyped, refused, result, say
from agentguard.errors import ConfigurationError, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

START = "Start"
POLICY = "Policy"
LIVE = "Live"
SERVE = "Serve"
EVIDENCE = "Evidence"

app = typer.Typer(
    name="agentguard",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings=SETTINGS | {"max_content_width": 80},
)

COMMANDS: Final = (
    LazyCommand(
        "dev",
        "dev:dev",
        "Serve your server guarded on this machine, with nothing to configure.",
        panel=START,
        # It says itself what to do with more than one server.
        context_settings={"allow_extra_args": True},
    ),
    LazyCommand(
        "init",
        "init:init",
        "Make a policy folder that works: policies, entities, scenarios, and settings for an editor.",
        panel=START,
        cls=WrapCommand,
    ),
    LazyCommand(
        "run",
        "run:run",
        "Give one command an identity that ends with it.",
        panel=START,
        cls=RunCommand,
        options_metavar="[OPTIONS] --",
    ),
    LazyCommand("token", "token:token", "Print a token of a new run, which is over in minutes.", panel=START),
    LazyCommand(
        "wrap",
        "wrap:wrap",
        "Serve an unmodified server with every tool guarded, over stdio or HTTP.",
        panel=START,
        cls=WrapCommand,
    ),
    LazyCommand(
        "schema",
        "schema:schema",
        "Show what a server offers, in the types that policies see, or write it down.",
        panel=POLICY,
        cls=WrapCommand,
    ),
    LazyCommand(
        "check",
        "check:check",
        "Say everything that is wrong with a policy folder, where it stands, and how to mend it.",
        panel=POLICY,
    ),
    LazyCommand(
        "test",
        "test:scenarios",
        "Judge the calls that `*.test.yaml` files suppose, and compare with what they expect.",
        panel=POLICY,
    ),
    LazyCommand(
        "explain",
        "explain:explain",
        "Say why a call was decided so: each policy, each condition with its value, and what would have changed it.",
        panel=POLICY,
    ),
    LazyCommand(
        "access",
        "access:access_command",
        "Tell who may do what: always, never, or sometimes, with the condition that is left.",
        panel=POLICY,
    ),
    LazyCommand(
        "impact",
        "impact:impact",
        "Say what other policies would have made of the calls that are on record.",
        panel=POLICY,
    ),
    LazyCommand(
        "unused",
        "unused:unused",
        "Say which permits no call took, and which permit more than was used.",
        panel=POLICY,
    ),
    LazyCommand("fmt", "fmt:fmt", "Lay out policies as Cedar's own formatter does.", panel=POLICY),
    LazyCommand(
        "lock",
        "lock:lock",
        "Say that a policy folder is complete: write its manifest, agentguard.lock.",
        panel=POLICY,
    ),
    LazyCommand("runs", "runs:runs", "List the live runs: who acts, for whom, and for how much longer.", panel=LIVE),
    LazyCommand(
        "revoke", "revoke:revoke", "End runs for good, wherever they are, with all that they delegated.", panel=LIVE
    ),
    LazyCommand(
        "issuer",
        "issuer:issuer",
        "Serve an issuer: token exchange, revocation, introspection, keys and metadata.",
        panel=SERVE,
    ),
    LazyCommand(
        "doctor",
        "doctor:doctor",
        "Answer the checklist for agents and their identities, from configuration and evidence.",
        panel=EVIDENCE,
    ),
    LazyCommand(
        "evidence", "evidence:app", "Verify the evidence, look at it, and let go of what is old.", panel=EVIDENCE
    ),
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        result(f"agentguard {version('agentguard')}")
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Write and test the policies that decide what agents may call, give runs an identity, read what they did.

    Each command exits with 0 if all is well, with 1 if something was found or refused, and
    with 2 if it could not run. Results go to standard output, everything else to standard error.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit with its status; a mistake is one line and no traceback.

    Args:
        arguments: What follows the command's name; that of this process if left out.
    """
    status = _status(arguments)
    if any(thread.is_alive() for thread in LEFT):
        # Python would wait for them, and what only looks at a server has nothing to keep.
        with suppress(AttributeError, OSError):
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


@cache
def _built() -> Any:
    command: Any = get_command(app)
    for later in COMMANDS:
        command.add_command(later)
    return readable(command)


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return int(_built()(args=arguments, prog_name="agentguard", standalone_mode=False) or 0)
    except TyperException as error:
        # Without arguments the help was shown, and the error has no text.
        if text := error.format_message():
            context = getattr(error, "ctx", None)
            asked = "agentguard" if context is None else context.command_path
            say(f"agentguard: {mistyped(text)} (see `{asked} --help`)")
        return error.exit_code
    except ConfigurationError as error:
        say(f"agentguard: {error}")
        return 2
    except Refusal as refusal:
        say(f"agentguard: {refused(refusal)}")
        return REFUSED
    except OSError as error:
        say(f"agentguard: {error.strerror or error}")
        # What is left in the stream would fail again at the exit, and change its status.
        sys.stdout = None
        return USAGE
