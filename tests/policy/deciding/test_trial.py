"""Policies that are tried one by one."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import AccessRequest, EntityUid, Reason
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.trial import LinkTrials, Question, Trial, holds, matching, permits, trials
from agentguard.policy.text.lexer import LexError
from agentguard.testing import unsafe_invocation
from tests.policy.deciding.test_engine_properties import World, compiled, worlds
from tests.policy.records import ALL, context, policy_set, reads, record, searches

LONGEST = 9_223_372_036_854_775_807


def ids(found: Iterable[Trial]) -> tuple[str, ...]:
    """Return the ids of some trials as a decision has them."""
    return tuple(sorted({trial.id for trial in found}, key=lambda id_: (":" in id_, id_)))


def answer(link: LinkTrials) -> tuple[Reason, tuple[str, ...]]:
    """Return what follows from the trials of one link."""
    if link.refusal is not None:
        return link.refusal.reason, ()
    tried = (*link.organisation, *(link.grant or ()))
    forbids = [trial for trial in tried if trial.matched and not trial.permit]
    failed = any(trial.matched is None for trial in tried)
    if forbids:
        return (Reason.POLICY if any(trial.policy for trial in forbids) else Reason.GRANT), ids(forbids)
    if failed:
        return Reason.POLICY_ERROR, ()
    if not any(trial.matched and trial.permit for trial in link.organisation):
        return Reason.NO_PERMIT, ()
    if link.grant is not None and not any(trial.matched and trial.permit for trial in link.grant):
        return Reason.GRANT, ()
    return Reason.PERMIT, ids(trial for trial in tried if trial.matched)


def decided(request: AccessRequest, policies: PolicySet) -> tuple[Reason, tuple[str, ...], int]:
    """Return the reason, the ids and the link that follow from what was tried."""
    answers = [answer(link) for link in trials(request, policies)]
    for depth, (reason, named) in enumerate(answers):
        if reason is not Reason.PERMIT:
            return reason, named, depth
    named = tuple(sorted({id_ for _, named in answers for id_ in named}, key=lambda id_: (":" in id_, id_)))
    return Reason.PERMIT, named, len(answers) - 1


@settings(deadline=None, max_examples=40)
@given(worlds(deep=True))
def test_the_determining_policies_follow_from_those_that_match(world: World) -> None:
    """Reason, ids and link are those of `decide`, and every policy whose head covers the action has its answer."""
    policies = compiled(world.policies)
    decision = decide(world.request, policies)
    reachable = {world.request.action, *policies.actions[world.request.action].tool.groups}
    heads = {policy.id: policy.scope.actions for policy in policies.policies.values()}
    covering = {id_ for id_, actions in heads.items() if actions is None or not actions.isdisjoint(reachable)}

    assert decided(world.request, policies) == (decision.reason, decision.policy_ids, decision.link)
    for depth, (found, link) in enumerate(
        zip(matching(world.request, policies), trials(world.request, policies), strict=True)
    ):
        own = {f"grant:{depth}"} if world.request.invocation.chain[depth].grant is not None else set()
        assert found.keys() == (covering | own if link.refusal is None else set())


ROWS = policy_set(
    ALL,
    """@id("few") @advice("fewer") forbid (principal, action == Action::"search", resource)
    when { context.input.rows > 2 };""",
    '@id("none") forbid (principal, action == Action::"search", resource) when { context.input.rows > 5 };',
    f"""@id("sum") permit (principal, action == Action::"search", resource)
    when {{ context.input.rows + {LONGEST} > 0 }};""",
    '@id("of-b") permit (principal in Agent::"b", action == Action::"search", resource);',
    '@id("reads") permit (principal, action == Action::"read", resource);',
)


def test_permits_are_told_of_beside_the_forbids_that_decide() -> None:
    """Cedar's denial names forbids alone; one that failed is neither yes nor no."""
    assert matching(searches(rows=3), ROWS) == ({"all": True, "few": True, "none": False, "sum": None, "of-b": False},)
    assert matching(searches(unsafe_invocation("b"), rows=-1), ROWS) == (
        {"all": True, "few": False, "none": False, "sum": True, "of-b": True},
    )
    (link,) = trials(searches(rows=3), ROWS)
    assert link.grant is None
    assert [trial.error for trial in link.organisation if trial.matched is None] == [
        "integer overflow while attempting to add the values"
    ]


