"""Files of scenarios: what they suppose is judged as the guard would, and what is not understood is refused."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from agentguard import Effect, Grade, PolicyError, Reason
from agentguard.analysis.scenarios import suites as scenarios
from agentguard.analysis.scenarios.casecall import NOW
from agentguard.analysis.scenarios.cases import Case, CaseResult, Expectation, Suite
from agentguard.analysis.scenarios.failures import failure, told
from agentguard.analysis.scenarios.scenariofile import NAME, read_suite
from agentguard.analysis.scenarios.suites import find_suites, open_suites, run
from agentguard.analysis.scenarios.yamltext import MOST_BYTES
from agentguard.analysis.supposed import suppose
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, write_schema
from tests.analysis import clinic
from tests.analysis.folders import RECORDS
from tests.world import EVERYTHING

WITHIN: Final = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
HEAD: Final = """\
now: 2040-01-10T10:00:00Z
identities:
  reader: { agent: reader, user: alice, task: t1, purpose: research }
  bob: { agent: reader, user: bob }
  exporter: { agent: exporter, purpose: month close }
entities:
  Record::r1: { sensitivity: normal }
  Record::r2: { sensitivity: normal, patient: Patient::p2 }
  Record::r9: { sensitivity: restricted }
  Patient::p2: { in: Ward::w1 }
scenarios:
"""
LINES: Final = HEAD.count("\n")
EXPORT: Final = "call: export, with: { max_rows: 5, fmt: csv, columns: [] }, facts: { names: 0 }"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the clinic, written down, with claims of every type."""
    folder = tmp_path_factory.mktemp("clinic")
    plain = anyio.run(clinic.written_clinic, folder)
    claims = {"team": str, "level": int, "admin": bool, "labels": frozenset}
    written = replace(plain.written, claims=claims)
    (folder / FILE).write_text(write_schema(written, read_folder(folder, plain.limits)), "utf-8")
    return open_workspace(folder)


def read(workspace: Workspace, scenarios: str, head: str = HEAD) -> Suite:
    """Return the cases of a file with *scenarios* in it."""
    return read_suite(workspace, "scenarios/a.test.yaml", head + scenarios)


def case(workspace: Workspace, scenario: str, head: str = HEAD) -> Case:
    """Return the one case of a file, written in braces."""
    (only,) = read(workspace, f"  - {{ name: n, {scenario} }}\n", head).cases
    return only


def results(workspace: Workspace, scenarios: str) -> list[CaseResult]:
    """Judge the cases of a file with *scenarios* in it."""
    return run(workspace, read(workspace, scenarios))


def test_table_of_cases_is_judged(workspace: Workspace) -> None:
    """What a scenario says holds for each of its cases, and a case says what is different."""
    found = results(
        workspace,
        """\
  - name: exports are small
    call: export
    as: exporter
    with: { fmt: csv, columns: [], max_rows: 500 }
    facts: { names: 0 }
    cases:
      - { expect: allow, by: exports }
      - { with: { max_rows: 501 }, expect: deny, by: [row-limit], advice: At most 500 rows. }
      - { facts: { names: 2 }, expect: deny, by: [no-names], advice: whatever }
      - { now: 2040-01-14T10:00:00Z, expect: deny, by: [by-day] }
      - { environment: staging, transport: stdio, expect: deny, reason: policy }
      - { as: reader, expect: deny, reason: no_permit, by: [] }
""",
    )

    assert [(result.name, result.passed) for result in found] == [
        (f"exports are small {WITHIN} exporter", True),
        (f"exports are small {WITHIN} exporter, max_rows=501", True),
        (f"exports are small {WITHIN} exporter, names=2", False),
        (f"exports are small {WITHIN} exporter, now=2040-01-14T10:00:00Z", True),
        (f"exports are small {WITHIN} exporter, environment=staging, transport=stdio", True),
        (f"exports are small {WITHIN} reader", True),
    ]
    assert [(result.file, result.line) for result in found][:2] == [
        ("scenarios/a.test.yaml", LINES + 7),
        ("scenarios/a.test.yaml", LINES + 8),
    ]
    assert failure(found[2], workspace.policies) == (
        ("wanted", "deny by no-names with advice `whatever`"),
        ("got", "deny, policy by no-names"),
        ("advice", "none"),
    )


def test_scenario_without_cases_is_its_own_case(workspace: Workspace) -> None:
    """With an identity on the spot, and entities of its own."""
    found = case(
        workspace,
        "as: { agent: x }, call: read, with: { record_id: r5, note: { text: hi, number: -1 } }, expect: deny, "
        "by: suspended, entities: { 'Record::\"r5\"': { sensitivity: normal }, Agent::x: { in: [Group::suspended] } }",
    )

    assert (found.label, found.identity, found.line, found.column) == ("x, record_id=r5, note={…}", "x", LINES + 1, 5)
    assert found.call.input == {"record_id": "r5", "note": {"text": "hi", "number": -1}}
    assert found.expected.met_by(suppose(workspace, found.call))


