import json
import shutil
from pathlib import Path

import pytest

from agentguard.analysis.workspace import open_workspace
from tests.cli.commands import agentguard

EXAMPLE = Path(__file__).parents[2] / "examples" / "records"
ARGUMENT = """
@id("small") @owner("a@example.com")
forbid (principal, action == Action::"export_records", resource)
when { context.input.maxrows > 500 };
"""
VALUE = """
@id("csv") @owner("a@example.com")
forbid (principal, action == Action::"export_records", resource)
when { context.input.format == "cvs" };
"""


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the example's policy folder, to be spoilt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    shutil.copytree(EXAMPLE / "policies", tmp_path / "policies")
    (tmp_path / ".git").mkdir()
    return tmp_path / "policies"


def test_good_folder_is_told_with_its_version(policies: Path) -> None:
    """The version is the one that a guard will record."""
    ran = agentguard("check", "policies")

    version = open_workspace(policies).policies.version
    assert ran.status == 0
    assert ran.stdout.splitlines() == ["14 policies, 5 tools: no errors", f"policy version {version}"]
    assert ran.stderr == ""


def test_everything_is_told_at_once(policies: Path) -> None:
    """A text that is no policy, an argument that no tool has, and a value that is never so: none hides another."""
    (policies / "30.cedar").write_text(f"{ARGUMENT}{VALUE}permit (principal action, resource);\n")

    ran = agentguard("check", "policies")

    assert ran.status == 1
    assert ran.stdout.splitlines() == [
        (
            "policies/30.cedar:4:22 error[unknown-argument]: "
            "`export_records` has no argument `maxrows`: did you mean `max_rows`?"
        ),
        "    4 │ when { context.input.maxrows > 500 };",
        "      │                      ^^^^^^^",
        (
            "policies/30.cedar:8:32 error[unknown-enum-value]: "
            '`context.input.format` is "csv" or "json", never `cvs`: did you mean `csv`?'
        ),
        '    8 │ when { context.input.format == "cvs" };',
        "      │                                ^^^^^",
        (
            "policies/30.cedar:9:19 error[syntax]: "
            "`action` cannot stand here: look for a missing comma, bracket or operator before it"
        ),
        "    9 │ permit (principal action, resource);",
        "      │                   ^^^^^^",
        "16 policies, 5 tools: 3 errors",
    ]


def test_warning_fails_and_says_no_version_less(policies: Path) -> None:
    """A guard would load the folder, and somebody has to look at it all the same."""
    (policies / "30.cedar").write_text(VALUE.replace("forbid", "permit"))

    ran = agentguard("check", "policies", "--json")

    assert ran.status == 1
    assert ran.json["counts"] == {"error": 0, "warning": 1, "note": 0}
    assert ran.json["policy_versions"] == {"policies": open_workspace(policies).policies.version}
    assert [finding["policy"] for finding in ran.json["findings"]] == ["csv"]


def test_folder_that_no_guard_would_load_has_no_version(policies: Path) -> None:
    """And a finding of the loader names the policy that it is about."""
    (policies / "30.cedar").write_text(ARGUMENT)

    ran = agentguard("check", "policies", "--json")

    assert ran.status == 1
    assert ran.json["policy_versions"] == {}
    assert [(found["name"], found["policy"]) for found in ran.json["findings"]] == [("unknown-argument", "small")]


def test_without_a_schema_the_text_is_checked_all_the_same(policies: Path) -> None:
    """And it says how to write one."""
    (policies / "agentguard.cedarschema").unlink()
    (policies / "30.cedar").write_text(f"{ARGUMENT}permit (principal, action, resource);\n")

    ran = agentguard("check", "policies")

    assert ran.status == 1
    assert ran.stdout.splitlines() == [
        'policies/30.cedar:5:1 error[missing-id]: this policy has no @id: write @id("its-name") above it',
        "    5 │ permit (principal, action, resource);",
        "      │ ^^^^^^",
        (
            "policies/agentguard.cedarschema error[no-schema]: is not there, so nothing says what the server offers, "
            "and whether the policies fit it: write it with `agentguard schema SERVER --write policies`"
        ),
        "15 policies, 0 tools: 2 errors",
    ]


