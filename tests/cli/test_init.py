"""`agentguard init`: what it makes works, and nothing is written over."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel

from agentguard import Issuer, UnsafeMemoryState
from agentguard.analysis.checking.check import check
from agentguard.analysis.scenarios.coverage import coverage, survivors
from agentguard.analysis.scenarios.samples import flow
from agentguard.analysis.scenarios.starting import policy_files
from agentguard.analysis.scenarios.suites import open_suites, run
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.cli.init import folder_files
from agentguard.cli.starter import write_new
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, Shape, record_of
from agentguard.policy.grants import METHODS
from agentguard.policy.schemas.offered import Offered, WrittenSchema
from agentguard.policy.schemas.schema import GuardedTool, credential_tool, method_tool
from agentguard.request import ResourceTemplate
from agentguard.testing import acting_as
from tests.cli.commands import Ran, agentguard
from tests.cli.serving import RECORDS
from tests.world import AUDIENCE, ISSUER, World, make_guard

FILES: Final = [
    ".vscode/extensions.json",
    ".vscode/scenarios.schema.json",
    ".vscode/settings.json",
    "10-permits.cedar",
    "20-guardrails.cedar",
    "README.md",
    "agentguard.cedarschema",
    "cedarentities.json",
    "scenarios/first.test.yaml",
]
GUARDED: Final = """
from pathlib import Path

from mcp.server import MCPServer

from agentguard import Entity, EntityUid, Guard, UnsafeMemoryState

guard = Guard(
    Path(__file__).parent / "own",
    issuer="https://issuer.example",
    audience="https://records.example/mcp",
    state=UnsafeMemoryState(),
)
server = MCPServer("clinic", **guard.http_auth())


@guard.entity("Record")
async def load(record_id: str) -> Entity:
    return Entity({"sensitivity": "normal", "ward": EntityUid("Ward", "w1")})


@guard.entity("Ward")
async def load_ward(ward_id: str) -> Entity:
    return Entity({"floor": 1})


@server.tool()
@guard.tool(resource="Record::{record_id}")
async def read(record_id: str) -> str:
    return record_id


guard.attach(server)
"""
TYPES: Final = """
entity Ward = { floor: Long };
entity Record in [Tool] = { sensitivity: String, ward: Ward };
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget what was loaded from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    yield tmp_path
    sys.modules.pop("server_of_init", None)


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def works(folder: Path) -> Workspace:
    """Return a folder that `check` and `test` have nothing against."""
    assert not [finding for finding in check(folder, Limits()).findings if finding.fails]
    workspace = open_workspace(folder)
    results = [result for suite in open_suites(workspace) for result in run(workspace, suite)]
    assert results
    assert all(result.passed for result in results)
    assert coverage(results, workspace.policies).findings() == []
    return workspace


def test_the_folder_that_it_makes_works(here: Path) -> None:
    """Nothing is found, every policy is covered, and every mutant noticed."""
    ran = agentguard("init")

    assert (ran.status, ran.stderr) == (0, "")
    assert files(here / "policies") == FILES
    workspace = works(here / "policies")
    assert workspace.written.server == "example"
    assert survivors(workspace, open_suites(workspace)).findings() == []
    assert ran.stdout.startswith(
        "wrote 9 files for an example server of three tools, which is not yours\n  policies/10-permits.cedar"
    )
    assert "  policies/.vscode/ " in ran.stdout
    assert "\n  agentguard init FOLDER --server path/to/server.py\n" in ran.stdout
    assert ran.stdout.endswith(
        "next:\n"
        "  agentguard check policies\n"
        "  agentguard test policies --mutate\n"
        "  agentguard schema SERVER --write policies\n"
    )
    assert agentguard("fmt", "--check", "policies").status == 0


def test_an_editor_finds_everything_from_the_folder(here: Path) -> None:
    """The one schema of the policies, and the schema of the scenarios."""
    agentguard("init", "rules")

    settings = json.loads((here / "rules/.vscode/settings.json").read_text())

    assert settings["cedar.schemaFile"] in files(here / "rules")
    assert [name for name in files(here / "rules") if name.endswith(".cedarschema")] == ["agentguard.cedarschema"]
    assert all((here / "rules" / name).is_file() for name in settings["yaml.schemas"])
    extensions = json.loads((here / "rules/.vscode/extensions.json").read_text())
    assert settings["[cedar]"]["editor.defaultFormatter"] in extensions["recommendations"]


def test_the_commands_of_its_readme_run(here: Path) -> None:
    """As they stand there, from the folder above."""
    (here / "server_of_init.py").write_text(RECORDS)
    agentguard("init", "a b", "--server", "server_of_init.py")

    readme = (here / "a b/README.md").read_text()

    commands = [line.removeprefix("$ agentguard ") for line in readme.splitlines() if line.startswith("$ ")]
    assert commands == [
        "check 'a b'",
        "test 'a b' --mutate",
        "schema server_of_init.py --write 'a b'",
    ]
    for command in commands:
        assert agentguard(*shlex.split(command)).status == 0


