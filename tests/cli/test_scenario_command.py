"""`agentguard test`: what it writes, how it ends, and that it never ends well with nothing tested."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from agentguard.analysis.scenarios.cases import Explained
from agentguard.analysis.scenarios.coverage import MutationReport
from agentguard.analysis.scenarios.mutants import mutants_of
from agentguard.analysis.workspace import open_workspace
from agentguard.cli import tested as command
from tests.analysis.folders import RECORDS
from tests.analysis.scenarios.test_suites import WITHIN
from tests.cli.commands import Ran, agentguard

SUITE: Final = """\
now: 2026-11-24T10:00:00Z
identities:
  billing: { agent: billing-agent, task: invoice-42, purpose: month close }
entities:
  Record::r1: { sensitivity: normal, patient: Patient::p1 }
scenarios:
  - name: billing reads
    as: billing
    call: read_record
    with: { record_id: r1 }
    expect: allow
  - name: an export
    call: export_records
    with: { format: csv, columns: [record_id] }
    facts: { identifying_columns: 0 }
    cases:
      - { as: billing, with: { max_rows: 500 }, expect: allow, by: [billing-exports] }
      - { as: billing, with: { max_rows: 501 }, expect: deny }
"""
PERMITS: Final = """\
@id("reads")
permit (principal in Agent::"billing-agent", action == Action::"read_record", resource) when { principal has task };

@id("billing-exports")
permit (principal in Agent::"billing-agent", action == Action::"export_records", resource)
when { principal has purpose && principal.purpose == "monthly close" };

@id("deletes")
permit (principal in Agent::"billing-agent", action == Action::"delete_record", resource);

@id("rows")
forbid (principal, action == Action::"export_records", resource) when { context.input.max_rows > 500 };
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a policy folder below the working folder, with scenarios of which one fails."""
    monkeypatch.chdir(tmp_path)
    policies = tmp_path / "policies"
    shutil.copytree(RECORDS, policies, ignore=shutil.ignore_patterns("scenarios", "*.cedar"))
    (policies / "permits.cedar").write_text(PERMITS)
    (policies / "scenarios").mkdir()
    (policies / "scenarios" / "a.test.yaml").write_text(SUITE)
    return policies


def mended(folder: Path) -> Path:
    """Let every case pass."""
    suite = folder / "scenarios" / "a.test.yaml"
    suite.write_text(SUITE.replace("month close", "monthly close"))
    return folder


def test_failure_and_coverage_are_told_to_a_person(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns, with paths that lead there from here; the policies that no case tested both ways make it 1 too."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = agentguard("test")

    assert ran == Ran(
        1,
        f"""\
policies/scenarios/a.test.yaml  3 cases  2 ok  1 FAILED

FAILED policies/scenarios/a.test.yaml:17  an export {WITHIN} billing, max_rows=500
  wanted   allow by billing-exports
  got      deny, no_permit: no call of this tool by this identity could be allowed
  nearest  billing-exports   principal.purpose == "monthly close"   purpose is "month close"

coverage           fired  did not fire
  reads              ✓         ✗        ← never silent
  billing-exports    ✗         ✓        ← never permits
  deletes            ✗         ✗        ← never called
  rows               ✗         ✓        ← never forbids

