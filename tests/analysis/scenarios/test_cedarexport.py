"""What is written for Cedar's own command: it comes out there as it does here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

import anyio
import cedarpy
import pytest

from agentguard.analysis.scenarios.cedarexport import POLICIES, SCHEMA, TESTS, Export, export
from agentguard.analysis.scenarios.suites import open_suites, run
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, Offered, WrittenSchema, write_schema
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.request import ResourceTemplate
from tests.analysis.clinic import written_clinic
from tests.analysis.folders import RECORDS
from tests.analysis.scenarios.test_suites import results


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the clinic, written down."""
    return anyio.run(written_clinic, tmp_path_factory.mktemp("clinic"))


def judged(made: Export) -> list[tuple[str, bool]]:
    """Judge exported tests as Cedar's command does, and return the name of each, and whether it passes.

    It names policies by their ``@id``, wants the decision, at least the named reasons and
    the number of errors, and checks policies, request and entities against the schema.
    """
    policies, schema = made.files[POLICIES], made.files[SCHEMA]
    validation = cedarpy.validate_policies(policies, schema)
    assert validation.validation_passed, validation.errors
    ids = re.findall(r'@id\("([^"]+)"\)', policies)
    found = []
    for test in json.loads(made.files[TESTS]):
        assert test.keys() == {"name", "request", "entities", "decision", "reason", "num_errors"}
        request = {**test["request"], "context": test["request"]["context"]}
        answer = cedarpy.is_authorized(request, policies, json.dumps(test["entities"]), schema)
        reasons = {ids[int(reason.removeprefix("policy"))] for reason in answer.diagnostics.reasons}
        passed = (
            answer.decision.value.lower() == test["decision"]
            and {*test["reason"]} <= reasons
            and len(answer.diagnostics.errors) == test["num_errors"]
        )
        found.append((test["name"], passed))
    return found


def test_scenarios_of_the_example_pass_in_cedar_too(tmp_path: Path) -> None:
    """All but those of delegated runs, which Cedar has no chain for."""
    shutil.copytree(RECORDS, tmp_path / "p")
    opened = open_workspace(tmp_path / "p")
    found = [result for suite in open_suites(opened) for result in run(opened, suite)]
    made = export(opened, found)

    delegated = sum(bool(result.case.call.identity.ancestors) for result in found)
    assert made.left_out == {"of a delegated run": delegated}
    assert made.tests == len(found) - delegated > 30
    passed = [one for _, one in judged(made)]
    assert passed == [True] * made.tests


CASES: Final = """\
  - name: several
    as: bob
    cases:
      - { call: read_many, with: { record_ids: [r1, r2] }, expect: allow, by: [reads] }
      - { call: read_many, with: { record_ids: [r1, r9] }, expect: deny, by: [restricted] }
      - { call: wipe, with: { record_id: r1 }, expect: deny, by: [ask] }
      - { call: wipe, with: { record_id: r1 }, approved: { channel: client }, expect: allow }
      - { call: wipe, with: { record_id: r1 }, approved: { channel: desk }, expect: deny, by: [ask] }
      - { call: wipe, with: { record_id: r9 }, approved: { channel: client }, expect: deny, by: [restricted] }
      - { call: read, with: { record_id: r1 }, approved: { channel: client }, expect: allow }
      - { call: read, with: { record_id: r1 }, expect: deny, by: [restricted] }
      - { call: read, with: { record_id: r7 }, expect: deny }
      - { call: read, with: { record_id: r1, note: { text: a, number: 1 } }, expect: deny }
      - as: { agent: reader, grant: 'permit (principal, action, resource);' }
        call: read
        with: { record_id: r1 }
        expect: allow
"""


def test_what_cedar_cannot_express_is_left_out_and_counted(workspace: Workspace) -> None:
    """A grant, an entity that is missing, a policy that errs, and one of several resources that denies."""
    made = export(workspace, results(workspace, CASES))

    assert made.left_out == {
        "in which one of several resources denies the call": 1,
        "of a run with a grant": 1,
        "that the guard denies by itself, missing_entity": 1,
        "that the guard denies by itself, policy_error": 1,
    }
    passed = [one for _, one in judged(made)]
    # A call on two records is two tests; one case fails here, so it fails there.
    assert passed == [True, True, True, True, True, True, True, False]
    names = [test["name"] for test in json.loads(made.files[TESTS])]
    assert names[0].endswith('bob, call=read_many, record_ids=[r1, r2] on Record::"r1"')


def test_approval_is_exported_where_the_guard_would_have_asked(workspace: Workspace) -> None:
    """Elsewhere it was never in the context that decided."""
    made = export(workspace, results(workspace, CASES))
    approved = ["approval" in test["request"]["context"] for test in json.loads(made.files[TESTS])]

    assert approved == [False, False, False, True, True, False, False, False]


def test_listed_entity_that_is_acted_on_is_in_what_acts_on_it(tmp_path: Path) -> None:
    """As the guard has it: a policy may ask whether a resource is in its tool."""
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "t.cedarschema").write_text("entity Room in [Tool] = { open: Bool };")
    (tmp_path / "cedarentities.json").write_text(
        json.dumps(
            [
                {"uid": {"type": "Room", "id": "a"}, "attrs": {"open": True}, "parents": []},
                {"uid": {"type": "Room", "id": "b"}, "attrs": {"open": True}, "parents": []},
            ]
        )
    )
    (tmp_path / "p.cedar").write_text(
        '@id("in") permit (principal, action, resource) when { resource in Tool::"enter" };'
    )
    tool = GuardedTool(
        name="enter", server="s", input=record_of({"room": Field(str)}, where="enter"), resource_type="Room"
    )
    offered = Offered(tool=tool, resource=ResourceTemplate.parse("Room::{room}"))
    written = WrittenSchema(server="s", offers=(offered,))
    (tmp_path / FILE).write_text(write_schema(written, read_folder(tmp_path, Limits())))
    (tmp_path / "a.test.yaml").write_text(
        "scenarios: [{ name: n, as: { agent: a }, call: enter, with: { room: a }, expect: allow, by: in }]"
    )
    opened = open_workspace(tmp_path)
    (suite,) = open_suites(opened)
    made = export(opened, run(opened, suite))

    assert [passed for _, passed in judged(made)] == [True]
