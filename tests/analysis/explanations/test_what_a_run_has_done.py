"""What would let a call pass that is denied for what its run has done."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentguard.analysis.explanations.changes import NewRun, Who
from agentguard.analysis.explanations.explain import explain
from agentguard.analysis.explanations.suggestions import Suggestion
from agentguard.analysis.supposed import judge, suppose
from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace
from agentguard.lifecycle.tally import Tally
from tests.analysis.clinic import NOW
from tests.analysis.spending import POLICIES, decimal, payment, spending


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the server that pays."""
    return spending(tmp_path_factory.mktemp("inbox"))


def suggested(workspace: Workspace, call: SupposedCall) -> tuple[Suggestion, ...]:
    """Return what is suggested, each having been tried again."""
    found = explain(suppose(workspace, call), workspace.policies, workspace=workspace).suggestions
    assert all(judge(one.requests, workspace.policies).allowed for one in found)
    return found


def texts(workspace: Workspace, call: SupposedCall) -> list[str]:
    """Return how they are told."""
    return [one.text for one in suggested(workspace, call)]


def spent(units: int, **done: Any) -> Tally:
    """Return a run that has paid."""
    return Tally(spent={"payments": units * 10_000}, **done)


def test_less_can_be_spent_or_it_is_another_run(workspace: Workspace) -> None:
    """The limit is told as the amount that is left of it."""
    found = suggested(workspace, payment("100.0000", run=spent(460)))

    assert [one.text for one in found] == ['amount ≤ decimal("40.0")', "a new run"]
    assert [one.who for one in found] == [Who.CALLER, Who.RUN]


def test_amount_that_no_run_may_spend_is_not_for_a_new_run(workspace: Workspace) -> None:
    """A new run spends it too."""
    assert texts(workspace, payment("500.0001")) == ['amount ≤ decimal("500.0")']


def test_amounts_of_one_call_count_together(workspace: Workspace) -> None:
    """Either of them may be less."""
    call = payment("480.0000")
    call = replace(call, input={**call.input, "fee": decimal("30.0000")})

    assert texts(workspace, call) == ['amount ≤ decimal("470.0")', 'fee ≤ decimal("20.0")']


def test_run_that_has_spent_everything_needs_another(workspace: Workspace) -> None:
    """Nothing can be spent that is less than nothing."""
    assert texts(workspace, payment("1.0000", run=spent(501))) == ["a new run"]


@pytest.mark.parametrize(
    "done", [Tally(calls=10), Tally(labels=frozenset({"untrusted"})), Tally(shared=True), Tally(calls=99, shared=True)]
)
def test_what_a_run_has_done_is_done(workspace: Workspace, done: Tally) -> None:
    """Only another one has not."""
    assert texts(workspace, payment("1.0000", run=done)) == ["a new run"]


def test_new_run_may_be_one_change_of_several(workspace: Workspace) -> None:
    """What it would spend is what the call says by then."""
    found = suggested(workspace, payment("501.0000", run=Tally(calls=10)))

    assert [one.text for one in found] == ['a new run and amount ≤ decimal("500.0")']
    assert found[0].who is Who.RUN


def test_whole_numbers_are_spent_too(tmp_path: Path) -> None:
    """A page counts one."""
    policies = (
        '@id("works") permit (principal, action, resource);\n'
        '@id("paper") forbid (principal, action == Action::"print", resource)\n'
        'when { context.run.spent.paper.greaterThan(decimal("10.5")) };'
    )
    workspace = spending(tmp_path, policies)
    call = SupposedCall(
        identity=Identity(agent="clerk", run=Tally(spent={"paper": 30_000})),
        action="print",
        input={"pages": 9},
        now=NOW,
    )

    assert texts(workspace, call) == ["pages ≤ 7", "a new run"]


def test_delegated_call_needs_a_new_run_at_the_top(workspace: Workspace) -> None:
    """Whichever link has done too much."""
    boss = Identity(agent="clerk", grant="permit (principal, action, resource);", run=Tally(calls=10))
    call = payment("1.0000", ancestors=(boss,))
    verdict = suppose(workspace, call)

    assert verdict.decisions[0].link == 0
    assert texts(workspace, call) == ["a new run"]
    (request,) = verdict.requests
    again = NewRun(tool=workspace.policies.action("pay").tool, totals=workspace.policies.totals).apply(request)
    assert again is not None
    assert [again.of_link(depth)["run"] for depth in (0, 1)] == [again.context["run"]] * 2


def test_label_that_is_wanted_is_told_as_such(tmp_path: Path) -> None:
    """No new run has it."""
    policies = '@id("seen") permit (principal, action, resource) when { context.run.labels.contains("checked") };'
    workspace = spending(tmp_path, policies)
    boss = Identity(agent="clerk", grant="permit (principal, action, resource);")

    assert texts(workspace, payment("1.0000")) == ['context.run.labels with "checked"']
    assert texts(workspace, payment("1.0000", ancestors=(boss,))) == ['context.run.labels with "checked"']


def test_amount_that_is_bounded_by_itself_counts_for_the_run_too(tmp_path: Path) -> None:
    """Nobody is told to spend what the run may not."""
    policies = f"""{POLICIES}
@id("some") forbid (principal, action == Action::"pay", resource)
when {{ context.input.amount.lessThan(decimal("10.0")) }};"""
    workspace = spending(tmp_path, policies)

    assert texts(workspace, payment("1.0000", run=spent(460))) == ['decimal("10.0") ≤ amount ≤ decimal("40.0")']


def test_explanation_says_what_each_link_has_done(workspace: Workspace) -> None:
    """The root's calls, not those of the child."""
    boss = Identity(agent="clerk", grant="permit (principal, action, resource);", run=Tally(calls=12))
    found = explain(suppose(workspace, payment("1.0000", ancestors=(boss,))), workspace.policies)
    shown = [
        condition.shown
        for link in found.answers[0].links
        for one in link.organisation
        if one.id == "cap"
        for condition in one.conditions
        if condition.piece.place == "when"
    ]

    assert shown == ["12 >= 10", "0 >= 10"]


def test_end_of_a_range_is_not_told_where_it_could_be_anywhere(tmp_path: Path) -> None:
    """A condition that chooses between two has no order."""
    policies = """@id("works") permit (principal, action, resource);
@id("odd") forbid (principal, action == Action::"pay", resource)
when { if context.run.spent.payments.greaterThan(decimal("500.0")) then context.run.calls < 5 else false };"""

    assert texts(spending(tmp_path, policies), payment("1.0000", run=spent(500))) == [
        'amount == decimal("0.0")',
        "context.run.calls == 5",
        "a new run",
    ]
