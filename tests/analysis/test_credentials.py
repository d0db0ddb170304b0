"""That a tool wants a credential is a call like any other: it is supposed, explained, replayed and looked through."""

from pathlib import Path
from typing import Final

import pytest

from agentguard.analysis.explanations.explain import explain
from agentguard.analysis.history.hindsight import Hindsight
from agentguard.analysis.history.replay import replay
from agentguard.analysis.lints.run import lint
from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.supposed import judge, requests_of, suppose
from agentguard.analysis.workspace import Workspace
from agentguard.errors import PolicyError
from tests.analysis.kept import kept
from tests.analysis.spending import spending

POLICIES: Final = """
@id("works") @owner("a") permit (principal, action == Action::"pay", resource);
@id("bank") @owner("a") permit (principal, action == Action::"credentials/issue", resource == Credential::"bank")
when { context.input.tool == "pay" };
@id("clean") @owner("a") forbid (principal, action == Action::"credentials/issue", resource)
when { context.run.labels.contains("untrusted") };
"""
SCENARIOS: Final = """
identities: { clerk: { agent: clerk } }
scenarios:
  - name: the bank's for paying
    as: clerk
    call: credentials/issue
    with: { credential: bank, tool: pay }
    cases:
      - { expect: allow, by: bank }
      - { with: { tool: print }, expect: deny, reason: no_permit }
      - { with: { credential: crm }, expect: deny, reason: no_permit }
      - { run: { labels: untrusted }, expect: deny, by: clean }
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the server that pays, with a broker."""
    return spending(tmp_path_factory.mktemp("inbox"), POLICIES)


def test_credential_is_judged_by_its_name_and_for_its_tool(workspace: Workspace) -> None:
    """With what the run has done."""
    cases = read_suite(workspace, "a.test.yaml", SCENARIOS).cases

    assert [case.expected.met_by(suppose(workspace, case.call)) for case in cases] == [True] * 4
    (request,) = requests_of(workspace, cases[0].call)
    assert str(request.resource) == 'Credential::"bank"'
    assert request.entities[-1]["parents"] == [{"type": "Server", "id": "inbox"}]


def test_denied_credential_is_explained(workspace: Workspace) -> None:
    """As a call of a tool is."""
    case = read_suite(workspace, "a.test.yaml", SCENARIOS).cases[3]
    found = explain(suppose(workspace, case.call), workspace.policies, workspace=workspace)

    assert [one.text for one in found.suggestions] == ["a new run"]


def test_credential_on_record_is_judged_again(workspace: Workspace, tmp_path: Path) -> None:
    """Which it was is on record, and for which tool where that was kept."""
    (request,) = requests_of(workspace, read_suite(workspace, "a.test.yaml", SCENARIOS).cases[0].call)
    record = kept(request, judge([request], workspace.policies).decisions[0], inputs=["tool"])
    stricter = spending(tmp_path, POLICIES.replace('== "pay"', '== "refund"'))
    replayed = replay(record, workspace)

    assert replayed.request.resource == request.resource
    assert Hindsight(workspace, stricter).answer(replayed).effect == "deny"


def test_credential_is_no_tool_that_nobody_can_reach(workspace: Workspace, tmp_path: Path) -> None:
    """Nothing is found in policies about it, and another mistake in them is."""
    assert [one for one in lint(workspace) if "redential" in one.what] == []
    with pytest.raises(PolicyError, match="has no argument `credentail`: did you mean `credential`"):
        spending(tmp_path, POLICIES.replace("input.tool", "input.credentail"))
