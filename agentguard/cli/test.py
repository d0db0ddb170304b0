"""`agentguard test`: do the policies decide as their scenarios say, and what do these leave untested?"""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from agentguard.analysis.finding import of_problem
from agentguard.analysis.scenarios.cedarexport import POLICIES, SCHEMA, TESTS, export
from agentguard.analysis.scenarios.coverage import coverage, survivors
from agentguard.analysis.scenarios.suites import SUFFIXES, misnamed_suites, open_suites, read_text, run
from agentguard.analysis.workspace import open_workspace
from agentguard.cli.findings import Format, FormatOption, format_of, write_findings
from agentguard.cli.opening import FolderArgument, say_if_stale
from agentguard.cli.options import JsonOption
from agentguard.cli.output import REFUSED, USAGE, on_terminal, say
from agentguard.cli.project import policies_folder
from agentguard.cli.tested import Tested
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.evidence.words import count
from agentguard.model import printable
from agentguard.policy.files.several import from_home, shown_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.analysis.scenarios.cases import CaseResult, Suite
    from agentguard.analysis.scenarios.coverage import MutationReport
    from agentguard.analysis.workspace import Workspace

_CEDAR: Final = "cedar"


def scenarios(
    folder: FolderArgument = None,
    *,
    mutate: Annotated[
        bool, typer.Option("--mutate", metavar="", help="Change each policy in small ways: does a case notice?")
    ] = False,
    only: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only cases with this in their file or name.")
    ] = None,
    uncovered: Annotated[
        bool,
        typer.Option("--no-coverage", metavar="", help="Do not ask which policies no case saw fire, or not fire."),
    ] = False,
    exported: Annotated[
        tuple[str, Path] | None,
        typer.Option("--export", metavar="cedar FOLDER", help="Write the cases for Cedar's own `cedar run-tests`."),
    ] = None,
    form: FormatOption = Format.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Judge the calls that `*.test.yaml` files suppose, and compare with what they expect.

    No server is needed: `agentguard schema SERVER --write FOLDER` wrote down what it offers.

    Exits with 1 if a case comes out otherwise, if no case saw a policy fire or not fire, and
    with --mutate if no case notices a change; with 2 if it could not run, or there is no case.

    Example: `agentguard test policies --filter export`
    """
    if only is not None and mutate:
        message = "--mutate asks what all cases together notice, got --filter: leave one out"
        raise ConfigurationError(message)
    if exported is not None and exported[0] != _CEDAR:
        message = f"--export wants `{_CEDAR}` and a folder, got `{exported[0]}`: write `--export {_CEDAR} FOLDER`"
        raise ConfigurationError(message)
    format = format_of(form, as_json=as_json)  # noqa: A001  as the option is called
    workspace, suites = _opened(policies_folder(folder), format)
    if only is not None:
        suites = _narrowed(suites, only)
    results = [one for suite in suites for one in run(workspace, suite)]
    if exported is not None:
        _export(workspace, results, exported[1])
    tested = Tested(workspace=workspace, suites=suites, results=results)
    if only is None and not uncovered:
        tested = replace(tested, coverage=coverage(results, workspace.policies))
    if mutate and tested.failed:
        say("agentguard: no mutant was tried: a case that fails notices nothing, so mend these first")
    elif mutate:
        tested = replace(tested, mutation=_mutated(workspace, suites))
    _write(tested, format)
    if any(one.fails for one in tested.findings):
        raise typer.Exit(REFUSED)


def _opened(folder: Path, format: Format) -> tuple[Workspace, Sequence[Suite]]:  # noqa: A002  as the option is called
    """Return the policies and their scenarios; a mistake in either is told, and ends the command.

    Raises:
        ConfigurationError: There is no scenario, or no schema.
    """
    try:
        workspace = open_workspace(folder)
        say_if_stale(workspace, folder)
        suites = open_suites(workspace)
        for path in misnamed_suites(workspace):
            name = printable(path.relative_to(workspace.folder).as_posix())
            say(f"agentguard: `{name}` looks like scenarios and is not run: call it `….test.yaml`")
    except PolicyError as error:
        # What is about no file has no line to show.
        if not all(problem.file for problem in error.found):
            raise
        _tell(error, folder, format)
        raise typer.Exit(USAGE) from None
    if not suites:
        message = (
            f"policy folder `{folder.absolute()}` has no scenario, so nothing would be tested: "
            f"write one into `scenarios/NAME{SUFFIXES[0]}`"
        )
        raise ConfigurationError(message)
    return workspace, suites


def _tell(error: PolicyError, folder: Path, format: Format) -> None:  # noqa: A002  as the option is called
    home = shown_from(folder)
    found = [replace(of_problem(problem), file=from_home(folder, problem.file)) for problem in error.found]
    texts = {}
    for name in {one.file for one in found}:
        with suppress(PolicyError):
            texts[name] = read_text(home / name, name)
    write_findings(
        found,
        format=format,
        folder=home,
        texts=texts,
        summary=f"{count(len(error.found), 'mistake')} to mend before anything can be tested",
        command="test",
    )


def _narrowed(suites: Sequence[Suite], text: str) -> list[Suite]:
    """Return the cases whose file or name has a text in it.

    Raises:
        ConfigurationError: There is none.
    """
    wanted = text.casefold()
    found = [
        replace(suite, cases=tuple(case for case in suite.cases if wanted in f"{case.file} {case.name}".casefold()))
        for suite in suites
    ]
    found = [suite for suite in found if suite.cases]
    if not found:
        message = f"no case has `{text}` in its file or name, so nothing would be tested: look for another text"
        raise ConfigurationError(message)
    return found


def _mutated(workspace: Workspace, suites: Sequence[Suite]) -> MutationReport:
    if not on_terminal(sys.stderr):
        return survivors(workspace, suites)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("mutants", total=None)
        return survivors(workspace, suites, lambda done, total: progress.update(task, completed=done, total=total))


def _export(workspace: Workspace, results: Sequence[CaseResult], folder: Path) -> None:
    """Write the cases for Cedar's own command.

    Raises:
        ConfigurationError: It cannot be written to, or the policies would be among what is written.
    """
    if folder.resolve().is_relative_to(workspace.folder.resolve()):
        message = f"`{folder}` is in the policy folder, where each policy would stand twice: name a folder elsewhere"
        raise ConfigurationError(message)
    made = export(workspace, results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.files.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        message = f"`{folder}` cannot be written to: {error.strerror}: name another folder"
        raise ConfigurationError(message) from None
    for why, number in sorted(made.left_out.items()):
        say(f"{number} left out {why}")
    files = ("--policies", folder / POLICIES, "--schema", folder / SCHEMA, "--tests", folder / TESTS)
    say(f"{made.tests} written: cedar run-tests {shlex.join(map(str, files))}")


def _write(tested: Tested, format: Format) -> None:  # noqa: A002  as the option is called
    if format is Format.TEXT:
        tested.draw()
    uncovered = () if tested.coverage is None else [one.name for one in tested.coverage.findings()]
    write_findings(
        # A person has seen the failures, and the table of policies.
        [one for one in tested.untested if one.name not in uncovered] if format is Format.TEXT else tested.findings,
        format=format,
        folder=tested.workspace.folder,
        texts=tested.texts,
        summary=tested.summary,
        command="test",
        checked=tested.passed,
        extra=tested.as_json(),
    )
