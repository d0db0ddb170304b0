"""The permit that came closest, where none matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentguard.analysis.explanations.conditions import conditions_of
from agentguard.analysis.known import Known
from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.trial import Question, trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.analysis.explanations.conditions import Condition
    from agentguard.model import AccessRequest
    from agentguard.policy.deciding.compiled import Policy, PolicySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """The permit that came closest.

    Attributes:
        policy: The permit.
        condition: The first of its conditions that differs, as it is written; empty for what
            could not be evaluated at all.
        values: The paths in that condition with their values, in Cedar's notation.
        shown: The same in one text, `"month close"`.
        differs: How many of its conditions differ.
        wanted: What the condition would have to be: false for one of an `unless`.
    """

    policy: Policy
    condition: str
    values: tuple[tuple[str, str], ...]
    shown: str
    differs: int
    wanted: bool = True


def nearest(requests: Sequence[AccessRequest], policies: PolicySet) -> Near | None:
    """Return the permit that came closest to one that a denial lacked.

    Args:
        requests: What was asked, one request for each resource.
        policies: The policies that denied it.

    Returns:
        The permit of which the fewest conditions differ, one for this principal before one for
        another, and of two the one that got further; None if no request is denied because no
        permit matched, or if none is about the action.
    """
    for request in requests:
        decision = decide(request, policies)
        if decision.reason is not Reason.NO_PERMIT:
            continue
        tried = trials(request, policies)[decision.link].organisation
        permits = [trial.policy for trial in tried if trial.permit and trial.policy is not None]
        question, known = Question(request, policies), Known(request, policies, decision.link)
        found = conditions_of([permit.text for permit in permits], question, known)
        near = [_near(permit, conditions) for permit, conditions in zip(permits, found, strict=True)]
        if near:
            return min(near, key=lambda one: one[0])[1]
    return None


def _near(policy: Policy, conditions: Sequence[Condition]) -> tuple[tuple[bool, int, int], Near]:
    """Return a permit with how far it is: for whom it is, how many conditions differ, and where the first stands."""
    differing = [place for place, condition in enumerate(conditions) if not condition.met]
    first = conditions[differing[0]]
    near = Near(
        policy=policy,
        condition=first.text,
        values=first.values,
        shown=first.shown,
        differs=len(differing),
        wanted=first.piece.wanted,
    )
    return (first.piece.place == "principal", len(differing), -differing[0]), near