3 cases, 1 failed · 4 policies, none covered both ways
""",
        "",
    )


def test_good_folder_is_told_in_two_lines(folder: Path) -> None:
    """And ends with 0, once all that it has is covered."""
    (mended(folder) / "permits.cedar").write_text(PERMITS.partition('@id("deletes")')[0].partition('@id("billing')[0])
    (folder / "scenarios" / "a.test.yaml").write_text(
        SUITE.partition("  - name: an export")[0].replace(
            "    expect: allow\n", "    cases:\n      - { expect: allow }\n      - { as: { agent: x }, expect: deny }\n"
        )
        + "  - { name: n, as: { agent: billing-agent }, call: read_record, with: { record_id: r1 }, expect: deny }\n"
    )
    ran = agentguard("test", str(folder))

    assert ran == Ran(
        0, "policies/scenarios/a.test.yaml  3 cases  3 ok\n\n3 cases · 1 policy, 1 covered both ways\n", ""
    )


def test_coverage_can_be_left_out(folder: Path) -> None:
    """Then only cases that fail count."""
    ran = agentguard("test", str(mended(folder)), "--no-coverage")
    asked = agentguard("test", str(folder))

    assert (ran.status, ran.stdout.splitlines()[-1]) == (0, "3 cases")
    assert "coverage" not in ran.stdout
    assert "  rows               ✓         ✓\n" in asked.stdout


def test_many_policies_are_shown_where_something_lacks(folder: Path) -> None:
    """The others would hide them."""
    more = "".join(
        f'@id("more{n}") forbid (principal, action == Action::"read_record", resource) when {{ 1 > 2 }};\n'
        for n in range(40)
    )
    (mended(folder) / "permits.cedar").write_text(PERMITS + more)
    ran = agentguard("test", str(folder))

    assert "← never forbids" in ran.stdout
    assert "  rows" not in ran.stdout


def test_filter_runs_a_part_and_says_nothing_of_coverage(folder: Path) -> None:
    """By file or name, in any case; a part that is empty is a mistake."""
    ran = agentguard("test", "--filter", "READS")
    none = agentguard("test", "--filter", "nothing")

    assert ran == Ran(0, "policies/scenarios/a.test.yaml  1 case  1 ok\n\n1 case\n", "")
    assert (none.status, none.stdout) == (2, "")
    assert none.stderr == (
        "agentguard: no case has `nothing` in its file or name, so nothing would be tested: look for another text\n"
    )


def test_no_scenario_is_no_success(folder: Path) -> None:
    """A folder in which nothing was tested must not pass for one that was."""
    shutil.rmtree(folder / "scenarios")
    ran = agentguard("test", str(folder))

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"agentguard: policy folder `{folder}` has no scenario, so nothing would be tested: "
        "write one into `scenarios/NAME.test.yaml`\n"
    )


def test_mistake_in_a_scenario_ends_it_before_anything_runs(folder: Path) -> None:
    """With the line, as a finding; a policy that cannot be read likewise."""
    suite = folder / "scenarios" / "a.test.yaml"
    suite.write_text(SUITE.replace("record_id: r1 }\n    expect", "record_idd: r1 }\n    expect"))
    ran = agentguard("test", str(folder))
    (folder / "permits.cedar").write_text('@id("reads")\npermt (principal, action, resource);')
    broken = agentguard("test", str(folder), "--format", "json")

    assert (ran.status, ran.stderr) == (2, "")
    assert ran.stdout == (
        "policies/scenarios/a.test.yaml:10:13 error[invalid-scenario]: `read_record` has no argument `record_idd`: "
        "did you mean `record_id`?\n"
        "   10 │     with: { record_idd: r1 }\n"
        "      │             ^^^^^^^^^^\n"
        "1 mistake to mend before anything can be tested\n"
    )
    assert broken.status == 2
    assert [finding["file"] for finding in broken.json["findings"]] == ["permits.cedar"]


def test_file_that_is_no_text_is_told_without_its_line(folder: Path) -> None:
    """What cannot be read cannot be shown."""
    (folder / "scenarios" / "b.test.yaml").write_bytes(b"\xff")
    ran = agentguard("test", str(folder))

    assert (ran.status, len(ran.stdout.splitlines())) == (2, 2)
    assert "is not UTF-8" in ran.stdout


def test_folder_without_a_schema_says_how_to_write_it(folder: Path) -> None:
    """The server's Python is not asked here."""
    (folder / "agentguard.cedarschema").unlink()
    ran = agentguard("test", str(folder))

    assert ran.status == 2
    assert "agentguard schema SERVER --write" in ran.stderr


def test_stale_schema_is_mentioned(folder: Path) -> None:
    """The cases are judged all the same, by the folder as it is."""
    types = folder / "types" / "records.cedarschema"
    types.write_text(types.read_text() + "entity Ward;\n")
    ran = agentguard("test", str(mended(folder)), "--no-coverage")

    assert ran.status == 0
    assert ran.stderr.startswith(
        "agentguard: entity type `Ward` is not in agentguard.cedarschema: run `agentguard schema"
    )


def test_program_gets_every_case_and_every_policy(folder: Path) -> None:
    """With what was wanted and what came, in names that stay."""
    ran = agentguard("test", "--format", "json")

    assert ran.status == 1
    assert ran.json["cases"][1] == {
        "file": "scenarios/a.test.yaml",
        "line": 17,
        "name": f"an export {WITHIN} billing, max_rows=500",
        "passed": False,
        "wanted": "allow by billing-exports",
        "got": "deny, no_permit: no call of this tool by this identity could be allowed",
        "effect": "deny",
        "reason": "no_permit",
        "policies": [],
        "nearest": ['billing-exports   principal.purpose == "monthly close"   purpose is "month close"'],
    }
    assert ran.json["coverage"][3] == {"policy": "rows", "fired": False, "did_not_fire": True}
    assert [(one["name"], one["severity"]) for one in ran.json["findings"]] == [
        *[("uncovered-policy", "warning")] * 4,
        ("failed-scenario", "error"),
    ]
    assert "mutants" not in ran.json


