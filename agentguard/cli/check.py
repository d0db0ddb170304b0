"""`agentguard check`: is a policy folder right?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.analysis.checking.check import check as check_folder
from agentguard.cli.findings import Format, FormatOption, counted, format_of, write_findings
from agentguard.cli.options import JsonOption
from agentguard.cli.output import REFUSED, draw
from agentguard.cli.project import policies_folder
from agentguard.errors import PolicyError
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.files.folder import read_snapshot
from agentguard.policy.files.several import SERVERS, from_home, servers_of, shown_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.analysis.checking.check import Checked
    from agentguard.policy.schemas.offered import WrittenSchema

_LIMITS: Final = Limits()


def check(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="The policy folders; else the project's, or ./policies."),
    ] = None,
    *,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="SERVER", help="Load this server, and compare what it offers: server.py."),
    ] = None,
    form: FormatOption = Format.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong with a policy folder, where it stands, and how to mend it.

    Nothing of the server is needed: agentguard.cedarschema in the folder says what it
    offers. Whatever can be checked is, however much is wrong beside it.

    Each warning can be silenced in the policy itself, with a reason:
    `@silence_missing_owner("everybody's")`.

    Exits with 1 if there is an error or a warning, with 2 if it could not run.

    Example: `agentguard check policies`
    """
    chosen = format_of(form, as_json=as_json)
    wanted = [part for folder in folders or [policies_folder(None)] for part in _parts(folder, server)]
    checked = [(folder, _checked(folder, server)) for folder in wanted]
    single = len(checked) == 1
    # What servers have in common is checked for each, and told once.
    findings = {
        replace(finding, file=_named(folder, finding.file, single=single)): None
        for folder, found in checked
        for finding in found.findings
    }
    texts = {
        _named(folder, name, single=single): text for folder, found in checked for name, text in found.texts.items()
    }
    versions = {str(folder): found.version for folder, found in checked if found.version is not None}
    write_findings(
        [*findings],
        format=chosen,
        folder=shown_from(wanted[0]) if single else Path.cwd(),
        texts=texts,
        summary=f"{_what([found for _, found in checked])}: {counted([*findings])}",
        checked=[
            (str(shown_from(folder) / policy.file), policy.id) for folder, found in checked for policy in found.good
        ],
        extra={"policy_versions": versions},
    )
    if chosen in {Format.TEXT, Format.GITHUB}:
        for folder, version in versions.items():
            draw(f"policy version {version}{'' if single else f' of {printable(folder)}'}")
    if any(finding.fails for finding in findings):
        raise typer.Exit(REFUSED)


def _named(folder: Path, file: str, *, single: bool) -> str:
    """Return a file of a folder as findings name it: of several folders, by its whole path."""
    name = from_home(folder, file)
    return name if single else str(shown_from(folder).absolute() / name)


def _parts(folder: Path, server: str | None) -> list[Path]:
    """Return the folders of the servers that a folder is for; where it is for one, itself."""
    if server is not None or not (folder / SERVERS).is_dir():
        return [folder]
    return [folder / SERVERS / name for name in servers_of(read_snapshot(folder).files)] or [folder]


def _checked(folder: Path, server: str | None) -> Checked:
    offered: WrittenSchema | None = None
    if server is not None:
        from agentguard.cli.schema import offer_of  # noqa: PLC0415  what loads a server is large

        offered = offer_of(server, (), folder).written
    try:
        return check_folder(folder, _LIMITS, offered=offered)
    except PolicyError as error:
        raise error.within(folder.absolute()) from None


def _what(checked: Sequence[Checked]) -> str:
    policies = sum(len(found.policies) for found in checked)
    tools = sum(found.tools for found in checked)
    return f"{policies} {'policy' if policies == 1 else 'policies'}, {tools} tool{'' if tools == 1 else 's'}"
