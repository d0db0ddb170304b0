"""Which scopes would have made a denied call allowed?

A policy says with ``@scopes`` what it looks for in a token. Where a call is denied, it is
decided again as if the token had those scopes too: if only they are missing, whoever
calls can be told to get a token that has them. The answer is a list of names. Nothing
runs by it, and it widens nothing: whoever comes back with such a token is judged anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.model import Reason
from agentguard.policy.deciding.engine import bearing, decide, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agentguard.model import AccessRequest, Decision, Invocation
    from agentguard.policy.deciding.compiled import Policy, PolicySet

# What a token with more scopes can change; an entity that is missing or a policy that
# fails to evaluate are not among them.
_BY_POLICY: Final = frozenset((Reason.NO_PERMIT, Reason.POLICY))
# Sets of scopes that are tried for one denial: each costs two decisions at most.
_MOST: Final = 8


def scopes_for(denial: Decision, requests: Sequence[AccessRequest], policies: PolicySet) -> tuple[str, ...]:
    """Return every scope that a call needs, if its token's lack of some is all that stops it.

    Args:
        denial: What the call was answered with.
        requests: All that the call asks for, of one invocation and by one action.
        policies: The policies that denied it.

    Returns:
        The scopes, those that the token has already included, sorted. Empty if they would
        not help, or if the run was delegated: it cannot get more than its parent has.
    """
    first = requests[0]
    if denial.reason not in _BY_POLICY or first.invocation.ancestors:
        return ()

    def helps(scopes: frozenset[str]) -> bool:
        answers = (decide(request, policies, supposing=scopes) for request in requests)
        return all(answer.allowed or answer.reason is Reason.APPROVAL_UNAVAILABLE for answer in answers)

    bear = [
        policy
        for request in requests
        for policy in bearing(request.invocation, request.action, policies, request.entities)
    ]
    return _needed(first.invocation.scopes, bear, helps)


def scopes_ever_for(
    denial: Decision,
    invocation: Invocation,
    action: str,
    policies: PolicySet,
    entities: Sequence[Mapping[str, object]] = (),
) -> tuple[str, ...]:
    """Return every scope that some call needs, where `never` denies them all for the lack of scopes alone.

    With them a call may still be denied for what it is about. That is not asked: for a
    caller who may not call at all, no argument is looked at.

    Args:
        denial: What `never` gave.
        invocation: Who would call.
        action: What would be called.
        policies: The policies that deny it.
        entities: As `never` got them.

    Returns:
        As `scopes_for`.
    """
    if denial.reason not in _BY_POLICY or invocation.ancestors:
        return ()

    def helps(scopes: frozenset[str]) -> bool:
        return never(invocation, action, policies, entities, supposing=scopes) is None

    return _needed(invocation.scopes, bearing(invocation, action, policies, entities), helps)


def _needed(
    held: frozenset[str], policies: Iterable[Policy], helps: Callable[[frozenset[str]], bool]
) -> tuple[str, ...]:
    """Return the scopes of as few of *policies* as it takes, sorted."""
    wanted = list(dict.fromkeys(policy.scopes for policy in policies if not policy.scopes <= held))[:_MOST]
    if not wanted:
        return ()
    if not helps(held.union(*wanted)):
        # A policy may forbid what another asks for, so that one alone helps and all do not.
        wanted = next(([one] for one in wanted if len(wanted) > 1 and helps(held | one)), [])
    # What it does without is left out: the longest first, and of two equals the later.
    tried = wanted[::-1]
    tried.sort(key=lambda scopes: -len(scopes - held))
    for one in tried:
        rest = [other for other in wanted if other != one]
        if rest and helps(held.union(*rest)):
            wanted = rest
    return tuple(sorted(frozenset[str]().union(*wanted)))