def test_entities_of_a_case_come_over_those_of_the_file(workspace: Workspace) -> None:
    """A whole entity at a time."""
    found = case(
        workspace,
        "as: bob, call: read, with: { record_id: r1 }, entities: { Record::r1: { sensitivity: restricted } }, "
        "expect: deny, by: [restricted]",
    )

    assert found.expected.met_by(suppose(workspace, found.call))
    assert len(found.call.entities) == 4


def test_every_fact_of_an_identity_is_read(workspace: Workspace) -> None:
    """Claims by their declared types, and times in words."""
    head = HEAD.replace(
        "identities:\n",
        "identities:\n  all: { agent: a, user: u, task: t, purpose: p, grade: token, scopes: [s, s2],"
        " issuer: 'https://i', lifetime: 1h30m, age: 90s, claims: { team: x, level: 7, admin: false, labels: [l] } }\n",
    )
    identity = case(workspace, "as: all, call: read, with: { record_id: r1 }, expect: deny", head).call.identity

    assert (identity.agent, identity.user, identity.task, identity.purpose) == ("a", "u", "t", "p")
    assert (identity.grade, identity.scopes, identity.issuer) == (Grade.TOKEN, frozenset({"s", "s2"}), "https://i")
    assert (identity.lifetime, identity.age) == (5400, 90)
    assert identity.claims == {"team": "x", "level": 7, "admin": False, "labels": frozenset({"l"})}


def test_delegation_is_a_chain_of_identities(workspace: Workspace) -> None:
    """Each names the one above it, in any order; a child lasts no longer than its parent."""
    head = HEAD.replace(
        "identities:\n",
        "identities:\n"
        "  leaf: { agent: reader, delegated_by: middle }\n"
        "  middle: { agent: reader, delegated_by: root, lifetime: 5m,"
        " grant: 'permit (principal, action, resource);' }\n"
        "  root: { agent: reader, user: bob, lifetime: 10m, age: 2m }\n",
    )
    found = case(workspace, "as: leaf, call: read, with: { record_id: r1 }, expect: allow, by: reads", head)
    root, middle = found.call.identity.ancestors

    assert (root.user, root.lifetime, middle.lifetime, found.call.identity.lifetime) == ("bob", 600, 300, 300)
    assert found.expected.met_by(suppose(workspace, found.call))
    grants = replace(found.expected, policy_ids=("reads", "grant:1"))
    assert grants.met_by(suppose(workspace, found.call))
    assert not replace(grants, policy_ids=("reads", "grant:0")).met_by(suppose(workspace, found.call))


def test_approval_is_what_a_person_answers(workspace: Workspace) -> None:
    """At the time of the call, if nothing else is said."""
    given = case(
        workspace, "as: reader, call: wipe, with: { record_id: r1 }, approved: { channel: client }, expect: allow"
    )
    named = case(
        workspace,
        "as: reader, call: wipe, with: { record_id: r1 }, expect: allow, "
        "approved: { channel: desk, approver: alice, at: 2040-01-10T09:59:00Z }",
    )

    assert given.call.approval == {"channel": "client", "at": moment("2040-01-10T10:00:00.000Z")}
    assert named.call.approval == {
        "channel": "desk",
        "at": moment("2040-01-10T09:59:00.000Z"),
        "approver": {"__entity": {"type": "User", "id": "alice"}},
    }
    assert (given.label, named.expected.met_by(suppose(workspace, named.call))) == (
        "reader, record_id=r1, approved",
        True,
    )


def moment(text: str) -> dict[str, Any]:
    """Return a moment as Cedar JSON."""
    return {"__extn": {"fn": "datetime", "arg": text}}


def test_argument_that_no_policy_sees_names_the_resource(workspace: Workspace) -> None:
    """It is needed for that, and stays out of the context."""
    found = case(workspace, "as: reader, call: open_file, with: { path: /etc/hosts }, expect: allow, by: opens")
    verdict = suppose(workspace, found.call)

    assert found.expected.met_by(verdict)
    assert verdict.requests[0].context["input"] == {}