def test_a_server_brings_its_own_tools(here: Path) -> None:
    """Those that may change something are named, so that a later one is not permitted unseen."""
    (here / "server_of_init.py").write_text(RECORDS)

    ran = agentguard("init", "--server", "server_of_init.py")

    assert ran.stdout.startswith("wrote 9 files for server `records`\n")
    workspace = works(here / "policies")
    assert workspace.written.server == "records"
    permits = (here / "policies/10-permits.cedar").read_text()
    assert 'action in Action::"read-only"' in permits
    assert 'action == Action::"delete_record"' in permits
    assert "@silence_unannotated_tool" in permits
    assert "@silence_unannotated_tool" in (here / "policies/20-guardrails.cedar").read_text()


def test_a_guarded_server_brings_its_types_and_what_its_loaders_would_say(here: Path) -> None:
    """Entities that refer to others, too."""
    (here / "own/types").mkdir(parents=True)
    (here / "own/types/clinic.cedarschema").write_text(TYPES)
    (here / "server_of_init.py").write_text(GUARDED)

    ran = agentguard("init", "--server", "server_of_init.py", "--json")

    assert ran.json == {
        "folder": str(here / "policies"),
        "files": sorted([*FILES, "types/clinic.cedarschema"]),
        "server": "clinic",
        "observe": False,
        "baselines": [],
        "left_out": {},
        "untested": [],
    }
    works(here / "policies")
    scenarios = (here / "policies/scenarios/first.test.yaml").read_text()
    assert "  Record::example: { sensitivity: example, ward: Ward::example }\n" in scenarios
    assert "  Ward::example: { floor: 1 }\n" in scenarios


def test_to_observe_everything_is_permitted_and_the_policies_wait(here: Path) -> None:
    """Both folders are right by themselves."""
    ran = agentguard("init", "--observe")

    assert [name for name in files(here / "policies") if not name.startswith((".vscode", "next"))] == [
        "10-observe.cedar",
        "README.md",
        "agentguard.cedarschema",
        "scenarios/first.test.yaml",
    ]
    assert files(here / "policies/next") == [name for name in FILES if not name.startswith((".vscode", "README"))]
    assert '  Guard("policies", shadow="policies/next", …)\n' in ran.stdout
    assert ran.stdout.count("policies/next") > 3
    assert list(works(here / "policies").policies.policies) == ["observe-everything"]
    works(here / "policies/next")
    assert "`shadow=` on `next/`" in (here / "policies/README.md").read_text()


@pytest.mark.parametrize(
    "name", ["own.cedar", "OWN.CEDAR", "a.cedarschema", "cedarentities.json", "README.md", ".vscode", "next", "types"]
)
def test_a_folder_that_has_something_of_it_is_left_alone(name: str, here: Path) -> None:
    """Whatever is there may be somebody's, or may decide."""
    (here / "policies").mkdir()
    (here / "policies" / name).mkdir() if "." not in name[1:] else (here / "policies" / name).write_text("mine")

    ran = agentguard("init")

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"agentguard: `{here}/policies` has `{name}`, and nothing is written over: name a new folder\n"
    )
    assert [path.name for path in (here / "policies").iterdir()] == [name]


def test_a_part_of_a_folder_for_several_servers_is_not_begun_as_one_of_its_own(here: Path) -> None:
    """What it would hold may be in common already; nor does the top become a folder for one."""
    (here / "policies" / "common").mkdir(parents=True)

    part = agentguard("init", "policies/servers/files")
    top = agentguard("init", "policies")

    assert (part.status, top.status) == (2, 2)
    assert f"`{here}/policies/servers/files` is one server's part of `{here}/policies`" in part.stderr
    assert "has `common`, and nothing is written over" in top.stderr
    assert [entry.name for entry in (here / "policies").iterdir()] == ["common"]


def test_a_folder_that_holds_something_else_is_used(here: Path) -> None:
    """A repository has files that are no policies."""
    (here / "LICENSE").write_text("mine")

    assert agentguard("init", ".").status == 0
    assert files(here) == sorted([*FILES, "LICENSE"])
    assert f"agentguard check {here.name}\n" in (here / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("policies", "--server", "a.py", "--", "b"),
            "`agentguard init` wants one server, got --server and a command after `--`: leave one out",
        ),
        (("file",), "`{here}/file` cannot be looked into, Not a directory: name a folder that is yours"),
        (
            ("file/policies",),
            "`{here}/file/policies` cannot be looked into, Not a directory: name a folder that is yours",
        ),
        (("policies", "--", "false"), "`false` did not answer as MCP wants it"),
        (("policies", "--server", "no.py"), "a server wants its file, got `{here}/no.py`, no such file: "),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: tuple[str, ...], told: str, here: Path) -> None:
    """And nothing is made."""
    (here / "file").write_text("mine")

    ran = agentguard("init", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"agentguard: {told.format(here=here)}")
    assert ran.stderr.count("\n") == 1
    assert files(here) == ["file"]


