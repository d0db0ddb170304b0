"""`agentguard init`: a policy folder that works, to be changed from there on."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from agentguard.analysis.scenarios.baselines import Fitted, fit
from agentguard.analysis.scenarios.starting import (
    APPROVAL,
    GUARDRAILS,
    NEXT,
    OBSERVED,
    PERMITS,
    SCENARIOS,
    observing_files,
    policy_files,
    scenarios_of,
    stand_in,
)
from agentguard.analysis.workspace import open_workspace
from agentguard.cli.baselines import (
    SHOWS,
    BaselineOption,
    ListOption,
    OverwriteOption,
    add,
    check_fit,
    files_table,
    is_begun,
    tell_list,
    tell_rest,
    told_json,
    wanted,
)
from agentguard.cli.dashes import COMMAND
from agentguard.cli.options import JsonOption
from agentguard.cli.output import draw, result, result_json
from agentguard.cli.schema import offer_of
from agentguard.cli.starter import write_new
from agentguard.errors import ConfigurationError
from agentguard.guarding.offering import read_vocabulary
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.baselines import Baseline
from agentguard.policy.files.folder import ENTITIES, POLICY_SUFFIX, SCHEMA_SUFFIX
from agentguard.policy.files.several import COMMON, SERVERS, home_of
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, SERVER, write_schema
from agentguard.policy.schemas.offered import WrittenSchema

_LIMITS: Final = Limits()
_FOLDER: Final = Path("policies")
_EDITOR: Final = ".vscode"
_SCENARIO_SCHEMA: Final = "scenarios.schema.json"
_README: Final = "README.md"
_SETTINGS: Final[Mapping[str, object]] = {
    "cedar.schemaFile": FILE,
    "cedar.autodetectSchemaFile": True,
    "[cedar]": {"editor.defaultFormatter": "cedar-policy.vscode-cedar", "editor.tabSize": 2},
    "yaml.schemas": {f"{_EDITOR}/{_SCENARIO_SCHEMA}": "**/*.test.yaml"},
}
_EXTENSIONS: Final[Mapping[str, object]] = {"recommendations": ["cedar-policy.vscode-cedar", "redhat.vscode-yaml"]}
_WHAT: Final = {
    PERMITS: "what each agent is for",
    GUARDRAILS: "what no agent may do",
    OBSERVED: "everything is permitted, for now",
    ENTITIES: "which agents there are, and their groups",
    SCENARIOS: "calls, and what should come of them",
    FILE: "what the server offers, written down",
    _README: "what is here, and what to run",
    f"{_EDITOR}/": "settings, for completion in an editor",
}


def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.", show_default=True)] = _FOLDER,
    *,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="SERVER", help="Begin with the tools of this server: path/to/server.py."),
    ] = None,
    observe: Annotated[
        bool,
        typer.Option("--observe", metavar="", help="Permit everything, and judge by FOLDER/next in the shadow."),
    ] = False,
    baseline: BaselineOption = None,
    list_baselines: ListOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a policy folder that works: policies, entities, scenarios, and settings for an editor.

    Without a server it is about one of three example tools. A server that is a program is
    given as its command, after `--`. With --observe, for a server that is live already,
    nothing is denied yet: policies to come stand in `next/`, and only the evidence tells
    what they would have denied.

    With --baseline, ready policies come with it, each with scenarios for the tools of the
    server. A folder that has policies gets these alone.

    Nothing that is there is ever written over, but for baselines with --overwrite.

    Exits with 0 if the files are written, with 2 if not.

    Example: `agentguard init policies --server path/to/server.py`
    """
    if list_baselines:
        tell_list(as_json=as_json)
        return
    asked = wanted(baseline, overwrite=overwrite)
    command: Sequence[str] | None = ctx.meta[COMMAND]
    if asked and is_begun(folder):
        if server is not None or command is not None or observe:
            message = (
                f"`{folder.absolute()}` has policies already, so baselines are added to what it is about: "
                "leave out the server and --observe, or name a new folder"
            )
            raise ConfigurationError(message)
        add(folder, asked, baseline, overwrite=overwrite, as_json=as_json)
        return
    if server is not None and command is not None:
        message = "`agentguard init` wants one server, got --server and a command after `--`: leave one out"
        raise ConfigurationError(message)
    _check_free(folder)
    named = _server_of(server, command)
    written, types, called = stand_in(), dict[str, str](), SERVER
    if named:
        offer = offer_of(server, command or (), None)
        written, types = offer.written, {} if offer.folder is None else _types(offer.folder)
        called = offer.named or SERVER
    fitted, made = folder_files(written, types, observe=observe, named=called, baselines=asked)
    check_fit(fitted, baseline, written.server)
    ready = {one.file: one.says for one in asked if one.file in fitted.files}
    ready |= {one.suite: SHOWS for one in asked if one.suite in fitted.files}
    made |= {_README: _readme(folder, named, ready, observe=observe), **_editor_files()}
    write_new(folder, made)
    if as_json:
        result_json(
            {
                "folder": str(folder.absolute()),
                "files": sorted(made),
                "server": written.server if named else None,
                "observe": observe,
                **told_json(fitted, asked),
            }
        )
        return
    _tell(folder, made, written, named, ready, observe=observe)
    tell_rest(fitted, asked, written)


