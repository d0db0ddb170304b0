"""`agentguard access`: who may do what, in a terminal and for a program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.analysis.folders import records_folder
from tests.cli.commands import agentguard

POLICIES: Final = """
@id("reads") permit (principal in Agent::"billing-agent", action in Action::"read-only", resource);

@id("deletes")
permit (principal in Agent::"support-agent", action == Action::"delete_record", resource)
when { principal has user && principal.user in Group::"support-staff" };

@id("ask")
@obligation("approval")
forbid (principal, action in Action::"destructive", resource)
unless { context has approval };
"""


@pytest.fixture(autouse=True)
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside a policy folder of the records server."""
    monkeypatch.chdir(tmp_path)
    return records_folder(tmp_path / "policies", POLICIES)


def test_agent_is_told_what_it_may_do() -> None:
    """Each tool in one line, and below it what is left of the policies."""
    ran = agentguard("access", "--agent", "support-agent")

    assert ran.status == 0
    assert ran.stdout == (
        "read_record     never      no permit can match\n"
        "search_records  never      no permit can match\n"
        "update_record   never      no permit can match\n"
        "export_records  never      no permit can match\n"
        "delete_record   sometimes\n"
        "  permit deletes\n"
        '      principal has user && principal.user in Group::"support-staff"\n'
        "  forbid ask, which a person can lift\n"
        "      !(context has approval)\n"
    )


def test_user_is_told_what_an_agent_may_do_for_them() -> None:
    """What is settled is not shown again."""
    ran = agentguard("access", "--agent", "support-agent", "--user", "alice", "--tool", "delete_record")

    assert ran.stdout == (
        "delete_record  sometimes\n"
        "  permit deletes\n"
        "  forbid ask, which a person can lift\n"
        "      !(context has approval)\n"
    )


def test_tool_is_asked_about_for_each_agent() -> None:
    """Those that are listed or named, and any other."""
    ran = agentguard("access", "policies", "--tool", "read_record")

    assert ran.stdout == (
        "billing-agent    always     by reads\n"
        "intake-agent     never      no permit can match\n"
        "mailer-agent     never      no permit can match\n"
        "support-agent    never      no permit can match\n"
        "any other agent  never      its agent is not listed in cedarentities.json\n"
    )


def test_user_alone_is_asked_about_with_any_agent() -> None:
    """The agent is unknown then, so that nothing is claimed of it."""
    ran = agentguard("access", "--user", "alice")

    assert ran.stdout.startswith(
        'read_record     sometimes\n  permit reads\n      principal in Agent::"billing-agent"\n'
    )


def test_access_as_json(policies: Path) -> None:
    """With the whole condition, and where each policy stands."""
    said = agentguard("access", "--agent", "support-agent", "--tool", "delete_record", "--json").json

    assert (said["folder"], said["policy_version"][:7]) == (str(policies), "sha256:")
    (one,) = said["access"]
    assert one == {
        "agent": "support-agent",
        "any_other_agent": False,
        "user": None,
        "action": "delete_record",
        "kind": "tool",
        "may": "sometimes",
        "why": "",
        "condition": ('principal has user && principal.user in Group::"support-staff" && context has approval'),
        "permits": [
            {
                "id": "deletes",
                "file": "policies.cedar",
                "line": 4,
                "owner": None,
                "approval": False,
                "when": 'principal has user && principal.user in Group::"support-staff"',
            }
        ],
        "forbids": [
            {
                "id": "ask",
                "file": "policies.cedar",
                "line": 8,
                "owner": None,
                "approval": True,
                "when": "!(context has approval)",
            }
        ],
        "listed": ["user"],
    }
    others = agentguard("access", "--tool", "read_record", "--user", "bob", "--json").json["access"]
    assert [(other["agent"], other["any_other_agent"], other["user"]) for other in others[-2:]] == [
        ("support-agent", False, "bob"),
        (None, True, "bob"),
    ]


