"""`agentguard explain`: a decision on record, a case of a file, a call that somebody describes."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentguard.analysis.scenarios.called import Called, call_of
from agentguard.analysis.supposed import suppose
from agentguard.analysis.workspace import open_workspace
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.record import (
    arguments_digest,
    decision_attributes,
    record,
    setting_attributes,
)
from agentguard.evidence.runstate import run_state_attributes
from agentguard.evidence.vocabulary import RecordKind
from agentguard.model import Decision, Effect, Reason
from tests.analysis.folders import NOW, RECORDS
from tests.cli.commands import Ran, agentguard

EXPORT = (
    "--with",
    "max_rows=501",
    "--with",
    "format=csv",
    "--with",
    "columns=[name]",
    "--fact",
    "identifying_columns=1",
)
BILLING = ("--agent", "billing-agent", "--purpose", "monthly close")
RECORD = ("--entity", "Record::r1={sensitivity: normal, patient: Patient::p1}")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every command a terminal's width, whatever these tests run in."""
    monkeypatch.setenv("COLUMNS", "80")


def explain(*arguments: str, terminal: bool = False) -> Ran:
    """Explain by the policies of the example."""
    return agentguard("explain", *arguments, terminal=terminal)


def explained(*arguments: str) -> str:
    """Return what is said of a call by the policies of the example."""
    ran = explain(str(RECORDS), "--call", *arguments)
    assert (ran.status, ran.stderr) == (0, "")
    return ran.stdout


def test_a_call_that_somebody_describes_is_explained() -> None:
    """Each policy that is about it, each condition with its value, and what would have changed the answer."""
    assert (
        explained("export_records", *BILLING, *EXPORT, "--now", "2026-11-27T17:00:00Z", "--time-zone", "Europe/Berlin")
        == """\
DENY  export_records on Tool::"export_records"  policy, by export-row-limit
when      2026-11-27 18:00 Europe/Berlin, Friday
who       billing-agent, for nobody, purpose "monthly close"; grade run,
          lifetime 15m, not delegated

  organisation
    forbid export-row-limit                  matched  ← decided
        20-guardrails.cedar:10
        context.input.max_rows > 500                    501 > 500
    permit billing-exports                   matched
        principal has purpose                           "monthly close"
        principal.purpose == "monthly close"            "monthly close"
    permit mailer-sends                      did not match
        principal in Agent::"mailer-agent"           in Agent::"billing-agent"
    forbid suspended-agents-stop             did not match
        principal in Group::"suspended"              in Agent::"billing-agent"
    forbid export-names-nobody               did not match
        context.facts.identifying_columns > 1           1 > 1
    forbid export-names-its-run              did not match
        unless principal.grade == "run"                 "run"
    forbid restricted-needs-a-person         did not match
        resource is Record                              Tool::"export_records"
    forbid restricted-search-needs-a-person  did not match
        context.input has filters                       absent

would be allowed with   max_rows ≤ 500
                        as long as context.facts, which is made of the
                        arguments, stays as it is
would be allowed if     export-row-limit did not exist   (owner:
                        data-protection@example.com)
"""
    )


def test_an_allow_is_explained_too() -> None:
    """By what permitted it."""
    text = explained("export_records", *BILLING, *EXPORT[:1], "max_rows=5", *EXPORT[2:])

    assert text.startswith('ALLOW  export_records on Tool::"export_records"  permit, by billing-exports\n')
    assert "permit billing-exports                   matched  ← decided\n" in text
    assert "would be" not in text


def test_a_call_that_could_never_be_allowed_is_said_to_be_one() -> None:
    """With what would have to be other than it is."""
    text = explained("read_record", "--agent", "support-agent", "--with", "record_id=r1", *RECORD)

    assert text.startswith(
        'DENY  read_record on Record::"r1"  no_permit\n'
        "      no permit of the organisation matched\n"
        "      no argument was looked at: whatever they are, every such call is denied\n"
    )
    assert text.endswith("""\
would be allowed with   principal.user == User::"alice"
would be allowed if     there were a permit such as permit (principal in
                        Agent::"support-agent", action == Action::"read_record",
                        resource);
""")


