from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio
import pytest

from agentguard.analysis.proofs.equivalence import match_the_same
from agentguard.analysis.scenarios.cases import Suite
from agentguard.analysis.scenarios.coverage import MOST_IN_ALL, MutationReport, coverage, survivors
from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.scenarios.suites import run
from agentguard.analysis.workspace import Workspace
from tests.analysis.clinic import written_clinic
from tests.analysis.folders import opened

IDENTITIES: Final = """\
identities:
  billing: { agent: billing-agent, task: t1 }
  idle: { agent: billing-agent }
  support: { agent: support-agent }
  shared: { agent: billing-agent, task: t1, grade: shared }
  handed: { agent: mailer-agent, delegated_by: billing }
  granted: { agent: billing-agent, task: t1, grant: "permit (principal, action, resource);" }
entities:
  Record::r1: { sensitivity: normal, patient: Patient::p1 }
"""
READS: Final = '@id("reads") permit (principal in Agent::"billing-agent", action in Action::"read-only", resource)'
LIMIT: Final = """
@id("export-limit")
forbid (principal, action == Action::"export_records", resource)
when { context.input.max_rows > 500 };
@id("exports")
permit (principal, action == Action::"export_records", resource);
"""
READ: Final = """\
scenarios:
  - name: reads
    call: read_record
    with: { record_id: r1 }
    cases:
"""
EXPORT: Final = """\
scenarios:
  - { name: nothing else, call: read_record, with: { record_id: r1 }, as: billing, expect: deny }
  - name: exports
    call: export_records
    with: { format: csv, columns: [balance] }
    facts: { identifying_columns: 0 }
    as: billing
    cases:
"""


def world(folder: Path, policies: str, scenarios: str, *rows: str) -> tuple[Workspace, Suite]:
    """Return a folder of policies and its one file of scenarios."""
    workspace = opened(folder, policies)
    text = IDENTITIES + scenarios + "".join(f"      - {{ {row} }}\n" for row in rows)
    return workspace, read_suite(workspace, "scenarios/a.test.yaml", text)


def seen(workspace: Workspace, suite: Suite) -> dict[str, tuple[bool, bool]]:
    """Return for each policy whether it was seen to fire, and to stay silent."""
    measured = coverage(run(workspace, suite), workspace.policies)
    return {covered.policy.id: (covered.fired, covered.silent) for covered in measured.policies}


def tried(workspace: Workspace, suite: Suite, most: int = MOST_IN_ALL) -> MutationReport:
    """Return what the scenarios notice."""
    return survivors(workspace, [suite], most=most)


def said(report: MutationReport) -> list[str]:
    """Return what the survivors are."""
    return [mutant.what for mutant in report.survivors]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("as: billing, expect: allow", (True, False)),
        ("as: idle, expect: deny", (False, True)),
        ("as: support, expect: deny", (False, True)),
        ("as: billing, call: delete_record, expect: deny", (False, False)),
        # At one link of a chain it matches, and decides nothing: the other is denied.
        ("as: handed, expect: deny", (False, True)),
        ("as: granted, expect: allow", (True, False)),
        # A case that comes out otherwise was still made.
        ("as: billing, expect: deny", (True, False)),
    ],
)
def test_a_policy_is_seen_to_fire_or_to_stay_silent(row: str, wanted: tuple[bool, bool], tmp_path: Path) -> None:
    """Among the calls whose action its head covers."""
    workspace, suite = world(tmp_path, f"{READS} when {{ principal has task }};", READ, row)

    assert seen(workspace, suite) == {"reads": wanted}


def test_a_permit_that_a_forbid_overrules_was_not_seen_to_permit(tmp_path: Path) -> None:
    """It matched, and nobody knows what would come of it alone."""
    policies = f'{READS}; @id("stop") forbid (principal, action, resource) when {{ principal has task }};'
    workspace, suite = world(tmp_path, policies, READ, "as: billing, expect: deny")

    assert seen(workspace, suite) == {"reads": (False, False), "stop": (True, False)}


def test_a_policy_that_cannot_be_evaluated_did_neither(tmp_path: Path) -> None:
    """At the first link it fires, and at the second it fails."""
    overflow = "forbid (principal, action, resource) when { principal.delegation_depth + 9223372036854775807 > 9 };"
    failing = f'{READS}; @id("o") {overflow}'
    workspace, suite = world(tmp_path, failing, READ, "as: handed, expect: deny")

    assert seen(workspace, suite)["o"] == (True, False)