def test_findings_go_where_they_are_collected(folder: Path) -> None:
    """Annotations of a change, SARIF, and JUnit with each case under its own name, whether it passed or not."""
    github = agentguard("test", "--format", "github", "--no-coverage")
    sarif = agentguard("test", "--format", "sarif", "--no-coverage")
    junit = agentguard("test", "--format", "junit", "--no-coverage")

    assert github.stdout.startswith(
        "::error file=policies/scenarios/a.test.yaml,line=17,col=9,endColumn=10,title=failed-scenario::an export "
        f"{WITHIN} billing, max_rows=500: wanted allow by billing-exports; got deny, no_permit: "
    )
    assert [found["ruleId"] for found in sarif.json["runs"][0]["results"]] == ["failed-scenario"]
    cases = ET.fromstring(junit.stdout.encode()).findall(".//testcase")  # noqa: S314  we wrote it
    assert [(case.get("classname"), case.get("name"), len(case)) for case in cases] == [
        ("policies/scenarios/a.test.yaml", f"billing reads {WITHIN} billing, record_id=r1", 0),
        ("policies/scenarios/a.test.yaml", f"an export {WITHIN} billing, max_rows=501", 0),
        ("policies/scenarios/a.test.yaml", f"an export {WITHIN} billing, max_rows=500", 1),
    ]
    assert {github.status, sarif.status, junit.status} == {1}


def test_change_that_no_case_notices_is_a_finding(folder: Path) -> None:
    """With the policy's line; progress is for a terminal alone. What is explained and noticed is one too."""
    (folder / "permits.cedar").write_text(PERMITS.partition('@id("billing')[0])
    suite = folder / "scenarios" / "a.test.yaml"
    explained = "survivors: [{ policy: reads, mutant: the policy was dropped, because: it is }]\n"
    suite.write_text(SUITE.partition("  - name: an export")[0] + explained)
    ran = agentguard("test", "--mutate", "--no-coverage")
    told = agentguard("test", "--mutate", "--no-coverage", "--format", "json").json

    assert (ran.status, ran.stderr) == (1, "")
    assert "policies/permits.cedar:2:9 warning[surviving-mutant]: no scenario notices that " in ran.stdout
    assert "policies/scenarios/a.test.yaml:12:13 warning[idle-explanation]: " in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("1 case · ")
    assert ran.stdout.endswith(" not noticed\n")
    counts = told["mutants"]
    assert counts["total"] == counts["noticed"] + counts["survived"] + counts["explained"]
    assert {found["severity"] for found in told["findings"]} == {"warning"}


def test_nothing_is_mutated_while_cases_fail(folder: Path) -> None:
    """A case that fails would notice nothing."""
    ran = agentguard("test", "--mutate", "--no-coverage")

    assert ran.status == 1
    assert ran.stderr == "agentguard: no mutant was tried: a case that fails notices nothing, so mend these first\n"


def test_cases_are_written_for_cedar(folder: Path, tmp_path: Path) -> None:
    """Beside the ordinary output, with the command to run them; what has no place there is counted."""
    suite = mended(folder) / "scenarios" / "a.test.yaml"
    suite.write_text(
        suite.read_text()
        + "  - { name: n, as: { agent: x, delegated_by: billing }, call: read_record, with: { record_id: r1 },"
        " expect: deny }\n"
    )
    out = tmp_path / "an out" / "cedar"
    ran = agentguard("test", "--export", "cedar", str(out), "--no-coverage")

    assert ran.status == 0
    assert ran.stderr == (
        "1 left out of a delegated run\n"
        f"3 written: cedar run-tests --policies '{out}/policies.cedar' --schema '{out}/schema.cedarschema' "
        f"--tests '{out}/tests.json'\n"
    )
    assert sorted(path.name for path in out.iterdir()) == ["policies.cedar", "schema.cedarschema", "tests.json"]
    assert len(json.loads((out / "tests.json").read_text())) == 3
    assert open_workspace(folder).text == (out / "schema.cedarschema").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--export", "rego", "out"], "--export wants `cedar` and a folder, got `rego`: write `--export cedar FOLDER`"),
        (
            ["--export", "cedar", "policies/next"],
            "`policies/next` is in the policy folder, where each policy would stand twice",
        ),
        (["--mutate", "--filter", "a"], "--mutate asks what all cases together notice, got --filter: leave one out"),
        (["--export", "cedar", "file/x"], "`file/x` cannot be written to: Not a directory: name another folder"),
        (["nowhere"], "policy folder `"),
    ],
)
def test_what_cannot_be_done_is_a_mistake(folder: Path, arguments: list[str], said: str) -> None:
    """With the fix, and before anything is written."""
    (folder.parent / "file").touch()
    ran = agentguard("test", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"agentguard: {said}")


def test_progress_is_shown_on_a_terminal(folder: Path) -> None:
    """And wiped afterwards, so that only results stay."""
    ran = agentguard("test", str(mended(folder)), "--mutate", "--no-coverage", terminal=True)

    assert "mutants" in ran.stderr
    assert "surviving-mutant" in ran.stdout