def test_a_person_can_be_asked_and_can_have_said_yes() -> None:
    """Supposed, as everything here is."""
    delete = ("delete_record", "--agent", "support-agent", "--user", "alice", "--with", "record_id=r1", *RECORD)

    asked, approved = explained(*delete), explained(*delete, "--approved")
    by_somebody = explained(*delete, "--approver", "bob", "--now", "2026-11-24T10:00:00Z", "--environment", "test")

    assert asked.startswith(
        'DENY  delete_record on Record::"r1"  approval_required, by destructive-needs-approval\n'
        "      a person has to approve it, and nothing else stands against it\n"
    )
    assert "would be allowed with   a person's approval\n" in asked
    assert approved.startswith("ALLOW")
    assert by_somebody.startswith("ALLOW")


def test_without_what_loaders_would_know_less_can_be_told() -> None:
    """It says what is missing, and how to give it."""
    early = explained("read_record", "--agent", "support-agent", "--with", "record_id=r1")
    missing = explained("read_record", "--agent", "billing-agent", "--task", "t", "--with", "record_id=r1")
    gone = explained("read_record", "--agent", "billing-agent", "--user", "zoe", "--with", "record_id=r1", *RECORD)

    assert early.endswith("with all that loaders would know, given with --entity, more could be told\n")
    assert "missing_entity" in missing
    assert 'no entity `Record::"r1"` is given, which a loader would have to' in missing
    assert gone.splitlines()[1:4] == [
        "      an entity that a policy could look at is not there, so no policy was",
        '      asked: `User::"zoe"` is not there: list it in cedarentities.json, or give',
        "      its type a loader",
    ]


def test_what_no_small_change_helps_is_said_so(tmp_path: Path) -> None:
    """Nothing is made up."""
    folder = tmp_path / "policies"
    shutil.copytree(RECORDS, folder)
    (folder / "30.cedar").write_text(
        '@id("own-records") @owner("x") forbid (principal, action == Action::"read_record", resource)\n'
        'when { resource == Record::"r1" };\n'
        '@id("no-read") @owner("x") @obligation("approval")\n'
        'forbid (principal, action == Action::"read_record", resource)\n'
        "unless { context has approval };\n"
    )

    ran = explain(str(folder), "--call", "read_record", "--agent", "billing-agent", "--with", "record_id=r1", *RECORD)

    assert ran.status == 0
    assert "would be allowed with   nothing that is small enough to name" in ran.stdout


def test_a_chain_and_several_resources_are_each_drawn(tmp_path: Path) -> None:
    """Every link with its name, and the grant below the organisation."""
    file = tmp_path / "policies" / "scenarios" / "more.test.yaml"
    shutil.copytree(RECORDS, tmp_path / "policies")
    file.write_text(
        """
identities:
  support: { agent: support-agent, user: alice, task: t }
  mailer: { agent: mailer-agent, delegated_by: support,
            grant: 'permit (principal, action == Action::"search_records", resource);' }
entities:
  Record::r1: { sensitivity: normal, patient: Patient::p1 }
scenarios:
  - { name: one, as: mailer, call: read_record, with: { record_id: r1 }, expect: deny }
  - { name: two, as: support, call: read_record, with: { record_id: r1 }, expect: allow }
"""
    )
    one = explain("--scenario", f"{file}:9", str(tmp_path / "policies"))
    two = explain("--scenario", "scenarios/more.test.yaml:99", str(tmp_path / "policies"))

    assert "  link 1 of 2: support-agent\n  organisation\n" in one.stdout
    assert "  link 2 of 2: mailer-agent\n" in one.stdout
    assert "  grant\n    permit grant:1  did not match\n" in one.stdout
    assert "delegated by support-agent" in " ".join(one.stdout.split())
    assert "would be allowed with   a grant for mailer-agent that permits read_record\n" in one.stdout
    assert two.stdout.startswith("ALLOW  read_record")


def test_a_case_of_a_file_is_explained_by_its_line() -> None:
    """The one that stands there, or last before."""
    lines = (RECORDS / "scenarios" / "records.test.yaml").read_text().splitlines()
    at = next(number for number, line in enumerate(lines, 1) if "by: [restricted-needs-a-person]" in line)

    ran = explain("--scenario", f"scenarios/records.test.yaml:{at}", str(RECORDS))

    assert ran.status == 0
    assert 'DENY  read_record on Record::"r9"  policy, by restricted-needs-a-person\n' in ran.stdout