def test_a_policy_for_everything_cannot_stay_silent(tmp_path: Path) -> None:
    """So nobody has to show that it does."""
    everything = '@id("all") permit (principal, action in Action::"tools/call", resource,);'
    workspace, suite = world(tmp_path, everything, READ, "as: billing, expect: allow")

    measured = coverage(run(workspace, suite), workspace.policies)

    assert measured.complete
    assert measured.both == 1
    assert measured.findings() == []


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("as: billing, expect: allow", "no scenario saw `reads` stay silent: add a case in which it does"),
        ("as: idle, expect: deny", "no scenario saw `reads` fire: add a case in which it does"),
        (
            "as: billing, call: delete_record, expect: deny",
            "no scenario calls what `reads` is for: add a case in which it fires, and one in which it does not",
        ),
    ],
)
def test_what_was_not_seen_is_a_finding(row: str, what: str, tmp_path: Path) -> None:
    """At the policy, with what to add."""
    workspace, suite = world(tmp_path, f"// why\n{READS} when {{ principal has task }};", READ, row)

    measured = coverage(run(workspace, suite), workspace.policies)

    (finding,) = measured.findings()
    assert not measured.complete
    assert (finding.file, finding.line, finding.column, finding.policy) == ("policies.cedar", 2, 1, "reads")
    assert (finding.name, finding.what) == ("uncovered-policy", what)


def test_a_change_that_no_case_notices_survives(tmp_path: Path) -> None:
    """Here nobody asks for exactly as many rows as there may be."""
    rows = ("with: { max_rows: 10 }, expect: allow", "with: { max_rows: 1000 }, expect: deny, by: [export-limit]")
    workspace, suite = world(tmp_path, LIMIT, EXPORT, *rows)

    report = tried(workspace, suite)

    assert said(report) == [
        "`>` became `>=` in `context.input.max_rows > 500`",
        "`500` became `501` in `context.input.max_rows > 500`",
    ]
    assert report.killed == report.total - 2
    (first, _) = report.findings()
    assert (first.file, first.line, first.column, first.length) == ("policies.cedar", 4, 31, 1)
    assert first.what == (
        "no scenario notices that `>` became `>=` in `context.input.max_rows > 500`: "
        "add a case that does, or explain it under `survivors:`"
    )


def test_that_nobody_is_asked_any_more_makes_a_difference(tmp_path: Path) -> None:
    """The policy matches what it matched, so only what comes of it tells."""
    ask = '@id("ask") @obligation("approval") forbid (principal, action, resource) unless { context has approval };'
    policies = f"{READS}; {ask}"
    told: dict[str, list[str]] = {}
    for row in ("expect: deny", "expect: deny, reason: approval_required"):
        workspace, suite = world(tmp_path / str(len(told)), policies, READ, f"as: billing, {row}")
        told[row] = said(tried(workspace, suite))

    assert [('`@obligation("approval")` was dropped' in one) for one in told.values()] == [True, False]


def test_cases_at_the_bound_notice_every_change(tmp_path: Path) -> None:
    """Each of them is noticed by one of two cases."""
    rows = (
        "with: { max_rows: 500 }, expect: allow, by: [exports]",
        "with: { max_rows: 501 }, expect: deny, by: [export-limit]",
    )
    workspace, suite = world(tmp_path, LIMIT, EXPORT, *rows)
    done: list[tuple[int, int]] = []

    report = survivors(workspace, [suite], lambda *step: done.append(step))

    assert said(report) == []
    assert report.total == report.killed
    assert done[0][0] == 0
    assert done[-1][0] == done[-1][1] == len(done) - 1


def test_a_case_that_fails_notices_nothing(tmp_path: Path) -> None:
    """It comes out otherwise with any policy, so that every mutant would seem noticed."""
    workspace, suite = world(tmp_path, LIMIT, EXPORT, "with: { max_rows: 500 }, expect: deny")

    report = tried(workspace, suite)

    assert next(mutant.what for mutant in report.survivors if mutant.original.id == "export-limit") == (
        "the policy was dropped"
    )


