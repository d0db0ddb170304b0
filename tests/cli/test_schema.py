"""`agentguard schema`: what a server offers, shown, written down and compared."""

from __future__ import annotations

import logging
import resource
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from agentguard.analysis.workspace import open_workspace
from agentguard.cli.schema import Offer
from agentguard.policy.files.written import FILE, WrittenSchema, named_server
from tests.cli.commands import Ran, agentguard
from tests.cli.serving import FAST, LOW, RECORDS
from tests.world import write_policies

GUARDED: Final = '''
from pathlib import Path
from typing import Literal
from typing_extensions import TypedDict
from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from agentguard import Entity, Guard, UnsafeLocalIssuer

class Filters(TypedDict):
    since: int
    kinds: list[Literal["normal", "restricted"]]

class Facts(TypedDict):
    total: int

def facts(max_rows: int) -> Facts:
    return {"total": max_rows}

here = Path(__file__).parent
guard = Guard(here / "policies", issuer=UnsafeLocalIssuer(), audience="http://127.0.0.1/mcp", state=here / "state")
server = MCPServer("records")

@guard.entity("Record")
async def load(record_id: str) -> Entity:
    return Entity({"sensitivity": "normal"})

@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
@guard.tool(resource="Record::{record_id}")
def read(record_id: str) -> str:
    """Read one."""
    return record_id

@server.tool()
@guard.tool(facts=facts, exclude={"path"})
def export(max_rows: int, path: str, filters: Filters | None = None) -> int:
    """Export some."""
    return max_rows

@server.resource("notes://{day}")
@guard.resource
def notes(day: str) -> str:
    """Read notes."""
    return day

@server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False))
def bare(text: str) -> str:
    """Do something that nobody guards."""
    return text

guard.attach(server)
'''
SERVED: Final = "\n\nif __name__ == '__main__':\n    server.run('stdio')\n"
POLICIES: Final = '@id("reads") permit (principal, action == Action::"read", resource);'
TYPES: Final = "entity Record in [Tool] = { sensitivity: String };"
TABLE: Final = """\
offered         type, or what it acts on    what it is
read            Record::{record_id}         read-only
  record_id     String
export          itself                      not annotated: destructive, open-world
  max_rows      Long
  filters?      Record
    since       Long
    kinds       Set of normal | restricted
  path          policies do not see it
  facts.total   Long
resource notes  itself
  day           String
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with policies, and forget what was loaded from it."""
    here = tmp_path / "here"
    write_policies(here / "policies", POLICIES, types=TYPES)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    before = set(sys.modules)
    yield here
    for name in set(sys.modules) - before:
        if str(here) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def module(text: str = GUARDED) -> str:
    """Write a module that no other test has, and return its file."""
    file = f"server_{uuid.uuid4().hex}.py"
    Path(file).write_text(text)
    return file


def schema(*arguments: str, terminal: bool = False) -> Ran:
    """Run the command."""
    return agentguard("schema", *arguments, terminal=terminal)