def test_what_is_left_out_has_a_fixed_value(workspace: Workspace) -> None:
    """A scenario says the same on any day and in any place."""
    call = case(
        workspace, "as: reader, call: read, with: { record_id: r1 }, expect: allow", HEAD.partition("\n")[2]
    ).call
    zoned = case(
        workspace, "as: reader, call: read, with: { record_id: r1 }, expect: allow", "time_zone: Asia/Tokyo\n" + HEAD
    ).call

    assert (call.now, call.environment, call.transport, call.time_zone.key) == (NOW, "production", "http", "UTC")
    assert (zoned.time_zone.key, call.identity.lifetime, call.identity.grade) == ("Asia/Tokyo", 900, Grade.RUN)


def test_cases_with_the_same_words_are_told_apart(workspace: Workspace) -> None:
    """Each is looked for by its name; a name of its own is taken as it is."""
    found = read(
        workspace,
        "  - name: n\n    call: read\n    as: reader\n    expect: allow\n    cases:\n"
        "      - { with: { record_id: r1 } }\n      - { with: { record_id: r1 } }\n"
        "      - { name: own, with: { record_id: r1 } }\n"
        "      - { call: read_many, with: { record_ids: [r1, r2] } }\n"
        f"      - {{ with: {{ record_id: {'x' * 40} }} }}\n",
    )

    assert [one.label for one in found.cases] == [
        "reader, record_id=r1",
        "reader, record_id=r1 (again, 2)",
        "own",
        "reader, call=read_many, record_ids=[r1, r2]",
        f"reader, record_id={'x' * 24}…",
    ]


def test_expectation_of_a_case_replaces_that_of_its_scenario_as_a_whole(workspace: Workspace) -> None:
    """Policies and reason of a denial mean nothing for an allow."""
    found = read(
        workspace,
        "  - name: n\n    call: read\n    as: bob\n    expect: deny\n    by: [restricted]\n"
        "    advice: This record is restricted.\n"
        "    cases:\n      - { with: { record_id: r9 } }\n      - { with: { record_id: r9 }, reason: policy }\n"
        "      - { with: { record_id: r1 }, expect: allow }\n",
    )

    assert [str(one.expected) for one in found.cases] == [
        "deny by restricted with advice `This record is restricted.`",
        "deny, policy by restricted with advice `This record is restricted.`",
        "allow",
    ]
    assert all(result.passed for result in run(workspace, found))


def test_survivors_are_explained(workspace: Workspace) -> None:
    """Which change of a policy nobody can notice, and why."""
    suite = read(
        workspace,
        f"  - {{ name: n, as: reader, {EXPORT}, expect: deny }}\n"
        "survivors:\n  - { policy: reads, mutant: the policy was dropped, because: it is }\n",
    )

    (explained,) = suite.survivors
    assert (explained.policy, explained.mutant, explained.because) == ("reads", "the policy was dropped", "it is")
    assert (explained.line, explained.column) == (LINES + 3, 5)