def test_a_case_that_no_policy_is_asked_about_notices_what_policies_alone_decide(tmp_path: Path) -> None:
    """A record that no loader knows denies the call, unless none of its kind could have been allowed."""
    policies = f"{READS};"
    missing = "as: billing, with: { record_id: r2 }, expect: deny, reason: missing_entity"
    workspace, suite = world(tmp_path, policies, READ, missing)

    report = tried(workspace, suite)

    assert "the policy was dropped" not in said(report)
    assert '`principal in Agent::"billing-agent"` became `principal`' in said(report)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        # Only one tool has the argument, and only one the resource.
        ("context.input has max_rows && context.input.max_rows > 5", False),
        ("principal has task", True),
        # What can fail may make a difference that nobody proves.
        ("context.input has max_rows && context.input.max_rows * 2 > 5", True),
    ],
)
def test_a_head_that_covers_more_of_what_the_condition_rules_out_is_no_mutant(
    condition: str, kept: bool, tmp_path: Path
) -> None:
    """Nothing could notice it."""
    policies = (
        f'@id("p") forbid (principal, action == Action::"export_records", resource) when {{ {condition} }};\n'
        '@id("all") permit (principal, action, resource);'
    )
    workspace, suite = world(tmp_path, policies, EXPORT, "with: { max_rows: 5 }, expect: allow")

    wider = '`action == Action::"export_records"` became `action`'

    assert (wider in said(tried(workspace, suite))) is kept


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ('action in [Action::"read_record", Action::"read-only"]', 'action in Action::"read-only"', True),
        ('action in [Action::"delete_record", Action::"read-only"]', 'action in Action::"read-only"', False),
        ('action in [Action::"read-only"]', 'action in [Action::"read_record", Action::"search_records"]', True),
    ],
)
def test_policies_that_match_the_same_are_proved_to(first: str, second: str, same: bool, tmp_path: Path) -> None:
    """For every tool of the server."""
    policies = "".join(
        f'@id("p{place}") permit (principal, {head}, resource);\n' for place, head in enumerate((first, second))
    )
    workspace = opened(tmp_path, policies)

    one, other = workspace.source.policies

    assert match_the_same(one, other, workspace) is same
    assert match_the_same(other, one, workspace) is same


EXPLAINED: Final = """\
survivors:
  - policy: export-limit
    mutant: '`>` became `>=` in `context.input.max_rows > 500`'
    because: nobody exports as many
"""


def test_a_survivor_that_is_explained_is_no_finding(tmp_path: Path) -> None:
    """It is told with why it is as it should be."""
    rows = ("with: { max_rows: 499 }, expect: allow", "with: { max_rows: 502 }, expect: deny, by: [export-limit]")
    workspace, suite = world(tmp_path, LIMIT, EXPORT, *rows)
    suite = read_suite(workspace, suite.file, suite.text + EXPLAINED)

    report = tried(workspace, suite)

    assert said(report) == ["`500` became `501` in `context.input.max_rows > 500`"]
    ((mutant, explained),) = report.explained
    assert (mutant.what, explained.because) == (explained.mutant, "nobody exports as many")
    assert len(report.findings()) == 1


@pytest.mark.parametrize(
    ("policy", "mutant", "what"),
    [
        ("export-limits", "x", "there is no policy `export-limits`: did you mean `export-limit`?"),
        (
            "export-limit",
            "x",
            "`export-limit` has no such mutant: write what `agentguard test --mutate` says of it",
        ),
        (
            "export-limit",
            "the policy was dropped",
            "a scenario notices this mutant now: remove the explanation",
        ),
    ],
)
def test_an_explanation_of_nothing_is_a_finding(policy: str, mutant: str, what: str, tmp_path: Path) -> None:
    """It would hide the next survivor of that name."""
    rows = (
        "with: { max_rows: 500 }, expect: allow, by: [exports]",
        "with: { max_rows: 501 }, expect: deny, by: [export-limit]",
    )
    workspace, suite = world(tmp_path, LIMIT, EXPORT, *rows)
    text = f"{suite.text}survivors:\n  - {{ policy: {policy}, mutant: {mutant}, because: y }}\n"

    report = tried(workspace, read_suite(workspace, suite.file, text))

    (finding,) = report.findings()
    assert (finding.file, finding.line, finding.name) == (suite.file, text.count("\n"), "idle-explanation")
    assert finding.what == what