def test_what_nobody_guards_is_shown_where_somebody_may_use_it(policies: Path) -> None:
    """It is there at every server, and of no interest where it is closed."""
    (policies / "policies.cedar").write_text('@id("a") permit (principal, action == Action::"prompts/get", resource);')

    ran = agentguard("access", "--agent", "billing-agent")

    assert ran.stdout.splitlines()[-1] == "prompts/get     always     by a"
    assert "resources/read" not in ran.stdout
    assert agentguard("access", "--agent", "billing-agent", "--tool", "resources/read").stdout == (
        "resources/read  never      no permit can match\n"
    )


def test_person_is_told_what_this_does_not_know() -> None:
    """A run may be bounded further; and a slip of the pen is no agent."""
    ran = agentguard("access", "--agent", "suport-agent", terminal=True)

    said = " ".join(ran.stderr.split())
    assert "agentguard: no policy and no entity names agent `suport-agent`: did you mean `support-agent`?" in said
    assert "a run may do less: its own grant, and whoever delegated to it, take away and never add" in said
    assert "its agent is not listed in cedarentities.json" in ran.stdout


@pytest.mark.parametrize(
    ("name", "fix"), [("Alice", "did you mean `alice`?"), ("zoe", "list it in cedarentities.json")]
)
def test_user_that_nobody_lists_is_told_with_the_fix(name: str, fix: str) -> None:
    """Entities tell capitals apart, and people who ask for somebody's access may not."""
    ran = agentguard("access", "--user", name, "--tool", "read_record")

    assert ran.stderr == f"agentguard: no entity names user `{name}`: {fix}\n"
    assert "its user is not listed in cedarentities.json" in ran.stdout


def test_what_stops_everything_alike_is_told_once(policies: Path) -> None:
    """Limits of a run would drown what each tool has of its own; one answer has all of it with it."""
    (policies / "policies.cedar").write_text(
        '@id("all") permit (principal, action in Action::"tools/call", resource);\n'
        '@id("old") forbid (principal, action, resource) when { context.run.calls + context.run.denied >= 20 };\n'
        '@id("cap") forbid (principal, action, resource) when { context.run.calls >= 10 };\n'
        '@id("big") forbid (principal, action == Action::"export_records", resource) '
        "when { context.input.max_rows > 500 };"
    )

    told = agentguard("access", "--agent", "billing-agent").stdout
    one = agentguard("access", "--agent", "billing-agent", "--tool", "export_records").stdout

    own, _, alike = told.partition("each that is sometimes")
    assert [alike.count(f"  forbid {name}\n") for name in ("old", "cap", "big")] == [1, 1, 0]
    assert [own.count(f"  forbid {name}\n") for name in ("old", "cap", "big")] == [0, 0, 1]
    assert told.count("denied where old cannot be evaluated") == alike.splitlines()[0].count("denied where old") == 1
    assert "each that" not in one
    assert one.count("  forbid ") == 3


def test_agent_that_is_new_is_none_of_those_that_are_known(policies: Path) -> None:
    """Names of agents end alike: it is to be listed, or named, as the others are."""
    (policies / "policies.cedar").write_text('@id("a") permit (principal, action, resource);')
    entity = '{{"uid": {{"type": "{}", "id": "known-agent"}}, "attrs": {{}}, "parents": []}}'

    (policies / "cedarentities.json").write_text(f"[{entity.format('Agent')}]")
    listed = agentguard("access", "--agent", "refund-agent")
    (policies / "cedarentities.json").write_text(f"[{entity.format('User')}]")
    named = agentguard("access", "--agent", "refund-agent")

    said = "agentguard: no policy and no entity names agent `refund-agent`: "
    assert said + "list it in cedarentities.json" in " ".join(listed.stderr.split())
    assert said + "name it in a permit" in " ".join(named.stderr.split())