# Stands for a call in which nothing else is wrong.
OPEN: Final = "call: open_file, with: { path: a }, expect: deny"
MISTAKES: Final[list[tuple[str, str, str]]] = [
    # Scenarios, where in them, and what is told.
    ("  - n\n", "n", "a scenario wants a mapping, got `n`: write `key: value`"),
    ("  - { name: n, cal: read }\n", "cal", "a scenario has no key `cal`: did you mean `call`?"),
    ("  - { call: read }\n", "{", "`name` is missing: write `name: what it shows`"),
    (
        "  - { name: n, cases: [] }\n",
        "[",
        "no case is here, so nothing would be tested: write one, or remove `cases`",
    ),
    (
        "  - { name: n, cases: { a: b } }\n",
        "{ a",
        "`cases` wants a list, got a mapping: write `[one, two]`, or each",
    ),
    (
        "  - { name: n, cases: [{ cases: [] }] }\n",
        "cases: []",
        "a case has no key `cases`: there is `advice`, `approved`, ",
    ),
    ("  - { name: n, call: read }\n", "{", "`as` is missing: write `as: one of the identities`"),
    ("  - { name: n, as: reader }\n", "{", "`call` is missing: write `call: one of the tools`"),
    (
        "  - { name: n, as: raeder, call: read }\n",
        "raeder",
        "no identity is called `raeder`: did you mean `reader`?",
    ),
    ("  - { name: n, as: reader, call: raed }\n", "raed", "no tool is called `raed`: did you mean `read`?"),
    ("  - { name: n, as: reader, call: [read] }\n", "[", "`call` wants a text, got a list: put it into quotes"),
    (
        "  - { name: n, as: reader, call: read }\n",
        "{",
        "`read` always has argument `record_id`, of type String: add it",
    ),
    (
        "  - { name: n, as: reader, call: read, with: r1 }\n",
        "r1",
        "`with` wants a mapping, got `r1`: write `key: value`",
    ),
    (
        "  - { name: n, as: reader, call: read, with: { recordid: r1 } }\n",
        "recordid",
        "`read` has no argument `recordid`: did you mean `record_id`?",
    ),
    (
        "  - { name: n, as: reader, call: export, with: { max_rows: 5.0 } }\n",
        "{",
        "`export` always has argument `fmt`, of type String: add it to `with`",
    ),
    (
        "  - { name: n, as: reader, call: export, with: { max_rows: 5.0, fmt: csv, columns: [] } }\n",
        "5.0",
        "`max_rows` wants a whole number, got `5.0`: write digits alone",
    ),
    (
        "  - { name: n, as: reader, call: export, with: { max_rows: 5, fmt: cvs, columns: [] } }\n",
        "cvs",
        "`fmt` wants one of its values, got `cvs`: did you mean `csv`?",
    ),
    (
        "  - { name: n, as: reader, call: export, with: { max_rows: 5, fmt: csv, columns: [] } }\n",
        "{",
        "`export` always has fact `names`, of type Long: add it to `facts`",
    ),
    (
        "  - { name: n, as: reader, call: read, with: { record_id: r1 }, facts: { a: 1 } }\n",
        "{ a",
        "`read` has no facts: remove `facts`",
    ),
    (
        "  - { name: n, as: reader, call: open_file }\n",
        "{",
        "`open_file` acts on what `path` names: add it to `with`",
    ),
    (
        "  - { name: n, as: reader, call: open_file, with: { path: a, mode: r } }\n",
        "mode",
        "no policy sees the argument `mode` of `open_file`: leave it out",
    ),
    (
        "  - { name: n, as: reader, call: open_file, with: { path: a } }\n",
        "{",
        "`expect` is missing: write `expect: allow`",
    ),
    (
        "  - { name: n, as: reader, call: open_file, with: { path: a }, expect: alow }\n",
        "alow",
        "`expect` has no value `alow`: did you mean `allow`?",
    ),
    (
        "  - { name: n, as: reader, OPEN, reason: nopermit }\n",
        "nopermit",
        "`reason` has no value `nopermit`: did you mean `no_permit`?",
    ),
    (
        "  - { name: n, as: reader, call: open_file, with: { path: a }, expect: allow, reason: no_permit }\n",
        "no_permit",
        "`expect: allow` never has the reason `no_permit`: did you mean `permit`?",
    ),
    (
        "  - { name: n, as: reader, OPEN, by: [rowlimit] }\n",
        "rowlimit",
        "no policy is called `rowlimit`: did you mean `row-limit`?",
    ),
    (
        "  - { name: n, as: reader, OPEN, by: { a: b } }\n",
        "{ a: b",
        "`by` wants a list, got a mapping",
    ),
    (
        "  - { name: n, as: reader, OPEN, by: [[a]] }\n",
        "[a]",
        "`by` wants a text, got a list",
    ),
    (
        "  - { name: n, as: reader, call: wipe, with: { record_id: r1 }, approved: { approver: alice } }\n",
        "{ approver",
        "`channel` is missing: write `channel: client`",
    ),
    (
        "  - { name: n, as: reader, call: wipe, with: { record_id: r1 }, approved: { channel: a, by: b } }\n",
        "by: b",
        "an approval has no key `by`: there is `approver`, `at`, `channel`",
    ),
    (
        "  - { name: n, as: reader, call: wipe, with: { record_id: r1 }, approved: { channel: Desk! } }\n",
        "Desk!",
        "`channel` wants 1 to 32 of `a-z0-9_-`, got `Desk!`: write `client`",
    ),
    (
        "  - { name: n, as: bob, call: wipe, with: { record_id: r }, approved: { channel: client, approver: bob } }\n",
        "bob }",
        "who says yes at `channel: client` is never known: remove `approver`, or name the guard's own channel",
    ),
    *(
        (
            f"  - {{ name: n, as: bob, call: wipe, with: {{ record_id: r }}, approved: {{ channel: a, at: {at} }} }}\n",
            at,
            "a yes holds for 300 s: write an `at` so shortly before the call",
        )
        for at in ("2040-01-10T09:55:00Z", "2040-01-10T10:00:00.001Z")
    ),
    (
        "  - { name: n, as: reader, call: read, now: 1969-12-31 }\n",
        "1969",
        "`now` is before 1970, when no token was issued: write a later moment",
    ),
    (
        "  - { name: n, as: reader, call: read, now: 2040-13-01 }\n",
        "2040-13-01",
        "`now` wants a moment, got `2040-13-01`: write it with its zone",
    ),
    (
        "  - { name: n, as: reader, call: read, transport: htp }\n",
        "htp",
        "`transport` has no value `htp`: did you mean `http`?",
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { Recrd::r1: {} } }\n",
        "Recrd",
        "`Recrd::r1` is of no entity type: did you mean `Record`?",
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { Record::r1: {} } }\n",
        "Record",
        "`Record` always has attribute `sensitivity`, of type String: add it to `Record::r1`",
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { Record::r1: { sensitivity: a, color: b } } }\n",
        "color",
        "`Record` has no attribute `color`: there is `patient`, `sensitivity`",
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { Record::r1: { sensitivity: a, patient: p1 } } }\n",
        "p1",
        "`patient` wants a `Patient`, got `p1`: write `Patient::id`",
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { Patient::p1: { in: Group::staff } } }\n",
        "Group::staff",
        "it cannot be in a `Group`: there is `Ward`",
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { User::alice: {} } }\n",
        "User::alice",
        '`User::"alice"` is in `cedarentities.json`, and stays as it is there: suppose another one',
    ),
    (
        "  - { name: n, as: reader, OPEN, entities: { Patient::p: {}, 'Patient::\"p\"': {} } }\n",
        "'Patient",
        '`Patient::"p"` is described twice: keep one',
    ),
    ("  - { name: n, as: { user: a }, call: read }\n", "{ user", "`agent` is missing: write `agent: its-name`"),
    (
        "  - { name: n, as: { agent: '' }, call: read }\n",
        "''",
        "`agent` wants 1 to 256 characters, got 0: shorten it",
    ),
    (
        "  - { name: n, as: { agent: a, grade: runs }, call: read }\n",
        "runs",
        "`grade` has no value `runs`: did you mean `run`?",
    ),
    (
        "  - { name: n, as: { agent: a, lifetime: 1.5s }, call: read }\n",
        "1.5s",
        "`lifetime` wants a duration, got `1.5s`",
    ),
    (
        "  - { name: n, as: { agent: a, lifetime: 1500ms }, call: read }\n",
        "1500ms",
        "`lifetime` wants whole seconds, none of them negative: write `15m`",
    ),
    (
        "  - { name: n, as: { agent: a, age: 15m }, call: read }\n",
        "{ agent",
        "the run is over before the call: make `lifetime` longer than `age`",
    ),
    (
        "  - { name: n, as: { agent: a, claims: { tem: x } }, call: read }\n",
        "tem",
        "a token has no mapped claim `tem`: did you mean `team`?",
    ),
    (
        "  - { name: n, as: { agent: a, claims: { level: high } }, call: read }\n",
        "high",
        "`level` wants a whole number, got `high`",
    ),
    (
        "  - { name: n, as: { agent: a, claims: { labels: [x, ''] } }, call: read }\n",
        "[x, ''",
        "no token with an empty text in `labels` is accepted: leave it out",
    ),
    (
        "  - { name: n, as: { agent: a, scopes: read write }, call: read }\n",
        "read write",
        "a scope is a text without blanks, got `read write`: write several as `[one, two]`",
    ),
    (
        f"  - {{ name: n, as: {{ agent: a, grade: shared, grant: '{EVERYTHING}' }}, call: read }}\n",
        "shared",
        "what has a grant is a run, got the grade `shared`: write `grade: run`",
    ),
    (
        "  - { name: n, as: { agent: a, grade: token, delegated_by: bob }, call: read }\n",
        "token",
        "what is delegated is a run, got the grade `token`: write `grade: run`",
    ),
    (
        "  - { name: n, as: { agent: a, issuer: b, delegated_by: bob }, call: read }\n",
        "b, delegated",
        "a run has the issuer of the one that it is delegated by, got `b`: remove `issuer`",
    ),
    (
        "  - { name: n, as: { agent: a, grant: 'permit' }, call: read }\n",
        "'permit'",
        "a grant does not parse: ",
    ),
    (
        "  - { name: n, as: { agent: a, grant: 'permit(principal, action == Action::\"raed\", resource);' } }\n",
        "{ agent",
        "nobody can call with this identity, since the grant names `raed`, which is no tool here: did you mean `read`?",
    ),
    (
        "  - { name: n, as: { agent: a, delegated_by: nobody }, call: read }\n",
        "nobody",
        "no identity is called `nobody`: ",
    ),
    (
        "  - { name: n, as: { agent: a, delegated_by: bob, lifetime: 1h }, call: read }\n",
        "{ agent",
        "the run ends after the one that it is delegated by: shorten its `lifetime`",
    ),
]