def test_schema_that_cannot_be_read_is_told(policies: Path) -> None:
    """The guard never reads it, but nothing can be checked against it."""
    (policies / "agentguard.cedarschema").write_text("entity A;\n#\n")

    ran = agentguard("check", "policies", "--json")

    assert ran.status == 1
    assert [(found["file"], found["line"]) for found in ran.json["findings"]] == [("agentguard.cedarschema", 2)]


def test_entities_that_are_wrong_bring_no_other_findings(policies: Path) -> None:
    """Every policy that asks for one of them would be found wrong too."""
    (policies / "cedarentities.json").write_text("[,]")

    ran = agentguard("check", "policies", "--json")

    assert [found["file"] for found in ran.json["findings"]] == ["cedarentities.json"]


def test_entities_that_do_not_fit_are_told(policies: Path) -> None:
    """Then nothing more is looked for: what the policies can meet is not known."""
    known = json.loads((policies / "cedarentities.json").read_text())
    known.append({"uid": {"type": "Usr", "id": "x"}, "attrs": {}, "parents": []})
    (policies / "cedarentities.json").write_text(json.dumps(known))
    (policies / "30.cedar").write_text(VALUE)

    ran = agentguard("check", "policies", "--json")

    assert [found["name"] for found in ran.json["findings"]] == ["unknown-type"]


def test_policies_of_which_none_fits_are_told(policies: Path) -> None:
    """There is nothing left to look at more closely."""
    for file in policies.glob("*.cedar"):
        file.unlink()
    (policies / "30.cedar").write_text(ARGUMENT)

    ran = agentguard("check", "policies", "--json")

    assert [found["name"] for found in ran.json["findings"]] == ["unknown-argument"]


def test_schema_and_types_that_do_not_fit_are_told(policies: Path) -> None:
    """Somebody changed a type, and what the tools act on is not in them any more."""
    for file in (policies / "types").iterdir():
        file.write_text(file.read_text().replace(" in [Tool]", ""))

    ran = agentguard("check", "policies", "--json")

    assert ran.status == 1
    assert [found["name"] for found in ran.json["findings"]] == ["undeclared-parent"]


def test_loader_that_fits_no_tool_is_told_at_the_schema(policies: Path) -> None:
    """What is wrong with the written schema as a whole concerns its file."""
    schema = policies / "agentguard.cedarschema"
    schema.write_text(schema.read_text().replace('@loaders("', '@loaders("Agentt, '))

    ran = agentguard("check", "policies", "--json")

    assert ran.status == 1
    assert [(found["file"], found["name"]) for found in ran.json["findings"]] == [
        ("agentguard.cedarschema", "bad-schema")
    ]