def test_summary_counts_what_was_explained_and_what_was_left_out(folder: Path) -> None:
    """So that nobody takes a part for the whole."""
    workspace = open_workspace(folder)
    (mutant, *_) = mutants_of(workspace.source.policies[0], workspace.limits).found
    explained = Explained(policy="reads", mutant=mutant.what, because="it is", line=1, column=1)
    report = MutationReport(
        total=9, killed=7, survivors=(mutant,), explained=((mutant, explained),), idle=(), left_out=30
    )
    tested = command.Tested(workspace=workspace, suites=(), results=(), mutation=report)

    assert tested.summary == "0 cases · 9 mutants, 7 noticed, 1 explained, 1 not noticed, 30 more left out"
    assert [found.name for found in tested.findings] == ["surviving-mutant"]
    assert replace(tested, mutation=replace(report, survivors=(), explained=(), left_out=0)).findings == []
    all_noticed = replace(report, total=7, survivors=(), explained=(), left_out=0)
    assert replace(tested, mutation=all_noticed).summary == "0 cases · 7 mutants, 7 noticed"


def test_nothing_is_waited_for(folder: Path) -> None:
    """A pipe is told as what it is, and no line of it is shown."""
    os.mkfifo(folder / "scenarios" / "b.test.yaml")
    ran = agentguard("test", str(folder))

    assert ran.status == 2
    assert ran.stdout == (
        "policies/scenarios/b.test.yaml error[invalid-scenario]: is no regular file: put a file here\n"
        "1 mistake to mend before anything can be tested\n"
    )


@pytest.fixture
def several(folder: Path) -> Path:
    """Return a folder for two servers, of which the first has the tools."""
    mended(folder)
    top = folder.parent / "all"
    (top / "servers").mkdir(parents=True)
    shutil.move(folder, top / "servers" / "records")
    (top / "common").mkdir()
    shutil.move(top / "servers" / "records" / "cedarentities.json", top / "common")
    (top / "servers" / "other").mkdir()
    (top / "servers" / "other" / "a.cedar").write_text('@id("other") permit (principal, action, resource);')
    (top / "servers" / "other" / "o.test.yaml").write_text(SUITE.replace("read_record", "their_tool"))
    return top


def test_each_server_has_its_own_scenarios(several: Path) -> None:
    """Beside those that it shares: what another server's say is about other tools and other policies."""
    (several / "common" / "c.test.yaml").write_text(SUITE)
    own = several / "servers" / "records"
    ran = agentguard("test", str(own), "--format", "json")
    (own / "scenarios" / "a.test.yaml").write_text("scenarios: [")
    broken = agentguard("test", str(own))
    shutil.rmtree(own / "scenarios")
    (several / "common" / "c.test.yaml").unlink()
    without = agentguard("test", str(own))
    (own / "agentguard.cedarschema").write_text('entity "')
    unread, unchecked = agentguard("test", str(own)), agentguard("check", str(own))

    assert {case["file"] for case in ran.json["cases"]} == {
        "common/c.test.yaml",
        "servers/records/scenarios/a.test.yaml",
    }
    assert f"policy folder `{own}` has no scenario" in without.stderr
    assert broken.stdout.startswith("all/servers/records/scenarios/a.test.yaml:1:13 error[invalid-scenario]: ")
    for told in (unread, unchecked):
        assert "all/servers/records/agentguard.cedarschema:1:8 error[" in told.stdout


def test_finding_in_a_folder_for_several_servers_is_told_where_it_is(several: Path) -> None:
    """Whichever part of it is named, and beside others."""
    own = str(several / "servers" / "records")
    (several / "common" / "c.cedar").write_text("permt (principal, action, resource);")
    ran, both = agentguard("check", own), agentguard("check", own, own)
    found = agentguard("test", own)

    for told in (ran, both):
        assert "all/common/c.cedar:1:1 error[" in told.stdout
        assert "/records/common/" not in told.stdout
    assert found.stdout.startswith("all/common/c.cedar:1:1 error[")


def test_file_that_only_looks_like_scenarios_is_mentioned(folder: Path) -> None:
    """Nobody would run it; a link to itself, a pipe and what is no scenario are left alone."""
    mended(folder)
    (folder / "scenarios" / "b.yaml").write_text(SUITE)
    (folder / "scenarios" / "c.yml").write_text("other: 1")
    (folder / "scenarios" / ".d.yaml").write_text(SUITE)
    (folder / "scenarios" / "e.yaml").symlink_to("e.yaml")
    os.mkfifo(folder / "scenarios" / "f.yaml")

    ran = agentguard("test", "policies", "--no-coverage")

    assert ran.status == 0
    assert ran.stderr == "agentguard: `scenarios/b.yaml` looks like scenarios and is not run: call it `….test.yaml`\n"