@pytest.mark.parametrize(("scenarios", "at", "what"), MISTAKES)
def test_mistake_is_told_with_its_place_and_the_fix(workspace: Workspace, scenarios: str, at: str, what: str) -> None:
    """A scenario that is not understood would prove nothing, so none of the file is run."""
    scenarios = scenarios.replace("OPEN", OPEN)
    with pytest.raises(PolicyError) as refused:
        read(workspace, scenarios)

    (found,) = refused.value.found
    assert found.what.startswith(what)
    assert (found.file, found.name, found.line) == ("scenarios/a.test.yaml", NAME, LINES + 1)
    assert scenarios[found.column - 1 :].startswith(at)


def test_file_without_scenarios_proves_nothing(workspace: Workspace) -> None:
    """It is refused, and not passed over."""
    for text, what in (
        ("scenarios: []", "no scenario is here, so nothing would be tested: write one"),
        ("now: 2040-01-10", "`scenarios` is missing: write `scenarios: "),
        ("- a", "a file of scenarios wants a mapping, got a list: write `key: value`"),
        ("scenrios: []", "a file of scenarios has no key `scenrios`: did you mean `scenarios`?"),
        ("", "the file is empty: write `scenarios:`"),
        ("time_zone: Mars/Base\nscenarios: []", "time zone `Mars/Base` is not known: use an IANA name such as"),
        ("time_zone: ../../etc/passwd\nscenarios: []", "time zone `../../etc/passwd` is not known"),
        ("entities: [a]\nscenarios: []", "`entities` wants a mapping, got a list"),
        (
            "scenarios: [{ name: n, as: { agent: a, delegated_by: b }, call: read }]",
            "no identity is called `b`: there is none",
        ),
    ):
        with pytest.raises(PolicyError) as refused:
            read_suite(workspace, "a.test.yaml", text)
        assert refused.value.found[0].what.startswith(what)