def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    """In one line with the fix."""
    ran = agentguard("init", "/proc/agentguard/policies")

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr.startswith("agentguard: `/proc/agentguard/policies` cannot be written to: No such file or dir")


def test_half_of_a_folder_is_not_left(here: Path) -> None:
    """What is there after a failure is what was there before."""
    (here / "policies").mkdir()
    (here / "policies" / "scenarios").symlink_to("/proc/nowhere")

    with pytest.raises(SystemExit):
        sys.exit(agentguard("init").status)
    (here / "policies" / "scenarios").unlink()

    assert files(here) == []


class Kind(StrEnum):
    """Values that are few."""

    ODD = "it's odd: #1\x7f"
    EVEN = "even"


class Inner(BaseModel):
    """A record in an argument."""

    note: str
    amount: Decimal
    hidden: str | None = None


EVERY: Final = record_of(
    {
        "text": Field(str),
        "number": Field(int),
        "flag": Field(bool),
        "amount": Field(Decimal),
        "when": Field(datetime),
        "long": Field(timedelta),
        "address": Field(IPv4Address),
        "kind": Field(Kind),
        "kinds": Field(list[Kind]),
        "inner": Field(Inner),
        "inners": Field(list[Inner]),
        "odd name: {": Field(str),
    },
    where="every",
)
NOTHING: Final = record_of({}, where="nothing")
ID: Final = record_of({"id": Field(str)}, where="id")
IDS: Final = record_of({"ids": Field(list[str])}, where="ids")


def offered(name: str, *groups: str, input_: Shape = NOTHING, template: str = "", **facts: Shape) -> Offered:
    """Return a tool that a server offers."""
    resource = ResourceTemplate.parse(template) if template else None
    return Offered(
        tool=GuardedTool(
            name=name,
            server="odd",
            input=input_,
            groups=frozenset(("tools/call", *groups)),
            resource_type=None if resource is None else resource.type,
            unseen=("hidden",) if "hidden" in template else (),
            facts=facts.get("facts"),
        ),
        resource=resource,
    )


SERVERS: Final = {
    "reads alone": [offered("read", "read-only", "open-world")],
    "changes alone": [offered("add")],
    "destroys alone": [offered("purge", "destructive", "open-world")],
    "no tool": [],
    "every type": [offered("every", "read-only", input_=EVERY, facts=EVERY)],
    "resources": [
        offered("one", "read-only", input_=ID, template="Thing::{id}"),
        offered("many", input_=IDS, template="Thing::{ids[*]}"),
        offered("unseen", "destructive", template="Thing::{hidden}"),
        offered("unseen_ones", "destructive", template="Thing::{hidden[*]}"),
        offered("loaded", "destructive", input_=ID, template="Loaded::{id}"),
    ],
    "credentials": [
        offered("look", "read-only", "open-world"),
        offered("pay", "destructive", "open-world"),
        Offered(
            tool=credential_tool("odd", ["crm", 'ba"nk: #1', "ba nk: #1"]),
            resource=ResourceTemplate.parse("Credential::{credential}"),
        ),
    ],
    "callers": [offered("look", "read-only"), offered("add"), offered("purge", "destructive")],
    "odd names": [offered('a"b\\c: #{}', "read-only"), offered("ünïcode - x", input_=EVERY), offered("line\nbreak")],
}