def test_a_survivor_is_explained_once(tmp_path: Path) -> None:
    """Of two explanations one will be out of date."""
    rows = ("with: { max_rows: 499 }, expect: allow", "with: { max_rows: 502 }, expect: deny, by: [export-limit]")
    workspace, suite = world(tmp_path, LIMIT, EXPORT, *rows)
    twice = EXPLAINED + EXPLAINED.partition("\n")[2]
    suite = read_suite(workspace, suite.file, suite.text + twice)

    assert [finding.what for finding in tried(workspace, suite).idle] == ["this mutant is explained twice: remove one"]


def test_of_more_mutants_than_the_bound_some_are_tried(tmp_path: Path) -> None:
    """It is known how many were not, and an explanation of one of those is left alone."""
    policies = "\n".join(LIMIT.replace("export", f"export-{n}").replace(f"export-{n}_", "export_") for n in range(5))
    workspace, suite = world(tmp_path, policies, EXPORT, "with: { max_rows: 5 }, expect: allow")
    explained = EXPLAINED.replace("export-limit", "export-3-limit")
    suite = read_suite(workspace, suite.file, suite.text + explained)

    report = tried(workspace, suite, most=8)

    assert report.total <= 8
    assert report.left_out > 40
    assert report.idle == ()


def test_only_cases_of_the_policys_actions_are_judged_again(tmp_path: Path) -> None:
    """A case elsewhere cannot come out otherwise: it has not even to be possible."""
    workspace, suite = world(tmp_path, f"{READS}; {LIMIT}", EXPORT, "with: { max_rows: 5 }, expect: allow")
    narrowed = replace(workspace, source=replace(workspace.source, policies=workspace.source.policies[:1]))

    report = tried(narrowed, suite)

    assert report.killed == 0


MANY: Final = """\
identities:
  reader: { agent: reader }
entities:
  Record::r1: { sensitivity: normal }
  Record::r9: { sensitivity: restricted }
scenarios:
"""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the clinic, which has a tool for several records."""
    return anyio.run(written_clinic, tmp_path_factory.mktemp("clinic"))


def test_a_call_that_was_refused_halfway_notices_only_what_makes_a_difference(clinic: Workspace) -> None:
    """What was asked before the refusal is allowed, and the call is denied all the same."""
    row = "as: reader, call: read_many, with: { record_ids: [r1, nowhere] }, expect: deny, reason: missing_entity"
    suite = read_suite(clinic, "a.test.yaml", f"{MANY}  - {{ name: n, {row} }}\n")

    report = survivors(clinic, [suite])

    assert [result.passed for result in run(clinic, suite)] == [True]
    assert any(mutant.original.id == "suspended" and mutant.policy is None for mutant in report.survivors)
    assert 0 < report.killed * 5 < report.total


def test_an_approval_that_the_guard_would_not_ask_for_is_no_silence(clinic: Workspace) -> None:
    """A record that is denied for good is denied before anybody could be asked, by all that stops it."""
    row = "as: reader, call: wipe, with: { record_id: r9 }, approved: { channel: client }, expect: deny"
    suite = read_suite(clinic, "a.test.yaml", f"{MANY}  - {{ name: n, {row} }}\n")

    assert seen(clinic, suite)["ask"] == (True, False)


def test_a_resource_that_the_guard_does_not_come_to_is_not_seen(clinic: Workspace) -> None:
    """Behind one that is denied for good, nothing more is judged."""
    row = "as: reader, call: read_many, with: { record_ids: [r9, r1] }, expect: deny, by: restricted"
    suite = read_suite(clinic, "a.test.yaml", f"{MANY}  - {{ name: n, {row} }}\n")

    assert seen(clinic, suite)["restricted"] == (True, False)


@pytest.mark.parametrize(("calculated", "same"), [("context.now", True), ('context.now.offset(duration("1d"))', False)])
def test_what_can_fail_is_not_proved_to_match_the_same(calculated: str, same: bool, tmp_path: Path) -> None:
    """A time past the last one fails the policy, so `|| true` behind it is not always so."""
    later = f'{calculated} > datetime("2040-01-01")'
    policies = "".join(
        f'@id("p{place}") permit (principal, action, resource) when {{ {condition} }};\n'
        for place, condition in enumerate((f"{later} || true", "true"))
    )
    workspace = opened(tmp_path, policies)

    one, other = workspace.source.policies

    assert match_the_same(one, other, workspace) is same