def test_colour_is_for_a_terminal_alone() -> None:
    """What is piped has no escapes."""
    arguments = (str(RECORDS), "--call", "export_records", *BILLING, *EXPORT)

    assert "\x1b[" in explain(*arguments, terminal=True).stdout
    assert "\x1b" not in explain(*arguments).stdout


def test_an_explanation_for_programs() -> None:
    """Everything, conditions that were not looked at too, under names that stay."""
    ran = explain(str(RECORDS), "--call", "export_records", *BILLING, *EXPORT, "--json")

    assert ran.status == 0
    found = ran.json
    assert (found["effect"], found["reason"], found["policies"]) == ("deny", "policy", ["export-row-limit"])
    assert found["policy_version"] == open_workspace(RECORDS).policies.version
    assert (found["meaning"], found["early"], found["errors"], found["facts_may_change"]) == (None, False, [], True)
    assert found["advice"] == "An export holds at most 500 rows. Ask for fewer."
    ((link,),) = [answer["links"] for answer in found["answers"]]
    (limit,) = [one for one in link["organisation"] if one["id"] == "export-row-limit"]
    assert (limit["effect"], limit["matched"], limit["decided"], limit["owner"]) == (
        "forbid",
        True,
        True,
        "data-protection@example.com",
    )
    assert limit["conditions"][-1] == {
        "place": "when",
        "text": "context.input.max_rows > 500",
        "wanted": True,
        "holds": True,
        "looked_at": True,
        "on_record": True,
        "values": [{"path": "context.input.max_rows", "value": "501"}],
    }
    assert found["suggestions"] == [
        {
            "text": "max_rows ≤ 500",
            "who": "caller",
            "changes": [
                {
                    "text": "max_rows ≤ 500",
                    "path": "context.input.max_rows",
                    "value": "500",
                    "at_least": None,
                    "at_most": "500",
                }
            ],
        }
    ]
    assert found["policy_changes"] == [
        {
            "text": "export-row-limit did not exist",
            "without": ["export-row-limit"],
            "owners": ["data-protection@example.com"],
            "permit": None,
        }
    ]


def test_other_changes_for_programs() -> None:
    """A value that is gone, a group, a grant, a permit, and what could not be asked."""
    policies = str(RECORDS)
    read = (policies, "--call", "read_record", "--with", "record_id=r1", "--json")
    early = explain(*read, "--agent", "support-agent", *RECORD).json
    missing = explain(*read, "--agent", "billing-agent", "--user", "zoe", *RECORD).json

    assert early["policy_changes"][0]["permit"].startswith("permit (principal in Agent::")
    assert early["suggestions"][0]["changes"][0]["at_most"] is None
    assert missing["answers"][0]["links"][0]["refused"] == {
        "reason": "missing_entity",
        "detail": '`User::"zoe"` is not there: list it in cedarentities.json, or give its type a loader',
    }


def _grant(tmp_path: Path) -> Path:
    file = tmp_path / "grant.cedar"
    file.write_text('permit (principal, action == Action::"search_records", resource);')
    return file


def test_a_grant_is_explained(tmp_path: Path) -> None:
    """From a file, as for a token."""
    arguments = (str(RECORDS), "--call", "export_records", *BILLING, *EXPORT[:1], "max_rows=5", *EXPORT[2:])
    ran = explain(*arguments, "--grant", str(_grant(tmp_path)), "--scope", "x", "--grade", "run", "--json")

    assert ran.json["reason"] == "grant"
    assert ran.json["suggestions"][0]["changes"] == [
        {
            "text": "a grant for billing-agent that permits export_records",
            "path": None,
            "value": None,
            "at_least": None,
            "at_most": None,
        }
    ]
    assert ran.json["answers"][0]["links"][0]["grant"][0]["owner"] is None