def test_long_condition_is_told_part_by_part_on_a_narrow_terminal(policies: Path) -> None:
    """Where one part ends and the next begins; in one line anywhere else, and where it fits."""
    rule = 'context.input.max_rows > 500 && ("(" == "&&(" || principal.grade == "run") && !(context has approval)'
    (policies / "policies.cedar").write_text(
        f'{POLICIES}\n@id("long") forbid (principal, action == Action::"export_records", resource) when {{ {rule} }};\n'
        '@id("exports") permit (principal, action == Action::"export_records", resource);'
    )
    arguments = ("access", "--agent", "billing-agent", "--tool", "export_records")

    assert f"      {rule}\n" in agentguard(*arguments).stdout
    assert agentguard(*arguments, terminal=True).stdout.splitlines()[-3:] == [
        "      context.input.max_rows > 500",
        '      && ("(" == "&&(" || principal.grade == "run")',
        "      && !(context has approval)",
    ]


def test_schema_that_is_stale_is_told(policies: Path) -> None:
    """What is said then rests on what was written."""
    types = policies / "types" / "records.cedarschema"
    types.write_text(types.read_text() + "entity Extra;\n")

    ran = agentguard("access", "--agent", "support-agent")

    assert ran.status == 0
    assert ran.stderr == (
        "agentguard: entity type `Extra` is not in agentguard.cedarschema: "
        "run `agentguard schema examples.records.server:described --write policies`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "`agentguard access` wants to know about whom or what, got nothing: add --agent, --user or --tool"),
        (("--tool", "reed_record"), "agentguard.cedarschema has no `reed_record`: did you mean `read_record`?"),
    ],
)
def test_question_that_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str) -> None:
    """With what to write instead."""
    ran = agentguard("access", *arguments)

    assert (ran.status, ran.stdout, ran.stderr) == (2, "", f"agentguard: {said}\n")


def test_policies_that_do_not_fit_are_refused_with_their_place(policies: Path) -> None:
    """Nothing is claimed of policies that nobody could load."""
    (policies / "policies.cedar").write_text("permit (")

    ran = agentguard("access", "--agent", "a")

    assert ran.status == 2
    assert ran.stderr == (
        "policies/policies.cedar:1:8 error[syntax]: the last policy has no end: close it with `;`\n"
        "agentguard: 1 mistake to mend first: see `agentguard check policies`\n"
    )


def test_person_is_told_who_has_to_be_listed() -> None:
    """Where it is not known who acts, and something may be allowed."""
    ran = agentguard("access", "--agent", "billing-agent", terminal=True)
    known = agentguard("access", "--agent", "billing-agent", "--user", "alice", terminal=True)

    assert ran.stderr.endswith("any user that cedarentities.json does not list may do nothing\n")
    assert "does not list" not in known.stderr


def test_person_reads_first_what_was_asked_and_what_sometimes_means(
    policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a condition that is too long for the terminal goes on further in; what is piped has it whole."""
    monkeypatch.setenv("COLUMNS", "80")
    named = " || ".join(f'principal.purpose == "the monthly close of {number}"' for number in range(4))
    (policies / "long.cedar").write_text(
        '@id("long") permit (principal in Agent::"billing-agent", action == Action::"export_records", resource)\n'
        f"when {{ principal has purpose && ({named}) }};"
    )
    asked = ("access", "--tool", "export_records", "--user", "alice")

    ran, piped = agentguard(*asked, terminal=True), agentguard(*asked)

    assert "whether each agent may call `export_records` on behalf of user `alice`" in ran.stderr
    assert ran.stderr.startswith("whether each agent")
    assert "sometimes: allowed where what is left of a permit holds" in ran.stderr
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in ran.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    at = lines.index("      principal has purpose")
    assert lines[at + 1].startswith('      && (principal.purpose == "the monthly close of 0" ||')
    assert lines[at + 2].startswith("          ")
    assert f"      principal has purpose && ({named})" in piped.stdout.splitlines()
    assert piped.stderr == ""