def test_delegation_has_an_end(workspace: Workspace) -> None:
    """An identity that stems from itself, and a chain that no token could hold, are refused."""
    longer = "".join(f"  i{n}: {{ agent: a, delegated_by: i{n + 1} }}\n" for n in range(9)) + "  i9: { agent: a }\n"
    for identities in ("  i0: { agent: a, delegated_by: i1 }\n  i1: { agent: a, delegated_by: i0 }\n", longer):
        with pytest.raises(PolicyError) as refused:
            read(
                workspace,
                f"  - {{ name: n, as: i0, {EXPORT}, expect: deny }}\n",
                f"identities:\n{identities}scenarios:\n",
            )
        assert (
            refused.value.found[0].what == "a run has at most 4 runs above it, and this one more: delegate less often"
        )


def test_grants_of_a_chain_fit_into_one_token(workspace: Workspace) -> None:
    """And its issuer is that of the run that it stems from."""
    grant = EVERYTHING + " " * (2048 - len(EVERYTHING))
    head = """identities:
  root: {{ agent: a, issuer: "https://one.example", grant: "{grant}" }}
  leaf: {{ agent: b, delegated_by: root, grant: "{grant}" }}
scenarios:
"""
    chained = case(workspace, f"as: leaf, {OPEN}", head.format(grant=grant))

    assert chained.call.identity.issuer == "https://one.example"
    with pytest.raises(PolicyError, match="the grants of a chain hold at most 4096 bytes, these 4098: grant fewer"):
        case(workspace, f"as: leaf, {OPEN}", head.format(grant=grant + " "))


def test_only_a_run_delegates(workspace: Workspace) -> None:
    """As no token of another grade can hand on anything."""
    head = "identities:\n  a: { agent: a, grade: shared }\n  b: { agent: b, delegated_by: a }\nscenarios:\n"

    with pytest.raises(PolicyError, match="only a run delegates"):
        case(workspace, f"as: b, {EXPORT}, expect: deny", head)


def test_every_mistake_is_told_at_once(workspace: Workspace) -> None:
    """In order, and one that only follows from another is not."""
    head = HEAD.replace("  bob: {", "  bad: { agnt: x }\n  bob: {").replace("{ in: Ward::w1 }", "{ on: Ward::w1 }")
    with pytest.raises(PolicyError) as refused:
        read(
            workspace,
            f"  - {{ name: n, as: bad, {EXPORT}, expect: deny }}\n  - {{ name: m, call: nothing }}\n"
            f"  - {{ name: o, as: bob, call: export, cases: [a, {{ expect: deny }}] }}\n"
            "survivors:\n  - { policy: reads }\n",
            head,
        )

    assert [(found.line - LINES, found.what.partition(":")[0]) for found in refused.value.found] == [
        (-7, "an identity has no key `agnt`"),
        (0, "`Patient` has no attribute `on`"),
        (3, "`as` is missing"),
        (4, "a case wants a mapping, got `a`"),
        (4, "`export` always has argument `max_rows`, of type Long"),
        (6, "`mutant` is missing"),
    ]