class Recorded:
    """Evidence of calls that the example's policies decided."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = open_workspace(RECORDS)
        self.ledger = SQLiteLedger(folder, clock=lambda: NOW)

    def keep(
        self,
        id_: str,
        decision: Decision | None = None,
        *,
        inputs: tuple[str, ...] = (),
        agent: str = "billing-agent",
        version: str = "",
    ) -> None:
        """Keep the record of an export of 501 rows."""
        called = Called(
            action="export_records",
            identity={"agent": agent, "purpose": "monthly close", "task": "invoice-42"},
            given=["max_rows=501", "format=csv", "columns=[name]"],
            facts=["identifying_columns=1"],
            setting={"now": "2026-11-24T10:00:00Z"},
        )
        verdict = suppose(self.workspace, call_of(called, self.workspace))
        request = verdict.requests[0]
        decided = decision or verdict.decisions[0]
        judged: Any = request.context["input"]
        attributes = decision_attributes(
            decision=Decision(
                effect=decided.effect,
                reason=decided.reason,
                policy_ids=decided.policy_ids,
                policy_version=version or self.workspace.policies.version,
                id=id_,
            ),
            invocation=None if decided.reason is Reason.UNAUTHENTICATED else request.invocation,
            action=request.action,
            resource=None if decided.reason is Reason.UNAUTHENTICATED else request.resource,
            now=NOW,
            digest=arguments_digest(b"k" * 32, judged),
            call=run_state_attributes(request.context["run"]),
            policy_label=None if version else "2026-11-20 quarter end",
            policy_activated_at=None if version else int(NOW) - 3600,
        )
        kept = {name: judged[name] for name in inputs} if inputs else None
        self.ledger.append(record(RecordKind.DECISION, attributes, at=NOW, inputs=kept))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with some decisions in it."""
    recorded = Recorded(tmp_path_factory.mktemp("evidence"))
    recorded.keep("01AAA")
    recorded.keep("01ABB", inputs=("max_rows",))
    recorded.keep("01ACC", version="sha256:other")
    recorded.keep("02", Decision(effect=Effect.DENY, reason=Reason.UNAUTHENTICATED))
    recorded.keep("03", Decision(effect=Effect.DENY, reason=Reason.POLICY, policy_ids=("export-names-its-run",)))
    recorded.keep("04")
    recorded.keep("04")
    recorded.ledger.close()
    return recorded.folder


def test_a_decision_on_record_is_explained_by_its_id(evidence: Path) -> None:
    """Who, when, under which version, which policies; and what of that is no longer known."""
    ran = explain("01AA", str(RECORDS), "--evidence", str(evidence))

    lines = ran.stdout.splitlines()
    assert (ran.status, ran.stderr) == (0, "")
    assert lines[:7] == [
        'DENY  export_records on Tool::"export_records"  policy, by export-row-limit',
        "when      2026-11-24 10:00:00 UTC",
        'who       billing-agent, for nobody, task invoice-42, purpose "monthly close";',
        "          run supposed-0, grade run, 15m left, not delegated",
        f'under     policies {open_workspace(RECORDS).policies.version[:19]}…, "2026-11-20 quarter end", in force',
        "          since 2026-11-24 09:00:00 UTC",
        "",
    ]
    assert "    forbid export-row-limit                  matched  ← decided" in lines
    assert "        context.input.max_rows > 500                    unknown > 500" in lines
    assert "  grant  is not on record" in lines
    assert "unknown   the evidence keeps a digest of arguments: `record_inputs=` has it keep" in lines
    assert any("01AAA" not in line and str(evidence) in line for line in lines)
    assert ran.stdout.endswith("chain verified up to seq 10\n")


def test_with_an_argument_on_record_a_change_is_suggested(evidence: Path) -> None:
    """Whoever had it kept can be told more."""
    ran = explain("01AB", str(RECORDS), "--evidence", str(evidence))

    assert "        context.input.max_rows > 500                    501 > 500" in ran.stdout
    assert "would be allowed with   max_rows ≤ 500" in ran.stdout


def test_that_the_policies_are_others_is_said_first(evidence: Path) -> None:
    """What follows is what they would make of it."""
    ran = explain("01AC", str(RECORDS), "--evidence", str(evidence))

    assert "beware    the policies in the folder are others" in ran.stdout
    assert "    forbid export-row-limit                  cannot tell\n" in ran.stdout
    assert "cannot tell: unknown > 500\n" in ran.stdout
    assert "cannot tell without     context.facts" in ran.stdout


def test_a_record_that_no_policy_made_says_why(evidence: Path) -> None:
    """Nobody is known to have called."""
    ran = explain("02", str(RECORDS), "--evidence", str(evidence))

    assert ran.stdout.startswith(
        "DENY  export_records  unauthenticated\n      the call had no identity, so no policy was asked\n"
    )
    assert "who       nobody known, for nobody\n" in ran.stdout


def test_a_record_that_does_not_fit_is_told_so(evidence: Path) -> None:
    """Evidence can be forged, or the folder can be another's."""
    ran = explain("03", str(RECORDS), "--evidence", str(evidence))

    assert "but       the record says of these policies what they cannot have come to\n" in ran.stdout