def _check_free(folder: Path) -> None:
    """Pass only a folder that has none of what would be written, and no policies.

    Raises:
        ConfigurationError: Something is there, or the folder is one server's part of another.
    """
    top, server = home_of(folder.absolute())
    if server is not None:
        message = (
            f"`{folder.absolute()}` is one server's part of `{top}`, whose {COMMON}/ may have the same ids: "
            f"make the folder, have `agentguard schema SERVER --write {folder}` write the schema, and add its permits"
        )
        raise ConfigurationError(message)
    try:
        there = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"`{folder.absolute()}` cannot be looked into, {error.strerror}: name a folder that is yours"
        raise ConfigurationError(message) from None
    ours = {SCENARIOS.partition("/")[0], _EDITOR, _README, ENTITIES, NEXT, "types", COMMON, SERVERS}
    taken = [name for name in there if name in ours or name.lower().endswith((POLICY_SUFFIX, SCHEMA_SUFFIX))]
    if taken:
        named = ", ".join(f"`{printable(name)}`" for name in taken)
        message = f"`{folder.absolute()}` has {named}, and nothing is written over: name a new folder"
        raise ConfigurationError(message)


def _server_of(server: str | None, command: Sequence[str] | None) -> str:
    """Return the server as commands name it; empty for none."""
    if command is not None:
        return f"-- {shlex.join(command)}"
    return "" if server is None else shlex.quote(server)


def _types(folder: Path) -> dict[str, str]:
    """Return the types that a server's own folder declares, since its loaders make entities of them."""
    return {fragment.path: fragment.text for fragment in read_vocabulary(folder, _LIMITS).fragments}


class Made(NamedTuple):
    """The files of a new folder.

    Attributes:
        fitted: What became of the baselines that were asked for.
        files: All that policies are made of, by name; those of the baselines are among them.
    """

    fitted: Fitted
    files: dict[str, str]


def folder_files(
    written: WrittenSchema,
    types: Mapping[str, str],
    *,
    observe: bool,
    named: str = SERVER,
    baselines: Sequence[Baseline] = (),
) -> Made:
    """Return all files that policies are made of. They have been judged by before anybody sees them."""
    # What asks a person is there once, under one id.
    asks = all(APPROVAL not in baseline.ids for baseline in baselines)
    policies = {**policy_files(written, asks=asks), **types}
    made = _complete(policies, written, named, baselines)
    if not observe:
        return made
    coming = {f"{NEXT}/{name}": text for name, text in made.files.items()}
    return made._replace(files={**_complete({**observing_files(), **types}, written, named).files, **coming})


def _complete(files: Mapping[str, str], written: WrittenSchema, named: str, baselines: Sequence[Baseline] = ()) -> Made:
    """Return the files of one folder with the schema, and with scenarios that pass."""
    with tempfile.TemporaryDirectory(prefix="agentguard-") as scratch:
        folder = Path(scratch)
        write_new(folder, files)
        schema = write_schema(written, read_folder(folder, _LIMITS), named=named)
        write_new(folder, {FILE: schema})
        fitted = fit(open_workspace(folder), baselines, folder)
        write_new(folder, fitted.files)
        scenarios = scenarios_of(open_workspace(folder))
        shown = {SCENARIOS: scenarios} if scenarios else {}
        return Made(fitted, {**files, FILE: schema, **shown, **fitted.files})