def test_decimals_are_exact(tmp_path: Path) -> None:
    """What YAML would make a float of is compared to the fourth place."""
    shutil.copytree(RECORDS, tmp_path / "p", ignore=shutil.ignore_patterns("scenarios"))
    workspace = open_workspace(tmp_path / "p")
    head = "entities: { Record::r1: { sensitivity: normal, patient: Patient::p1 } }\nscenarios:\n"
    who = "as: { agent: billing-agent, task: t }, call: update_record"

    for amount, effect in (("1000.00", "allow"), ("1000", "allow"), ("1000.0001", "deny"), ("0.1", "allow")):
        found = case(workspace, f"{who}, with: {{ record_id: r1, write_off: {amount} }}, expect: {effect}", head)
        assert found.expected.met_by(suppose(workspace, found.call)), amount
    for amount in ("1000.00001", "1e3", ".5", "NaN"):
        with pytest.raises(PolicyError, match="`write_off` wants a decimal"):
            case(workspace, f"{who}, with: {{ record_id: r1, write_off: {amount} }}, expect: deny", head)


def test_files_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """But not those of policies that are not in force, nor what has a dot before its name."""
    for name in ("b.test.yaml", "scenarios/a.test.yml", "scenarios/x/c.test.yaml", "x/next/d.test.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("next/e.test.yaml", ".git/f.test.yaml", "scenarios/.g.test.yaml", "h.yaml", "i.test.yaml.bak"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    found = [path.relative_to(tmp_path).as_posix() for path in find_suites(tmp_path)]

    assert found == ["b.test.yaml", "scenarios/a.test.yml", "scenarios/x/c.test.yaml", "x/next/d.test.yaml"]
    assert find_suites(tmp_path / "nowhere") == ()


def test_no_file_is_overlooked(tmp_path: Path) -> None:
    """Not by the case of its name, nor behind a link; and each is found once, though links lead round."""
    folder, elsewhere = tmp_path / "p", tmp_path / "elsewhere"
    for name in (folder / "A.TEST.YAML", folder / "b.Test.yml", elsewhere / "x" / "c.test.yaml", folder / "next" / "d"):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.touch()
    (folder / "next" / "e.test.yaml").touch()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)
    (elsewhere / "again").symlink_to(elsewhere)
    (folder / "waiting").symlink_to("next")
    (folder / "itself").symlink_to("itself")

    found = [path.relative_to(folder).as_posix() for path in find_suites(folder)]

    assert found == ["A.TEST.YAML", "b.Test.yml", "linked/x/c.test.yaml"]


def test_folder_that_cannot_be_looked_into_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in it would be overlooked; and a link to everything that there is would have no end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir(0)
        with stranger(), pytest.raises(PolicyError, match="locked: cannot be looked into for scenarios: Permission de"):
            find_suites(folder)
        monkeypatch.setattr(scenarios, "_MOST_FOLDERS", 2)
        with pytest.raises(PolicyError, match="locked: is one folder too many: more than 2 are not looked into"):
            find_suites(folder)