def test_records_for_programs(evidence: Path) -> None:
    """The record as `evidence show --json` has it, and what was told of it."""
    found = explain("01AA", str(RECORDS), "--evidence", str(evidence), "--json").json
    nobody = explain("02", str(RECORDS), "--evidence", str(evidence), "--json").json

    assert (found["record"]["kind"], found["evidence_holds"]) == ("decision", True)
    assert (found["same_version"], found["early"], found["delegated"], found["grants_permit"]) == (
        True,
        False,
        False,
        None,
    )
    assert found["not_on_record"] == []
    assert [one["decided"] for one in found["links"][0]["organisation"] if one["id"] == "export-row-limit"] == [True]
    assert found["policy_changes"][0]["without"] == ["export-row-limit"]
    assert nobody["links"] == []
    assert nobody["meaning"] == "the call had no identity, so no policy was asked"


def test_an_id_has_to_name_one_decision(evidence: Path, tmp_path: Path) -> None:
    """None and several are mistakes; the same id twice is one, the newer."""
    none = explain("99", str(RECORDS), "--evidence", str(evidence))
    several = explain("01A", str(RECORDS), "--evidence", str(evidence))
    twice = explain("04", str(RECORDS), "--evidence", str(evidence))
    broken = tmp_path / "export.jsonl"
    broken.write_text("no record\n")
    odd = explain("04", str(RECORDS), "--evidence", str(evidence), "--evidence", str(broken))

    assert none.status == several.status == 2
    assert f"no decision has an id that begins with `99` in `{evidence}`" in none.stderr
    assert "3 decisions have ids that begin with `01A`, such as 01AAA, 01ABB, 01ACC: write more of it" in several.stderr
    assert twice.status == odd.status == 0
    assert "`04` stands there more than once, and the newest is explained: " in twice.stderr
    assert str(broken) in odd.stderr


