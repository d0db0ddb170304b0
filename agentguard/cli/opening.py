"""Open a policy folder for a command that asks something of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentguard.analysis.finding import of_problem
from agentguard.analysis.workspace import open_workspace
from agentguard.cli.findings import headline
from agentguard.cli.output import fail, say
from agentguard.errors import PolicyError
from agentguard.evidence.words import count
from agentguard.policy.files.several import from_home, shown_from
from agentguard.policy.files.written import named_server

if TYPE_CHECKING:
    from agentguard.analysis.workspace import Workspace

FolderArgument = Annotated[
    Path | None, typer.Argument(metavar="FOLDER", help="The policy folder; else the project's, or ./policies.")
]


def opened(folder: Path) -> Workspace:
    """Return a policy folder, and what its server offers; say it if that is not written down as it is now.

    Raises:
        PolicyError: The folder is none.
        ConfigurationError: No schema was written into it.
        typer.Exit: It has mistakes, which have been told as `agentguard check` tells them.
    """
    try:
        workspace = open_workspace(folder)
    except PolicyError as error:
        if not error.found or not all(problem.file for problem in error.found):
            raise error.within(folder.absolute()) from None
        tell(error, folder)
        fail(f"{count(len(error.found), 'mistake')} to mend first: see `agentguard check {folder}`")
    say_if_stale(workspace, folder)
    return workspace


def tell(error: PolicyError, folder: Path) -> None:
    """Say what is wrong with a folder, a line for each mistake."""
    for problem in error.found:
        found = replace(of_problem(problem), file=from_home(folder, problem.file))
        say(headline(found, shown_from(folder)))
    if not error.found:
        say(f"agentguard: {error}")


def say_if_stale(workspace: Workspace, folder: Path) -> None:
    """Say if the schema in a folder is not what would be written now."""
    if workspace.stale:
        command = f"agentguard schema {named_server(workspace.text)} --write {folder}"
        say(f"agentguard: {workspace.stale[0]}: run `{command}`")
