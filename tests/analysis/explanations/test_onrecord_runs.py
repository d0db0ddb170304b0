"""Why a call on record was denied for what its run had done, and what would have let it pass."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agentguard.analysis.explanations.onrecord import OnRecord, explain_record
from agentguard.analysis.supposed import SupposedCall, judge, requests_of
from agentguard.analysis.workspace import Workspace
from agentguard.lifecycle.tally import Tally
from tests.analysis.kept import kept
from tests.analysis.spending import payment, spending
from tests.policy.records import NOW


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the server that pays."""
    return spending(tmp_path_factory.mktemp("inbox"))


def explained(workspace: Workspace, call: SupposedCall, **options: Any) -> OnRecord:
    """Decide a call, and explain the record of that."""
    (request,) = requests_of(workspace, call)
    return explain_record(kept(request, judge([request], workspace.policies).decisions[0], **options), workspace)


def texts(found: OnRecord) -> list[str]:
    """Return what is suggested."""
    return [one.text for one in found.suggestions]


def test_values_are_those_that_were_judged(workspace: Workspace) -> None:
    """The run's calls at the time."""
    found = explained(workspace, payment("1.0000", run=Tally(calls=12)))
    assert found.link is not None
    (cap,) = [one for one in found.link.organisation if one.id == "cap"]

    assert (cap.matched, cap.decided) == (True, True)
    assert cap.conditions[-1].shown == "12 >= 10"


def test_new_run_would_be_allowed_if_its_amount_is_on_record(workspace: Workspace) -> None:
    """It spends that amount too; without it, nobody can tell."""
    call = payment("1.0000", run=Tally(calls=12))

    assert texts(explained(workspace, call, inputs=["amount", "fee"])) == ["a new run"]
    assert texts(explained(workspace, call)) == []


def test_new_run_needs_no_amount_where_no_policy_looks_at_what_was_spent(tmp_path: Path) -> None:
    """Whatever it spends."""
    policies = """@id("works") permit (principal, action, resource);
    @id("cap") forbid (principal, action, resource) when { context.run.calls >= 10 };"""

    assert texts(explained(spending(tmp_path, policies), payment("1.0000", run=Tally(calls=12)))) == ["a new run"]


def test_less_could_have_been_spent(workspace: Workspace) -> None:
    """As far as the amount is on record."""
    call = payment("100.0000", run=Tally(spent={"payments": 4_600_000}))

    assert texts(explained(workspace, call, inputs=["amount", "fee"])) == ['amount ≤ decimal("40.0")', "a new run"]
    assert texts(explained(workspace, call)) == []


def test_nothing_is_said_of_what_was_spent_where_that_is_not_on_record(workspace: Workspace) -> None:
    """No sum is made up."""
    call = payment("100.0000", run=Tally(spent={"payments": 4_600_000}))
    (request,) = requests_of(workspace, call)
    record = kept(request, judge([request], workspace.policies).decisions[0], inputs=["amount", "fee"])
    attributes = {name: value for name, value in record.attributes.items() if not name.endswith("run_state.spent")}
    found = explain_record(replace(record, attributes=attributes), workspace)

    assert texts(found) == []


def test_amount_may_be_another_where_what_was_spent_stops_nothing(tmp_path: Path) -> None:
    """It is not on record how much that is, and makes no difference."""
    policies = """@id("works") permit (principal, action, resource);
    @id("rich") permit (principal, action == Action::"pay", resource)
    when { context.run.spent.payments.greaterThan(decimal("900.0")) };
    @id("some") forbid (principal, action == Action::"pay", resource)
    when { context.input.amount.lessThan(decimal("10.0")) };"""
    workspace = spending(tmp_path, policies)
    (request,) = requests_of(workspace, payment("1.0000"))
    record = kept(request, judge([request], workspace.policies).decisions[0], inputs=["amount", "fee"])
    attributes = {name: value for name, value in record.attributes.items() if not name.endswith("run_state.spent")}

    assert texts(explain_record(replace(record, attributes=attributes), workspace)) == ['amount ≥ decimal("10.0")']


def without(workspace: Workspace, call: SupposedCall, *left_out: str, **more: Any) -> OnRecord:
    """Decide a call, and explain a record of that which lacks something."""
    (request,) = requests_of(workspace, call)
    record = kept(request, judge([request], workspace.policies).decisions[0], inputs=["amount", "fee"])
    attributes = {name: value for name, value in record.attributes.items() if not name.endswith(left_out)}
    return explain_record(replace(record, attributes={**attributes, **more}), workspace)


AGED: Final = """@id("works") permit (principal, action, resource);
@id("old") forbid (principal, action, resource)
when { context.now.durationSince(context.run.started_at) > duration("1h") };
@id("cap") forbid (principal, action, resource) when { context.run.calls >= 10 };
@id("paper") forbid (principal, action, resource) when { context.run.spent.paper.greaterThan(decimal("3.0")) };"""


def test_record_that_says_nothing_of_the_run_can_be_explained(tmp_path: Path) -> None:
    """As one of an earlier version: what a new run has done is known all the same."""
    call = replace(payment("1.0000", run=Tally(started_at=NOW - 3_601.0)), now=float(NOW))

    assert texts(without(spending(tmp_path, AGED), call, "run_state.started_at")) == ["a new run"]


def test_new_run_has_the_totals_that_the_record_does_not_know(tmp_path: Path) -> None:
    """A total that was declared since."""
    call = replace(payment("1.0000", run=Tally(calls=12)), now=float(NOW))
    since = {"agentguard.run_state.spent": ("payments=1.0000",)}

    assert texts(without(spending(tmp_path, AGED), call, "run_state.spent", **since)) == ["a new run"]


def test_new_run_begins_when_the_call_was_judged_whenever_that_was(tmp_path: Path) -> None:
    """A person may have thought it over for hours."""
    call = replace(payment("1.0000", run=Tally(calls=12)), now=float(NOW))
    asked = {"agentguard.approval.id": "q1"}
    workspace = spending(tmp_path, AGED)

    assert texts(without(workspace, call)) == ["a new run"]
    assert texts(without(workspace, call, "agentguard.now", **asked)) == []
