"""What holds of every explanation, whatever is explained."""

from __future__ import annotations

from dataclasses import replace

from agentguard.analysis.explanations.changes import Value, applied
from agentguard.analysis.explanations.explain import Explanation, Found, LinkFound, explain_requests
from agentguard.analysis.explanations.suggestions import Suggestion
from agentguard.analysis.notation import of_units
from agentguard.analysis.supposed import judge
from agentguard.model import AccessRequest, Reason
from agentguard.policy.conversion.scalars import LONG_MAX, LONG_MIN
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide
from tests.policy.deciding.test_engine_properties import World, compiled


def check(world: World) -> Explanation:
    """Explain a request, and check all that has to hold of that."""
    policies = compiled(world.policies)
    verdict = judge([world.request], policies)
    found = explain_requests([world.request], policies)

    assert (found.verdict.effect, found.verdict.reason) == (verdict.effect, verdict.reason)
    assert found.verdict.policy_ids == verdict.policy_ids
    (answer,) = found.answers
    if not verdict.early:
        assert answer.decision == decide(world.request, policies)
    every = [one for link in answer.links for one in (*link.organisation, *(link.grant or ()))]
    named = {one.id for one in every if one.decided and one.matched}
    if not verdict.early:
        assert named == set(answer.decision.policy_ids)
        if not verdict.allowed and answer.decision.reason is not Reason.APPROVAL_UNAVAILABLE:
            below = [link for depth, link in enumerate(answer.links) if depth != answer.decision.link]
            assert not any(one.decided for link in below for one in (*link.organisation, *(link.grant or ())))
        by_failure = answer.decision.reason is Reason.POLICY_ERROR
        failed = {error.split("`")[1] for error in answer.decision.errors if by_failure}
        assert {one.id for one in every if one.decided and one.error} == failed
    assert named <= set(verdict.policy_ids)
    for link in answer.links:
        _check_link(link)
    if verdict.allowed:
        assert found.suggestions == ()
    for suggestion in found.suggestions:
        _check_suggestion(suggestion, [world.request], policies)
    return found


def _check_link(link: LinkFound) -> None:
    for one in (*link.organisation, *(link.grant or ())):
        _check_policy(one)


def _check_policy(one: Found) -> None:
    """A policy matches if all its conditions are as wanted, and what was not looked at had no say."""
    looked_at = [condition for condition in one.conditions if condition.looked_at]
    if one.matched:
        assert all(condition.met for condition in one.conditions)
        assert looked_at == list(one.conditions)
    elif one.matched is False:
        assert [condition.holds for condition in looked_at if not condition.met] == [not looked_at[-1].piece.wanted]
        assert not looked_at[-1].met
    else:
        assert one.error
        assert looked_at[-1].holds is None


def _check_suggestion(suggestion: Suggestion, requests: list[AccessRequest], policies: PolicySet) -> None:
    """The change makes the call allowed, no part of it could be left out, and a range ends where it says."""
    assert judge(suggestion.requests, policies).allowed
    again = applied(suggestion.changes, requests)
    assert again is not None
    assert [(one.context, one.entities) for one in again] == [
        (one.context, one.entities) for one in suggestion.requests
    ]

    def allowed(change: Value, units: int, kind: str) -> bool:
        value = of_units(kind, units)
        changes = [replace(one, value=value) if one is change else one for one in suggestion.changes]
        changed = applied(changes, requests)
        return value is not None and changed is not None and judge(changed, policies).allowed

    for change in suggestion.changes:
        rest = applied([one for one in suggestion.changes if one is not change], requests)
        assert rest is not None
        assert not judge(rest, policies).allowed
        if isinstance(change, Value) and (span := change.span) is not None:
            unit = 1 if change.depth is None else 1_000
            for end, beyond in ((span.least, -unit), (span.most, unit)):
                if end is not None:
                    assert allowed(change, end, span.kind)
                    assert not allowed(change, end + beyond, span.kind)
            if span.kind == "Long":
                assert span.least is not None or allowed(change, LONG_MIN, span.kind)
                assert span.most is not None or allowed(change, LONG_MAX, span.kind)
