"""Why a call on record was denied for what its run had done, and what would have let it pass."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agentguard.analysis.explanations.explain import LinkFound
from agentguard.analysis.explanations.onrecord import OnRecord, explain_record
from agentguard.analysis.supposed import judge, requests_of
from agentguard.analysis.supposedcall import Identity, SupposedCall
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


GRANT: Final = {"agentguard.decision.reason": "grant"}
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


def test_no_other_run_helps_where_the_grant_permits_no_such_call(tmp_path: Path) -> None:
    """It was denied before anybody asked what the run had done, and would be again."""
    call = replace(payment("1.0000"), now=float(NOW))
    early = ("arguments.digest", "run_state.started_at", "policy.ids", "policy.id")
    found = without(spending(tmp_path, AGED), call, *early, **{"agentguard.decision.effect": "deny"}, **GRANT)

    assert (found.early, found.grants, found.why) == (True, False, "")
    assert (found.suggestions, found.mended) == ((), ())


def boss(**done: Any) -> Identity:
    """Return who delegates, with what its run has done."""
    return Identity(agent="boss", run=Tally(**done))


def shown(link: LinkFound | None, id_: str) -> tuple[bool | None, bool, str]:
    """Return what is told of one policy at one link: whether it matched, whether it decided, and its last condition."""
    assert link is not None
    (one,) = [one for one in link.organisation if one.id == id_]
    return one.matched, one.decided, one.conditions[-1].shown


def test_call_that_a_run_above_stopped_is_told_by_what_that_had_done(workspace: Workspace) -> None:
    """The run itself had done next to nothing."""
    found = explained(workspace, payment("1.0000", ancestors=(boss(calls=12), boss(calls=1)), run=Tally(calls=1)))

    assert (found.place, found.delegated, found.unknown) == (0, True, ())
    assert shown(found.above, "cap") == (True, True, "12 >= 10")
    assert shown(found.link, "cap") == (False, False, "1 >= 10")
    assert found.suggestions == ()


def test_call_that_the_run_itself_was_denied_for_is_told_by_that_alone(workspace: Workspace) -> None:
    """Those above had let it pass."""
    found = explained(workspace, payment("1.0000", ancestors=(boss(calls=1),), run=Tally(shared=True)))

    assert (found.place, found.above) == (1, None)
    assert shown(found.link, "one-holder") == (True, True, "true")


def test_what_a_run_above_had_done_is_unknown_where_that_is_not_on_record(workspace: Workspace) -> None:
    """That it was this policy there is on record all the same."""
    found = without(workspace, payment("1.0000", ancestors=(boss(calls=12),)), "run_state.above")
    assert shown(found.above, "cap") == (True, True, "unknown >= 10")
    other = without(workspace, payment("1.0000", ancestors=(boss(calls=12),)), "run_state.above", "decision.link")
    assert (other.place, other.above) == (None, None)


def test_record_that_names_the_wrong_link_does_not_fit(workspace: Workspace) -> None:
    """What the run itself had done is on record, and stops nothing."""
    found = without(workspace, payment("1.0000", ancestors=(boss(calls=12),)), **{"agentguard.decision.link": 1})

    assert found.why == "the record says of these policies what they cannot have come to"


ASKED: Final = """@id("works") permit (principal, action, resource);
@id("many") @obligation("approval") forbid (principal, action, resource)
when { context.run.calls >= 10 } unless { context has approval };
@id("who") @obligation("approval") forbid (principal, action, resource) when { principal.agent == Agent::"clerk" }
unless { context has approval };
@id("never") forbid (principal, action, resource) when { context.run.shared };"""


def test_question_to_a_person_names_what_each_link_asks(tmp_path: Path) -> None:
    """At the first that asks, and at the run itself; who delegated is not on record."""
    workspace = spending(tmp_path, ASKED)
    asked = {"agentguard.decision.reason": "approval_required"}
    found = without(workspace, payment("1.0000", ancestors=(boss(calls=12),)), **asked)

    assert (found.place, found.unknown) == (0, ("ancestors",))
    assert shown(found.above, "many")[:2] == (True, True)
    assert shown(found.above, "who")[:2] == (None, False)
    assert shown(found.link, "many")[:2] == (False, False)
    assert shown(found.link, "who")[:2] == (True, True)
    one = without(workspace, payment("1.0000", ancestors=(boss(),)), **asked)
    assert (one.place, one.above) == (1, None)


def test_hard_denial_of_a_run_below_one_that_a_person_would_be_asked_for(tmp_path: Path) -> None:
    """What could be lifted may have matched above, and nothing else that forbids."""
    workspace = spending(tmp_path, ASKED)
    found = explained(workspace, payment("1.0000", ancestors=(boss(calls=12),), run=Tally(shared=True)))

    assert (found.place, found.above) == (1, None)
    assert shown(found.link, "never")[:2] == (True, True)
