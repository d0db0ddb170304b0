"""The `agentguard` command: what it is made of, and how its mistakes are told."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from agentguard.cli.dev import dev
from agentguard.cli.evidence import app as evidence
from agentguard.cli.issuer import issuer
from agentguard.cli.output import REFUSED, USAGE, refused, result, say
from agentguard.cli.revoke import revoke
from agentguard.cli.run import RunCommand, run
from agentguard.cli.runs import runs
from agentguard.cli.token import token
from agentguard.cli.wrap import WrapCommand, wrap
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
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
# It says itself what to do with more than one server.
app.command(rich_help_panel=START, context_settings={"allow_extra_args": True})(dev)
app.command(rich_help_panel=START, cls=RunCommand, options_metavar="[OPTIONS] --")(run)
app.command(rich_help_panel=START)(token)
app.command(rich_help_panel=START, cls=WrapCommand)(wrap)
app.command(rich_help_panel=LIVE)(runs)
app.command(rich_help_panel=LIVE)(revoke)
app.command(rich_help_panel=SERVE)(issuer)
app.add_typer(evidence, name="evidence", rich_help_panel=EVIDENCE)


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
    """Give agent runs an identity, see which are live, end them, and read the evidence of what they did."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit with its status; a mistake is one line and no traceback.

    Args:
        arguments: What follows the command's name; that of this process if left out.
    """
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return app(args=arguments, prog_name="agentguard", standalone_mode=False) or 0
    except TyperException as error:
        # Without arguments the help was shown, and the error has no text.
        if text := error.format_message():
            context = getattr(error, "ctx", None)
            asked = "agentguard" if context is None else context.command_path
            say(f"agentguard: {text[0].lower()}{text[1:].rstrip('.')} (see `{asked} --help`)")
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