def test_a_grant_matches_if_it_permits() -> None:
    """Its policies count as one: a permit, no forbid, and nothing that failed."""
    some = 'permit (principal, action == Action::"search", resource) when { context.input.rows < 3 };'
    no = 'forbid (principal, action == Action::"search", resource) when { context.input.rows < 1 };'
    broken = f'forbid (principal, action == Action::"search", resource) when {{ context.input.rows + {LONGEST} > 0 }};'
    policies = policy_set(ALL)

    def granted(rows: int, text: str) -> bool | None:
        parent = unsafe_invocation("a", grant="permit (principal, action, resource);")
        child = unsafe_invocation("b", grant=text, ancestors=(parent,))
        first, second = matching(searches(child, rows=rows), policies)
        assert first == {"all": True, "grant:0": True}
        return second["grant:1"]

    assert granted(2, some) is True
    assert granted(3, some) is False
    assert granted(0, some + no) is False
    assert granted(2, some + broken) is None
    assert permits(()) is False


def test_what_cannot_be_judged_says_why_in_place_of_trials() -> None:
    """For the whole request, or for the link that cannot be."""
    policies = policy_set(ALL)
    unknown = AccessRequest(
        invocation=unsafe_invocation("a"), action="delete", resource=EntityUid("Tool", "delete"), context=context()
    )
    parent = unsafe_invocation("a", grant='permit (principal, action == Action::"gone", resource);')
    child = searches(unsafe_invocation("b", ancestors=(parent,)))
    odd = AccessRequest(
        invocation=unsafe_invocation("a"),
        action="search",
        resource=EntityUid("Tool", "search"),
        context={**context(text="x", rows=1), "approval": {"__extn": {"fn": "unknown", "arg": "x"}}},
    )

    def why(request: AccessRequest) -> list[Reason | None]:
        return [None if link.refusal is None else link.refusal.reason for link in trials(request, policies)]

    assert why(unknown) == [Reason.UNGUARDED]
    assert matching(unknown, policies) == ({},)
    assert why(child) == [Reason.GRANT, None]
    assert why(odd) == [Reason.INVALID_ARGUMENT]
    assert why(searches(rows="1")) == [Reason.INVALID_ARGUMENT]
    assert why(reads(None, record("other"))) == [Reason.MISSING_ENTITY]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("context.input.rows > 1", True),
        ("context.input.rows > 2 // too many", False),
        ('principal in Agent::"child"', True),
        ('principal has purpose && principal.purpose == "x"', False),
        (f"context.input.rows + {LONGEST} > 0", None),
        ("context.input.rows", None),
        ("{a: [(1)]}.a.contains(1)", True),
    ],
)
def test_a_condition_holds_does_not_or_cannot_be_evaluated(condition: str, wanted: bool | None) -> None:
    """One expression, asked as if it were all of a policy."""
    child = unsafe_invocation("child", ancestors=(unsafe_invocation("parent"),))

    assert holds(condition, searches(child, rows=2), ROWS) is wanted


def test_a_condition_is_asked_of_the_link_that_is_named() -> None:
    """Root first, as in the chain; the run itself if nothing is said."""
    child = unsafe_invocation("child", ancestors=(unsafe_invocation("parent"),))

    assert holds('principal in Agent::"child"', searches(child), ROWS, link=0) is False
    assert holds('principal in Agent::"parent"', searches(child), ROWS, link=0) is True


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "true; permit (principal, action, resource)",
        "true } unless { false",
        "true }; permit (principal, action, resource) when { true",
        "(true",
        "true]",
        "no cedar",
        '"',
        "(" * 101 + "true" + ")" * 101,
    ],
)
def test_what_is_not_one_expression_is_no_condition(condition: str) -> None:
    """It could go on as another policy, or end the process in Cedar's parser."""
    with pytest.raises(LexError):
        holds(condition, searches(), ROWS)


def test_a_condition_keeps_to_the_limits_of_the_policies() -> None:
    """A set that was compiled with smaller bounds is asked nothing larger."""
    small = policy_set(ALL, limits=Limits(policy_operators=3))

    with pytest.raises(LexError, match="at most 3 operators"):
        holds("1 < 2 && 2 < 3 && 3 < 4", searches(), small)


def test_a_request_that_cannot_be_judged_answers_no_condition() -> None:
    """It says why instead, as a denial would."""
    with pytest.raises(Refusal) as caught:
        holds("true", searches(rows="1"), ROWS)

    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_an_error_of_another_form_leaves_every_answer_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Cedar ever words its errors otherwise, nothing passes for a no."""
    monkeypatch.setattr("agentguard.policy.deciding.trial._FAILED", re.compile("never"))

    (link,) = trials(searches(rows=3), ROWS)

    assert {trial.matched for trial in link.organisation if trial.id != "of-b"} == {None}


def test_the_principal_of_a_link_is_known_with_all_that_it_is_in() -> None:
    """What explains a head that asks for another."""
    question = Question(searches(unsafe_invocation("a", run_id="r")), ROWS)

    assert question.closure(0) == {("Invocation", "r"), ("Agent", "a")}
    assert question.link(0).principal == {"type": "Invocation", "id": "r"}