def test_table_shows_what_policies_see(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Arguments with their types, facts, what is acted on and what the server says of each tool."""
    with caplog.at_level(logging.WARNING):
        ran = schema(module())

    assert (ran.status, ran.stdout) == (0, TABLE)
    assert "tool `bare` is not guarded, every call to it is denied: put @guard.tool below" in caplog.text
    # Nothing is kept of a guard that only shows what it would judge.
    assert not (place / "state").exists()


def test_person_is_told_how_to_write_it_down(place: Path) -> None:
    """With the folder that the guard has."""
    name = module()

    ran = schema(name, terminal=True)

    assert ran.status == 0
    assert f"agentguard schema {name} --write {place}/policies" in " ".join(ran.stderr.split())


def test_schema_as_json() -> None:
    """All that the file says, for a program."""
    said = schema(module(), "--json").json

    assert (said["server"], said["loaders"], said["claims"]) == ("records", ["Record"], {})
    read, export, notes = said["offers"][:3]
    assert read == {
        "kind": "tool",
        "name": "read",
        "action": "read",
        "groups": ["read-only", "tools/call"],
        "annotated": True,
        "acts_on": {"type": "Record", "template": "Record::{record_id}"},
        "arguments": [{"name": "record_id", "required": True, "type": "String"}],
        "facts": None,
        "unseen": [],
        "totals": [],
        "labels": [],
    }
    assert export["arguments"][1] == {
        "name": "filters",
        "required": False,
        "type": "Record",
        "members": [
            {"name": "since", "required": True, "type": "Long"},
            {
                "name": "kinds",
                "required": True,
                "type": "Set",
                "element": {"type": "String", "one_of": ["normal", "restricted"]},
            },
        ],
    }
    assert export["facts"] == [{"name": "total", "required": True, "type": "Long"}]
    assert (export["unseen"], export["annotated"]) == (["path"], False)
    assert (notes["kind"], notes["action"]) == ("resource", "resources/read/notes")
    assert notes["acts_on"] == {"type": "Resource", "template": None}


def test_what_a_tool_does_to_its_run_is_shown() -> None:
    """The totals that it adds to, the amounts among its facts, and what the run carries from then on."""
    text = (
        GUARDED.replace("total: int", 'total: Annotated[int, Spend("rows")]')
        .replace("Literal\n", "Annotated, Literal\n", 1)
        .replace("Guard, Unsafe", "Guard, Spend, Unsafe", 1)
        .replace('exclude={"path"}', 'exclude={"path"}, spends={"payments"}, labels={"untrusted", "bulk"}')
    )
    name = module(text)

    shown = schema(name).stdout
    assert "  facts.total     Long\n  adds to         payments, rows\n  labels the run  bulk, untrusted\n" in shown
    export = schema(name, "--json").json["offers"][1]
    assert (export["totals"], export["labels"]) == (["payments", "rows"], ["bulk", "untrusted"])
    assert export["facts"] == [{"name": "total", "required": True, "type": "Long", "spends": "rows"}]


def test_schema_is_written_whole_and_says_what_changed(place: Path) -> None:
    """The file keeps its mode, and no half of it is ever there."""
    file = place / "policies" / FILE
    first = schema(module(), "--write", "policies")
    assert open_workspace(place / "policies").stale == ()
    file.chmod(0o600)
    again = schema(module(), "--write", "policies")
    changed = schema(
        module(
            GUARDED.replace("def read(record_id: str)", "def fetch(record_id: str)")
            .replace("max_rows: int, path: str, filters", "max_rows: str, path: str, fields: str, filters")
            .replace("def facts(max_rows: int)", "def facts(max_rows: str)")
        ),
        "--write",
        "policies",
    )

    assert first.stdout == f"wrote policies/{FILE}\n"
    assert again.stdout == f"nothing changed in policies/{FILE}\n"
    assert changed.stdout == (
        f"wrote policies/{FILE}\n"
        "  added tool `fetch`\n"
        "  changed tool `export`: argument `fields` is new, argument `max_rows`\n"
        "  removed tool `read`\n"
    )
    assert (first.status, again.status, changed.status) == (0, 0, 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in (place / "policies").iterdir()) == [FILE, "policies.cedar", "types"]


def test_write_as_json(place: Path) -> None:
    """The file, whether it was written, and what changed."""
    first = schema(module(), "--write", "policies", "--json").json
    again = schema(module(), "--write", "policies", "--json").json

    assert first == {"file": str(place / "policies" / FILE), "written": True, "changes": []}
    assert again == {"file": str(place / "policies" / FILE), "written": False, "changes": []}


def test_file_names_the_server_as_it_was_typed(place: Path) -> None:
    """So whoever has to write it again knows how; a place on one machine would say nothing to others."""
    name, other = module(), module()

    schema(str(place / name), "--write", "policies")
    absolute = named_server((place / "policies" / FILE).read_text())
    schema(name, "--write", "policies")
    typed = named_server((place / "policies" / FILE).read_text())
    schema(other, "--write", "policies")

    assert (absolute, typed) == ("SERVER", name)
    assert named_server((place / "policies" / FILE).read_text()) == name
    assert schema(other, "--diff").status == 0


def test_file_that_could_not_be_read_is_replaced(place: Path) -> None:
    """What was wrong with it is told."""
    (place / "policies" / FILE).write_text("entity\n")

    ran = schema(module(), "--write", "policies")

    assert ran.stdout == (
        f"wrote policies/{FILE}\n"
        f"  what was there could not be read: {FILE}:2: wants a name, got the end of the file: mend it\n"
    )


def test_difference_is_a_finding(place: Path) -> None:
    """What changed, line by line and in words; and how to mend it."""
    schema(module(), "--write", "policies")
    same = schema(module(), "--diff")
    name = module(GUARDED.replace("(record_id: str)", "(record_id: str, page: int = 1)", 2))
    other = schema(name, "--diff")

    assert (same.status, same.stdout, same.stderr) == (0, "", "")
    assert other.status == 1
    assert f"--- policies/{FILE}\n+++ what the server offers now\n" in other.stdout
    assert (
        "-type readInput = { record_id: String };\n+type readInput = { record_id: String, page: Long };\n"
        in other.stdout
    )
    assert other.stderr == (
        "agentguard: changed tool `read`: argument `page` is new\n"
        f"agentguard: {FILE} is stale: run `agentguard schema {name} --write {place}/policies`\n"
    )


def test_difference_as_json(place: Path) -> None:
    """For a program that wants to know why."""
    ran = schema(module(), "--diff", "--json")

    assert ran.status == 1
    said = ran.json
    assert (said["file"], said["current"], said["changes"]) == (str(place / "policies" / FILE), False, [])
    assert said["diff"].startswith(f"--- policies/{FILE}\n+++ what the server offers now\n@@ -0,0 +1,")


def test_line_ends_and_tabs_of_a_checkout_are_no_difference(place: Path) -> None:
    """Git may have given the file other line ends; a tab in a comment is shown as blanks."""
    (place / "policies" / "types" / "records.cedarschema").write_text(f"{TYPES}\t// \x1b\n")
    schema(module(), "--write", "policies")
    file = place / "policies" / FILE
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))

    assert schema(module(), "--diff").status == 0

    file.write_text("// gone\n")
    assert (
        "+entity Record in [Tool] = { sensitivity: String };    // \N{REPLACEMENT CHARACTER}\n"
        in schema(module(), "--diff").stdout
    )


@pytest.mark.parametrize(
    "policies", ["permit (", '@id("a") permit (principal, action == Action::"gone", resource);', ""]
)
def test_policies_that_do_not_fit_are_no_obstacle(place: Path, policies: str) -> None:
    """The schema is what one needs to mend them."""
    (place / "policies" / "policies.cedar").write_text(policies)

    ran = schema(module(), "--write", "policies")

    assert (ran.status, ran.stdout) == (0, f"wrote policies/{FILE}\n")


def test_folder_of_the_guard_need_not_be_there(place: Path) -> None:
    """It is written for, before it is made."""
    (place / "policies").rename(place / "others")

    assert schema(module()).stdout == TABLE
    assert "+entity Record in [Tool];\n" in schema(module(), "--diff").stdout


def test_types_that_cannot_be_read_are(place: Path) -> None:
    """They are part of what is written."""
    (place / "policies" / "types" / "records.cedarschema").write_text("entity Tool;")

    ran = schema(module(), "--write", "policies")

    assert ran.status == 2
    assert "types/records.cedarschema:1: `Tool` is a type that the guard makes: rename this one" in ran.stderr


def test_types_that_do_not_fit_the_tools_are_refused(place: Path) -> None:
    """With the whole path of what to mend."""
    (place / "policies" / "types" / "records.cedarschema").write_text("entity Record;")

    ran = schema(module(), "--write", "policies")

    assert ran.status == 2
    assert ran.stderr.splitlines()[-1] == (
        "agentguard: policies/types/records.cedarschema:1: `Record` is what a tool acts on: declare it `in [Tool]`"
    )


@pytest.mark.parametrize("source", [RECORDS, FAST, LOW], ids=["MCPServer", "FastMCP", "low-level"])
def test_server_without_a_guard_is_read_as_it_would_be_wrapped(place: Path, source: str) -> None:
    """By module or as a program, and compiled to what `agentguard wrap` decides by."""
    file = module(source)

    shown = schema(file)
    written = schema(file, "--write", "policies")

    assert shown.status == written.status == 0
    assert "read_record    itself" in shown.stdout
    assert "record_id    String" in shown.stdout


def test_program_is_read_over_stdio(place: Path) -> None:
    """Its tools' JSON Schemas become Cedar types; nothing of ours is in its environment."""
    file = module(RECORDS + SERVED)

    ran = schema("--policies", "policies", "--json", "--", sys.executable, file)

    assert ran.status == 0
    assert ran.json["server"] == "records"
    assert {offer["action"] for offer in ran.json["offers"]} >= {"read_record", "delete_record", "prompts/get"}


def test_server_of_a_function_is_made(place: Path) -> None:
    """Many servers are made by one, and only then guarded."""
    lines = "".join(f"    {line}\n" for line in GUARDED.splitlines())
    file = module(f"def build():\n{lines}    return server\n")

    assert schema(f"{file}:build").stdout == TABLE


def test_guard_that_only_shows_does_nothing_else(place: Path) -> None:
    """It ships no evidence, watches no folder and reads no other policies, wherever these are."""
    options = 'forward="http://127.0.0.1:4318/v1/traces", watch=True, shadow=here / "gone", max_policy_age=60'

    ran = schema(module(GUARDED.replace('state=here / "state"', f'state=here / "state", {options}')))

    assert (ran.status, ran.stdout) == (0, TABLE)
    assert not (place / "state").exists()


def test_guard_that_is_attached_elsewhere_is_told() -> None:
    """What it guards cannot be known from the server alone."""
    text = GUARDED.replace("guard.attach(server)", 'if __name__ == "__main__":\n    guard.attach(server)')

    ran = schema(file := module(text))

    assert ran.status == 2
    assert ran.stderr == (
        f"agentguard: `{file}` makes a guard and does not attach it when it is loaded, so nobody knows what it guards: "
        'call guard.attach(server) above `if __name__ == "__main__":`, or name a function that returns the server\n'
    )


def test_other_server_beside_a_guarded_one_is_read_alone() -> None:
    """The guard is the other one's."""
    file = module(GUARDED + "\nother = MCPServer('other')\n")

    assert schema(f"{file}:other", "--json").json["server"] == "other"


def test_tool_that_is_guarded_wrongly_is_refused() -> None:
    """As the server itself would be."""
    text = GUARDED.replace('resource="Record::{record_id}"', 'resource="Record::{id}"')

    ran = schema(module(text))

    assert ran.status == 2
    assert "`Record::{id}` needs argument `id`, and the arguments are `record_id`: name one" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "`agentguard schema` wants a server, or a command after `--`, got neither: give one of them"),
        (
            ("a.py", "--", "a"),
            "`agentguard schema` wants a server, or a command after `--`, got both: give one of them",
        ),
        (("--",), "`agentguard schema` wants a server, or a command after `--`, got neither: give one of them"),
        (
            ("a.py", "--write", "policies", "--diff"),
            "--write names the folder to write into, got --diff too: leave one out",
        ),
        (
            ("a.py", "--write", "policies", "--policies", "policies"),
            "--write names the folder to write into, got --policies too: leave one out",
        ),
        (("a.py", "--write", "gone"), "a policy folder wants to be a folder, got `{place}/gone`: create it first"),
        (("a.py", "--policies", "gone"), "a policy folder wants to be a folder, got `{place}/gone`: create it first"),
    ],
)
def test_command_that_cannot_be_meant_is_refused(place: Path, arguments: tuple[str, ...], said: str) -> None:
    """Before anything is loaded."""
    ran = schema(*arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == f"agentguard: {said.format(place=place)}\n"


def test_difference_wants_a_folder() -> None:
    """A server without a guard has none."""
    ran = schema(module(RECORDS), "--diff")

    assert ran.status == 2
    assert "--diff wants the policy folder that agentguard.cedarschema is in, got none: name it" in ran.stderr


def test_file_that_could_not_be_written_whole_is_not_there(place: Path) -> None:
    """What was there stays, and nothing half-written lies beside it."""
    (place / "policies" / FILE).write_text("// before\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = module(RECORDS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        ran = schema(file, "--write", "policies")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert ran.status == 2
    assert "cannot be written, File too large: make room, or write elsewhere" in ran.stderr
    assert sorted(path.name for path in (place / "policies").iterdir()) == [FILE, "policies.cedar", "types"]
    assert (place / "policies" / FILE).read_text() == "// before\n"


def test_token_in_the_environment_is_not_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that looks for it finds none."""
    monkeypatch.setenv("AGENTGUARD_TOKEN", "secret")
    file = module("import os\nassert 'AGENTGUARD_TOKEN' not in os.environ\n" + RECORDS)

    assert schema(file).status == 0


def test_file_that_is_no_text_is_told(place: Path) -> None:
    """With its whole path; nobody's file is replaced unseen."""
    (place / "policies" / FILE).write_bytes(b"\xff")

    ran = schema(module(), "--write", "policies")

    assert ran.status == 2
    assert ran.stderr == f"agentguard: policies/{FILE}:1: is not UTF-8, from byte 0 on: save it as UTF-8\n"


KEEPING = """
from mcp.server import MCPServer
from agentguard import Guard, UnsafeLocalIssuer, open_state

local = UnsafeLocalIssuer()
issuer = local.issuer()
server = MCPServer("records")
guard = Guard("policies", issuer=local, state=open_state("state", store=local.store))
other = Guard("policies", issuer="https://issuer.example", audience="https://a.example/mcp", state=open_state("other"))

@server.tool()
@guard.tool
def read(record_id: str) -> str:
    return ""

guard.attach(server)
other.attach(MCPServer("other"))
"""


def test_nothing_is_left_of_what_the_server_keeps(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no key, no store, no evidence and no thread, whatever the server opens itself."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "home"))
    running = set(threading.enumerate())
    before = sorted(path.name for path in place.iterdir())
    file = module(KEEPING)

    ran = schema(file, "--json")

    assert [offer["name"] for offer in ran.json["offers"]][:1] == ["read"]
    assert set(threading.enumerate()) <= running
    assert sorted(path.name for path in place.iterdir() if path.name != "__pycache__") == sorted([*before, file])


def test_nobody_waits_for_threads_of_the_server() -> None:
    """One that never ends would keep the command from ending; its status is what it was."""
    file = module(f"import threading\n{KEEPING}\nthreading.Thread(target=threading.Event().wait).start()\n")

    ran = subprocess.run(
        [Path(sys.executable).with_name("agentguard"), "schema", file, "--diff"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stdout.partition("\n")[0]) == (1, f"--- policies/{FILE}"), ran.stderr


def test_schema_is_written_into_the_part_of_the_server(place: Path) -> None:
    """A folder for several servers has no schema of its own."""
    (place / "all" / "servers").mkdir(parents=True)
    (place / "policies").rename(place / "all" / "servers" / "mail")
    file = module()

    assert schema(file, "--write", "all").stderr.endswith(
        "policy folder `all` is for several servers, and has no servers/records for this one: create it first\n"
    )

    (place / "all" / "servers" / "records").mkdir()
    ran = schema(file, "--write", "all")

    assert (ran.status, ran.stdout) == (0, f"wrote all/servers/records/{FILE}\n")


def test_name_of_a_server_leads_to_no_other_folder(place: Path) -> None:
    """Whoever names the server does not choose what is written over."""
    (place / "policies" / "servers").mkdir()

    for name in ("../../here", "..", ""):
        ran = schema(module(GUARDED.replace('"records"', f'"{name}"', 1)), "--write", "policies")

        assert (ran.status, ran.stdout) == (2, ""), name
        assert "is for several servers" in ran.stderr


def test_command_that_writes_it_again_is_told_for_a_program_too() -> None:
    """Options come before the two dashes, after which everything is the program's."""
    written = WrittenSchema(server="shop", offers=(), loaders=frozenset(), claims={})

    offers = [Offer(written=written, folder=None, again=again) for again in ("-- shop --all", "shop.py")]

    assert [offer.command("my policies") for offer in offers] == [
        "agentguard schema --write 'my policies' -- shop --all",
        "agentguard schema shop.py --write 'my policies'",
    ]