def _editor_files() -> dict[str, str]:
    schema = package_files("agentguard").joinpath("analysis", "scenarios", _SCENARIO_SCHEMA).read_text("utf-8")
    return {
        f"{_EDITOR}/settings.json": json.dumps(_SETTINGS, indent=2) + "\n",
        f"{_EDITOR}/extensions.json": json.dumps(_EXTENSIONS, indent=2) + "\n",
        f"{_EDITOR}/{_SCENARIO_SCHEMA}": schema,
    }


def _readme(folder: Path, server: str, ready: Mapping[str, str], *, observe: bool) -> str:
    """Return what the team reads first."""
    name = shlex.quote(folder.absolute().name)
    lines = [
        "# Policies",
        "",
        "What the agents of this server may do. Cedar policies decide each call; what no policy permits is denied.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| `{file}` | {what} |" for file, what in _listed(ready, observe=observe)),
        "",
        "Run these from the folder above:",
        "",
        "```console",
        *(f"$ {printable(command)}" for command in _commands(name, server, observe=observe)),
        "```",
        "",
        "`check` says what is wrong and how to mend it. `test` judges the calls in `scenarios/`, and with `--mutate`",
        "tells what no scenario would notice. `schema` writes down what the server offers, again when that changes.",
    ]
    if observe:
        lines += [
            "",
            f"Nothing is denied while the server uses this folder, with `shadow=` on `{NEXT}/`. The evidence tells",
            f"what the policies in `{NEXT}/` would have decided. When they are right, move them here in its place.",
        ]
    return "\n".join(lines) + "\n"


def _listed(ready: Mapping[str, str], *, observe: bool) -> list[tuple[str, str]]:
    """Return the files that somebody works with, and what each is for."""
    if not observe:
        own = [(name, what) for name, what in _WHAT.items() if name != OBSERVED]
        return [*own[:2], *ready.items(), *own[2:]]
    own = [(name, _WHAT[name]) for name in (OBSERVED, SCENARIOS, FILE, _README, f"{_EDITOR}/")]
    coming = [(f"{NEXT}/{name}", what) for name, what in ready.items()]
    return [*own, (f"{NEXT}/", "the policies to come, each file as it will be here"), *coming]


def _commands(folder: str, server: str, *, observe: bool) -> list[str]:
    """Return what to run next, from the folder above."""
    folders = [folder, f"{folder}/{NEXT}"] if observe else [folder]
    return [
        *(f"agentguard check {one}" for one in folders),
        *(f"agentguard test {one} --mutate" for one in folders),
        *(
            f"agentguard schema --write {one} {server}"
            if server.startswith("-- ")
            else f"agentguard schema {server or 'SERVER'} --write {one}"
            for one in folders
        ),
    ]


def _tell(
    folder: Path,
    made: Mapping[str, str],
    written: WrittenSchema,
    server: str,
    ready: Mapping[str, str],
    *,
    observe: bool,
) -> None:
    for_whom = (
        f"server `{printable(written.server)}`" if server else "an example server of three tools, which is not yours"
    )
    listed = files_table(folder, _listed(ready, observe=observe))
    draw(f"wrote {len(made)} files for {for_whom}", listed, "")
    if observe:
        result("in the server, where its guard is made:")
        live, coming = (json.dumps(name, ensure_ascii=False) for name in (str(folder), os.path.join(folder, NEXT)))  # noqa: PTH118
        result(printable(f"  Guard({live}, shadow={coming}, …)"))
        result("")
    if not server:
        # The folder has to be another one: nothing is written over.
        result("to begin with your own server, in a folder that is not there yet:")
        result("  agentguard init FOLDER --server path/to/server.py")
        result("  agentguard init FOLDER -- COMMAND")
        result("")
    result("next:")
    for command in _commands(shlex.quote(str(folder)), server, observe=observe):
        result(f"  {printable(command)}")