@contextmanager
def stranger() -> Iterator[None]:
    """Be somebody who may not read everything, as root may."""
    before = os.geteuid()
    os.seteuid(before or 65_534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_policy_folder_does_not_mind_scenarios(tmp_path: Path) -> None:
    """They decide nothing, so the version of the policies is the same with and without them."""
    folder = tmp_path / "p"
    shutil.copytree(RECORDS, folder)
    with_them = open_workspace(folder).policies.version
    shutil.rmtree(folder / "scenarios")

    assert open_workspace(folder).policies.version == with_them


def test_file_that_cannot_be_read_is_told(workspace: Workspace, tmp_path: Path) -> None:
    """No pipe is waited for, and nothing past the bound is read."""
    good, pipe, large, latin = (tmp_path / f"{name}.test.yaml" for name in ("a", "pipe", "large", "latin"))
    good.write_text(f"scenarios:\n  - {{ name: n, as: {{ agent: reader }}, {EXPORT}, expect: deny }}\n")
    os.mkfifo(pipe)
    large.write_bytes(b"#" * (MOST_BYTES + 1))
    latin.write_bytes(b"# ok\n# \xff")

    with pytest.raises(PolicyError) as refused:
        open_suites(workspace, [good, pipe, large, latin, tmp_path / "gone.test.yaml"])

    assert [(Path(found.file).name, found.line, found.what) for found in refused.value.found] == [
        ("pipe.test.yaml", 0, "is no regular file: put a file here"),
        ("large.test.yaml", 0, f"is larger than {MOST_BYTES} bytes: split it"),
        ("latin.test.yaml", 2, "is not UTF-8, from byte 7 on: save it as UTF-8"),
        ("gone.test.yaml", 0, "cannot be read: No such file or directory"),
    ]
    (suite,) = open_suites(workspace, [good])
    assert suite.file == str(good)
    (workspace.folder / "b.test.yaml").write_text(good.read_text())
    assert [one.file for one in open_suites(workspace)] == ["b.test.yaml"]


FAILURES: Final[list[tuple[str, list[tuple[str, str]]]]] = [
    (
        "as: reader, call: read, with: { record_id: r1 }, expect: deny, by: restricted",
        [
            ("wanted", "deny by restricted"),
            ("got", "allow by reads"),
            ("nearest", 'restricted   resource.sensitivity == "restricted"   sensitivity is "normal"'),
        ],
    ),
    (
        "as: reader, call: read, with: { record_id: r9 }, expect: deny, by: restricted",
        [
            ("wanted", "deny by restricted"),
            ("got", "allow by reads"),
            (
                "nearest",
                (
                    'restricted   unless principal has user && principal.user in Group::"staff"   '
                    'user is User::"alice" in Group::"staff"'
                ),
            ),
        ],
    ),
    (
        (
            "as: { agent: reader, purpose: month end }, call: export, with: { max_rows: 5, fmt: csv, columns: [] }, "
            "facts: { names: 0 }, expect: allow"
        ),
        [
            ("wanted", "allow"),
            ("got", "deny, no_permit: no call of this tool by this identity could be allowed"),
            ("nearest", 'exports   principal.purpose == "month close"   purpose is "month end"'),
        ],
    ),
    (
        (
            "as: { agent: exporter, purpose: month close, grade: shared }, call: export, facts: { names: 0 }, "
            "with: { max_rows: 900, fmt: csv, columns: [] }, expect: deny, by: row-limit"
        ),
        [
            ("wanted", "deny by row-limit"),
            ("got", "deny, policy by one-run: no call of this tool by this identity could be allowed"),
            ("nearest", "row-limit   matches, and is not what decides"),
        ],
    ),
    (
        "as: reader, call: wipe, with: { record_id: r1 }, expect: allow",
        [
            ("wanted", "allow"),
            ("got", "deny, approval_required by ask: a person has to approve it"),
        ],
    ),
    (
        "as: reader, call: read, with: { record_id: r7 }, expect: deny, by: restricted",
        [
            ("wanted", "deny by restricted"),
            ("got", 'deny, missing_entity: no entity `Record::"r7"` is given, which a loader would have to know'),
        ],
    ),
    (
        "as: { agent: reader, user: nobody }, call: read, with: { record_id: r1 }, expect: deny, by: restricted",
        [
            ("wanted", "deny by restricted"),
            (
                "got",
                (
                    'deny, missing_entity: `User::"nobody"` is not there: list it in cedarentities.json, '
                    "or give its type a loader"
                ),
            ),
        ],
    ),
    (
        (
            "as: { agent: reader, grant: 'permit (principal, action == Action::\"read\", resource);' }, "
            "call: read_many, with: { record_ids: [r1] }, expect: allow, by: 'grant:0'"
        ),
        [
            ("wanted", "allow by grant:0"),
            ("got", "deny, grant: no call of this tool by this identity could be allowed"),
        ],
    ),
]


@pytest.mark.parametrize(("scenario", "lines"), FAILURES)
def test_failure_tells_what_differed(workspace: Workspace, scenario: str, lines: list[tuple[str, str]]) -> None:
    """What was wanted, what came, and the condition that made the difference, with its values."""
    (result,) = results(workspace, f"  - {{ name: n, {scenario} }}\n")

    assert not result.passed
    assert list(failure(result, workspace.policies)) == lines


def test_verdict_is_told_in_one_line(workspace: Workspace) -> None:
    """Whatever stands in the names."""
    (allowed,) = results(workspace, "  - { name: n, as: reader, call: read, with: { record_id: r1 }, expect: allow }\n")
    (unsure,) = results(
        workspace,
        "  - { name: n, as: bob, call: read, with: { record_id: r1, note: { text: a, number: 1 } }, expect: deny }\n",
    )

    assert told(allowed.got) == "allow by reads"
    assert told(unsure.got).startswith("deny, policy_error: policy `overflows` failed: ")
    assert (unsure.wanted.effect, unsure.got.reason) == (Effect.DENY, Reason.POLICY_ERROR)
    assert str(Expectation(effect=Effect.DENY, policy_ids=())) == "deny by no policy"
