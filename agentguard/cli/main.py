"""The `agentguard` command: what it is made of, and how its mistakes are told."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperArgument
from typer.exceptions import TyperException
from typer.main import get_command

from agentguard.cli.access import access_command
from agentguard.cli.check import check
from agentguard.cli.dev import dev
from agentguard.cli.doctor import doctor
from agentguard.cli.evidence import app as evidence
from agentguard.cli.explain import explain
from agentguard.cli.fmt import fmt
from agentguard.cli.impact import impact
from agentguard.cli.init import init
from agentguard.cli.issuer import issuer
from agentguard.cli.loading import LEFT
from agentguard.cli.lock import lock
from agentguard.cli.output import REFUSED, USAGE, mistyped, refused, result, say
from agentguard.cli.revoke import revoke
from agentguard.cli.run import RunCommand, run
from agentguard.cli.runs import runs
from agentguard.cli.schema import schema
from agentguard.cli.test import scenarios
from agentguard.cli.token import token
from agentguard.cli.unused import unused
from agentguard.cli.wrap import WrapCommand, wrap
from agentguard.errors import ConfigurationError, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START = "Start"
POLICY = "Policy"
LIVE = "Live"
SERVE = "Serve"
EVIDENCE = "Evidence"

app = typer.Typer(
    name="agentguard",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
# It says itself what to do with more than one server.
app.command(rich_help_panel=START, context_settings={"allow_extra_args": True})(dev)
app.command(rich_help_panel=START, cls=WrapCommand)(init)
app.command(rich_help_panel=START, cls=RunCommand, options_metavar="[OPTIONS] --")(run)
app.command(rich_help_panel=START)(token)
app.command(rich_help_panel=START, cls=WrapCommand)(wrap)
app.command(rich_help_panel=POLICY, cls=WrapCommand)(schema)
app.command(rich_help_panel=POLICY)(check)
app.command("test", rich_help_panel=POLICY)(scenarios)
app.command(rich_help_panel=POLICY)(explain)
app.command("access", rich_help_panel=POLICY)(access_command)
app.command(rich_help_panel=POLICY)(impact)
app.command(rich_help_panel=POLICY)(unused)
app.command(rich_help_panel=POLICY)(fmt)
app.command(rich_help_panel=POLICY)(lock)
app.command(rich_help_panel=LIVE)(runs)
app.command(rich_help_panel=LIVE)(revoke)
app.command(rich_help_panel=SERVE)(issuer)
app.add_typer(evidence, name="evidence", rich_help_panel=EVIDENCE)
app.command(rich_help_panel=EVIDENCE)(doctor)


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


class _Argument(TyperArgument):
    """An argument whose help does not say how Python calls its type."""

    def display_type_rich(self, ctx: Any) -> str:  # noqa: ARG002  typer asks with it
        return ""


@cache
def _built() -> Callable[..., int | None]:
    command = get_command(app)
    _read_well(command)
    return command


def _read_well(command: Any) -> None:
    """Take out of the help of a command, and of those in it, what says nothing to whoever types it."""
    context = command.context_class(command, info_name="", help_option_names=["-h", "--help"])
    for parameter in command.get_params(context):
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = _Argument
        elif parameter.is_flag:
            parameter.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _read_well(inner)


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return _built()(args=arguments, prog_name="agentguard", standalone_mode=False) or 0
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