# What loaders know, and how: of what is acted on, and of who calls.
LOADED: Final = {
    "resources": (frozenset({"Loaded"}), "entity Loaded in [Tool] = { every: Set<Long>, of: Set<Loaded> };"),
    "callers": (frozenset({"Agent", "User", "Task"}), "entity User = { level: Long }; entity Task = { of: User };"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_whatever_a_server_offers_the_folder_fits_it(name: str, here: Path) -> None:
    """Each policy is covered, and each change of one is noticed."""
    methods = [Offered(tool=method_tool(method, "odd")) for method in METHODS]
    loaders, types = LOADED.get(name, (frozenset[str](), ""))
    written = WrittenSchema(server="odd", offers=(*SERVERS[name], *methods), loaders=loaders)

    for observe in (False, True):
        made = folder_files(written, {"types/a.cedarschema": types} if types else {}, observe=observe).files
        write_new(here / str(observe), made)

    for folder in (here / "False", here / "True", here / "True/next"):
        workspace = works(folder)
        if folder.name == "False":
            assert survivors(workspace, open_suites(workspace)).findings() == []


def test_of_very_many_tools_nobody_reads_a_list() -> None:
    """And the list would pass the bounds of one policy."""
    tools = tuple(offered(f"tool_{number}") for number in range(61))
    method = Offered(tool=method_tool("resources/read", "odd"))

    named, all_of_them = (
        policy_files(WrittenSchema(server="odd", offers=(*some, method)))["10-permits.cedar"]
        for some in (tools[1:], tools)
    )

    assert 'Action::"tool_60"]' in named
    assert 'action in Action::"tools/call",' in all_of_them
    assert "too many for a list" in all_of_them


def test_what_cannot_be_called_with_samples_has_no_case(here: Path) -> None:
    """An attribute of that name cannot be said in a file of scenarios, where it says what an entity is in."""
    tools = (
        offered("one", input_=ID, template="Thing::{id}"),
        offered("two", input_=ID),
        offered("three", "read-only"),
    )
    types = {"types/a.cedarschema": 'entity Thing in [Tool] = { "in": String };'}
    written = WrittenSchema(server="odd", offers=tools, loaders=frozenset({"Thing"}))

    scenarios = folder_files(written, types, observe=False).files["scenarios/first.test.yaml"]

    assert "call: two" in scenarios
    assert "call: one" not in scenarios
    # A file without a case is a mistake, and no call has one where nobody can say what its task is.
    none = replace(
        written, offers=(*tools, Offered(tool=method_tool("resources/read", "odd"))), loaders=frozenset({"Task"})
    )
    types = {"types/a.cedarschema": 'entity Thing in [Tool]; entity Task = { "in": String };'}
    assert "scenarios/first.test.yaml" not in folder_files(none, types, observe=False).files


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-text_1.0", "plain-text_1.0"),
        ("-1.5", "-1.5"),
        ("A::B::c", "A::B::c"),
        ("", '""'),
        ("a: b", '"a: b"'),
        ('q"', '"q\\""'),
        ([], "[]"),
        ({}, "{}"),
        (["a", {"b c": ["d"]}], '[a, { "b c": [d] }]'),
    ],
)
def test_a_sample_is_written_on_one_line(value: object, written: str) -> None:
    """Quoted as soon as it could be taken for something else."""
    assert flow(value) == written  # type: ignore[arg-type]


def test_nothing_that_steers_a_terminal_is_told(here: Path) -> None:
    """Names come from a server, and from a command line."""
    ran: Ran = agentguard("init", "a\x1b[31m")

    assert ran.status == 0
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("name", ["a \U0001f512 é", 'q"', "back\\slash"])
def test_a_guard_finds_the_folders_that_it_is_told(name: str, here: Path) -> None:
    """The line is Python: what stands in its quotes is the very name."""
    ran = agentguard("init", name, "--observe")

    (line,) = (line for line in ran.stdout.splitlines() if line.startswith("  Guard("))
    given, shadow = ast.literal_eval(line.replace("  Guard(", "(").replace("shadow=", "").replace(", …", ""))

    assert (given, shadow) == (name, f"{name}/next")


def test_a_guard_that_observes_stops_nothing_and_tells_what_the_policies_to_come_would_have(here: Path) -> None:
    """The folder that it makes, under a real guard with a shadow: evidence has each difference, and no other."""
    agentguard("init", "--observe")
    world = observed(here / "policies")

    async def call() -> list[bool]:
        answers = []
        async with Client(world.server) as client:
            for agent in ("example-agent", "other-agent", "suspended-agent", "stranger"):
                with acting_as(agent):
                    answers.append((await client.call_tool("read_note", {"note_id": "n"})).is_error)
        return answers

    assert anyio.run(call) == [False] * 4
    assert [record["agentguard.decision.effect"] for record in world.records()] == ["allow"] * 4
    assert [
        (record["agentguard.shadow.reason"], record.get("agentguard.shadow.policy.ids"))
        for record in world.records("shadow")
    ] == [("no_permit", None), ("policy", ["suspended-agents-stop"]), ("missing_entity", None)]


def observed(folder: Path) -> World:
    """Return a server with one of the example's tools, guarded as `init --observe` says."""
    state, issuer = UnsafeMemoryState(), Issuer(issuer=ISSUER, audience=AUDIENCE)
    guard, exporter = make_guard(folder, issuer, state=state, shadow=folder / "next")
    server = MCPServer("example")
    for name in ("read_note", "add_note", "delete_note"):
        server.tool(name=name, annotations=ToolAnnotations(read_only_hint=name == "read_note"))(guard.tool()(note))
    guard.attach(server)
    return World(guard, server, state, exporter, issuer, folder)


def note(note_id: str = "", text: str = "") -> str:
    """Do something to a note."""
    return note_id + text