def test_folder_is_the_project_s_where_none_is_named(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From every folder below, and findings are named from where one stands."""
    (policies.parent / "agentguard.toml").write_text('policies = "policies"')
    (policies.parent / "deep").mkdir()
    monkeypatch.chdir(policies.parent / "deep")
    (policies / "30.cedar").write_text(VALUE)

    ran = agentguard("check")

    assert ran.status == 1
    assert ran.stdout.startswith(f"{policies}/30.cedar:4:32 error")


def test_several_folders_are_checked_in_one_go(policies: Path) -> None:
    """Each has its own version, and each finding the folder that it is in."""
    shutil.copytree(policies, policies.parent / "other")
    (policies / "30.cedar").write_text(ARGUMENT)

    ran = agentguard("check", "policies", "other")

    lines = ran.stdout.splitlines()
    assert ran.status == 1
    assert lines[0].startswith("policies/30.cedar:4:22 error[unknown-argument]")
    assert lines[2].endswith("^^^^^^^")
    assert lines[3] == "29 policies, 10 tools: 1 error"
    assert lines[4] == f"policy version {open_workspace(policies.parent / 'other').policies.version} of other"


def test_pipeline_gets_a_test_for_each_policy(policies: Path) -> None:
    """JUnit counts what is good, too."""
    (policies / "30.cedar").write_text(ARGUMENT)

    ran = agentguard("check", "--format", "junit")

    assert ran.status == 1
    assert '<testsuites tests="15" failures="1" errors="0">' in ran.stdout
    assert '<testcase classname="policies/10-permits.cedar" name="billing-reads" />' in ran.stdout


def test_folder_that_is_not_there_is_a_mistake(policies: Path) -> None:
    """Nothing was checked, so it is neither good nor bad."""
    ran = agentguard("check", "polices")

    assert ran.status == 2
    assert ran.stdout == ""
    assert ran.stderr == (
        f"agentguard: policy folder `{Path.cwd()}/polices` does not exist: create it, or pass the path it has\n"
    )


def test_folder_without_policies_is_a_finding(policies: Path) -> None:
    """It could be read, and a guard would refuse it."""
    for file in policies.glob("*.cedar"):
        file.unlink()

    ran = agentguard("check", "policies")

    assert ran.status == 1
    assert "error[no-policies]" in ran.stdout


SERVER = '''
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("records")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read(record: str) -> str:
    """Read."""
    return record

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def search(text: str) -> str:
    """Search."""
    return text
'''


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a small server, with policies and a schema that is current."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.cedar").write_text(
        '@id("a") @owner("a@example.com") permit (principal, action in Action::"read-only", resource);'
    )
    (tmp_path / "server.py").write_text(SERVER)
    assert agentguard("schema", "server.py", "--write", "policies").status == 0
    return tmp_path


def test_schema_is_compared_with_the_server_that_is_named(served: Path) -> None:
    """What came, went and changed is told, and policies are checked against what there is now."""
    assert agentguard("check", "policies", "--server", "server.py").status == 0
    changed = SERVER.replace("def read(record", "def open(record").replace("text: str", "text: int")
    (served / "server.py").write_text(changed)
    (served / "policies" / "b.cedar").write_text(
        '@id("b") @owner("a@example.com") permit (principal, action == Action::"read", resource);'
    )

    ran = agentguard("check", "policies", "--server", "server.py", "--json")

    assert ran.status == 1
    told = {(found["name"], found["what"].partition(": ")[0]) for found in ran.json["findings"]}
    assert told == {
        ("stale-schema", "added tool `open`"),
        ("stale-schema", "changed tool `search`"),
        ("stale-schema", "removed tool `read`"),
        ("unknown-action", "there is no action `read`"),
    }


def test_server_serves_where_no_schema_was_written(served: Path) -> None:
    """The schema is missed, and the policies are checked all the same."""
    (served / "policies" / "agentguard.cedarschema").unlink()

    ran = agentguard("check", "policies", "--server", "server.py", "--json")

    assert ran.status == 1
    assert [found["name"] for found in ran.json["findings"]] == ["no-schema"]
    assert ran.json["summary"].startswith("1 policy, 2 tools: ")


def test_folder_for_several_servers_is_checked_for_each(policies: Path) -> None:
    """What they have in common is told once, and a folder for several has no schema of its own to miss."""
    (policies / "servers").mkdir()
    (policies / "common").mkdir()
    for name in ("mail", "records"):
        shutil.copytree(EXAMPLE / "policies", policies / "servers" / name)
    for file in [path for path in policies.iterdir() if path.name not in {"servers", "common"}]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    (policies / "common" / "base.cedar").write_text(
        '@id("base") forbid (principal, action in Action::"destructive", resource)\n'
        'when { principal.agent == Agent::"intake-agent" };\n'
    )

    ran = agentguard("check", "policies", "--json")

    assert [Path(found["file"]).relative_to(policies).as_posix() for found in ran.json["findings"]] == [
        "common/base.cedar" for _ in ran.json["findings"]
    ]
    assert len({(found["name"], found["line"]) for found in ran.json["findings"]}) == len(ran.json["findings"]) > 0
    assert [*ran.json["policy_versions"]] == ["policies/servers/mail", "policies/servers/records"]
    assert ran.json["summary"].startswith("30 policies, 10 tools: ")


def test_folder_with_an_empty_one_for_servers_is_that_of_one(policies: Path) -> None:
    """Nothing in it is any server's."""
    (policies / "servers").mkdir()
    (policies / "servers" / "empty").mkdir()

    assert agentguard("check", "policies").stdout.startswith("14 policies, 5 tools: no errors\n")