def test_evidence_that_does_not_hold_is_said_to_be_such(evidence: Path, tmp_path: Path) -> None:
    """What was changed may say anything; without a key to verify it with, nothing is said of that."""
    shutil.copytree(evidence, tmp_path / "changed")
    (chain,) = (tmp_path / "changed").glob("*.db")
    with closing(sqlite3.connect(chain)) as connection:
        connection.execute("DROP TRIGGER entries_are_never_changed")
        connection.execute("UPDATE entries SET text = replace(text, 'billing-agent', 'support-agent')")
        connection.commit()
    ran = explain("01AA", str(RECORDS), "--evidence", str(tmp_path / "changed"))
    (tmp_path / "changed" / "head.jwk").unlink()
    keyless = explain("01AA", str(RECORDS), "--evidence", str(tmp_path / "changed"))

    assert ran.status == 0
    assert "who       support-agent, for nobody" in ran.stdout
    assert "beware    this evidence does not hold, so it may say what was not:" in ran.stdout
    assert "verified up to" not in ran.stdout
    assert "beware" not in keyless.stdout
    assert "verified up to" not in keyless.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "`agentguard explain` wants a decision's id, --call or --scenario, got none"),
        (
            (str(RECORDS),),
            "`agentguard explain` wants a decision's id, --call or --scenario, got none",
        ),
        ((str(RECORDS), "--run", "calls=1"), "--run describes a call, got no --call: add --call TOOL, or leave it out"),
        ((str(RECORDS), "--with", "a=b"), "--with describes a call, got no --call: add --call TOOL, or leave it out"),
        ((str(RECORDS), "--call", "read_record"), "--call wants --agent, got none: say who calls"),
        (("x", str(RECORDS), "--call", "read_record"), "got several: leave out the others"),
        ((str(RECORDS), "--call", "read_record", "--scenario", "f:1"), "got several: leave out the others"),
        ((str(RECORDS), "--scenario", "file"), "--scenario wants a file and a line, got `file`"),
        ((str(RECORDS), "--scenario", "file:x"), "--scenario wants a file and a line, got `file:x`"),
        ((str(RECORDS), "--scenario", "file:1"), "cannot be read"),
        ((str(RECORDS), "--scenario", "scenarios/records.test.yaml:1"), "no case stands at, or before, line 1"),
        ((str(RECORDS), "--call", "read_recor", "--agent", "a"), "did you mean `read_record`?"),
        (("/nowhere", "--call", "read_record", "--agent", "a"), "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_the_status_2(arguments: tuple[str, ...], said: str) -> None:
    """With the fix."""
    ran = explain(*arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_schema_that_is_out_of_date_is_said_to_be(tmp_path: Path) -> None:
    """The call is judged by the folder as it is."""
    folder = tmp_path / "policies"
    shutil.copytree(RECORDS, folder)
    types = folder / "types" / "records.cedarschema"
    types.write_text(types.read_text() + "\nentity Extra;\n")

    ran = explain(str(folder), "--call", "export_records", *BILLING, *EXPORT)

    assert ran.status == 0
    fix = "run `agentguard schema examples.records.server:described --write"
    assert f"entity type `Extra` is not in agentguard.cedarschema: {fix}" in ran.stderr


def test_names_from_outside_do_not_steer_the_terminal() -> None:
    """An agent's name may hold anything."""
    text = explained("export_records", "--agent", "x\x1b[2J", "--purpose", "p\u202e", *EXPORT)

    assert "\x1b" not in text
    assert "\u202e" not in text


def test_an_id_that_no_file_could_have_is_an_id() -> None:
    """Whatever is typed, it is looked for in the evidence."""
    ran = explain("a" * 5_000, str(RECORDS), "--evidence", str(RECORDS))

    assert ran.status == 2
    assert "File name too long" not in ran.stderr


def test_time_of_a_call_is_told_as_the_clocks_of_its_zone_show_it(tmp_path: Path) -> None:
    """A policy of working hours is about that; of a recorded call the guard's start says which zone it is."""
    recorded = Recorded(tmp_path)
    started = setting_attributes(environment="production", time_zone="Europe/Berlin")
    recorded.ledger.append(record(RecordKind.START, started, at=NOW))
    recorded.keep("05")
    recorded.ledger.close()
    call = (str(RECORDS), "--call", "export_records", *BILLING, *EXPORT)
    far = ("--now", "9999-12-31T23:59:59Z", "--time-zone", "Asia/Tokyo")

    found = explain(*call, "--now", "2026-11-29T23:30:00Z", "--time-zone", "Europe/Berlin", "--json").json
    kept = explain("05", str(RECORDS), "--evidence", str(tmp_path))

    assert (found["now"], found["time_zone"], found["weekday"]) == (
        "2026-11-29T23:30:00.000Z", "Europe/Berlin", "Monday",
    )  # fmt: skip
    assert kept.stdout.splitlines()[1] == "when      2026-11-24 11:00:00 Europe/Berlin, Tuesday"
    assert explain("05", str(RECORDS), "--evidence", str(tmp_path), "--json").json["weekday"] == "Tuesday"
    assert "Asia/Tokyo" in explain(*call, *far).stdout
    assert "time zone `Mars` is not known" in explain(*call, "--time-zone", "Mars").stderr
    assert "--time-zone describes a call" in explain(str(RECORDS), "--time-zone", "Mars").stderr


def test_suggestion_that_changes_the_facts_does_not_ask_that_they_stay() -> None:
    """It says itself what they have to be."""
    text = explained("export_records", *BILLING, "--with", "max_rows=5", *EXPORT[2:-1], "identifying_columns=2")

    assert "would be allowed with   context.facts.identifying_columns" in text
    assert "as long as context.facts" not in text


def test_run_that_has_done_something_is_supposed(tmp_path: Path) -> None:
    """What stops it is told with its value, and so is that another run would not be stopped."""
    folder = tmp_path / "policies"
    shutil.copytree(RECORDS, folder)
    (folder / "40-runs.cedar").write_text(
        '@id("cap")\nforbid (principal, action, resource)\nwhen { context.run.calls >= 10 };\n'
    )
    who = (*BILLING, "--task", "invoice-42")
    read = (str(folder), "--call", "read_record", *who, "--with", "record_id=r1", *RECORD)

    assert "0 >= 10" in explain(*read).stdout
    stopped = explain(*read, "--run", "calls=10")
    assert "DENY" in stopped.stdout
    assert "10 >= 10" in stopped.stdout
    assert "would be allowed with   a new run" in stopped.stdout
    (change,) = explain(*read, "--run", "calls=10", "--json").json["suggestions"]
    assert (change["text"], change["who"]) == ("a new run", "run")
