"""Why a call was decided as it was: every policy that bore on it, and what would have changed it.

Nothing here is a guess. Policies are tried with the engine's own request, the ids that are
marked are those of its decision, and every suggestion was decided before it is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.explanations.conditions import conditions_of
from agentguard.analysis.explanations.mended import Mended, mended
from agentguard.analysis.explanations.suggestions import suggestions
from agentguard.analysis.known import Known
from agentguard.analysis.supposed import Verdict, judge
from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.trial import Question, trials
from agentguard.steps.judging import is_liftable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentguard.analysis.explanations.conditions import Condition
    from agentguard.analysis.explanations.suggestions import Suggestion
    from agentguard.analysis.workspace import Workspace
    from agentguard.errors import Refusal
    from agentguard.model import AccessRequest, Decision, Invocation
    from agentguard.policy.deciding.compiled import Policy, PolicySet
    from agentguard.policy.deciding.trial import LinkTrials, Trial

MEANINGS: Final[Mapping[Reason, str]] = {
    Reason.NO_PERMIT: "no permit of the organisation matched",
    Reason.GRANT: "the grant of a run in the chain does not permit it",
    Reason.POLICY_ERROR: "a policy could not be evaluated, which counts as an objection",
    Reason.UNAUTHENTICATED: "the call had no identity, so no policy was asked",
    Reason.INVALID_TOKEN: "the token is not valid here, so no policy was asked",
    Reason.EXPIRED: "the run's time was over, so no policy was asked",
    Reason.REVOKED: "the run was revoked, so no policy was asked",
    Reason.INVALID_ARGUMENT: "an argument is not of the type that the tool declares, so no policy was asked",
    Reason.MISSING_ENTITY: "an entity that a policy could look at is not there, so no policy was asked",
    Reason.UNGUARDED: "nothing of that name is guarded, so no policy could be asked",
    Reason.APPROVAL_REQUIRED: "a person has to approve it, and nothing else stands against it",
    Reason.APPROVAL_DECLINED: "a person was asked, and said no",
    Reason.APPROVAL_INVALID: "the approval that came with it is not for this call",
    Reason.APPROVAL_UNAVAILABLE: "a person has to approve it, and nobody could be asked",
    Reason.EVIDENCE_UNAVAILABLE: "the evidence could not be written, so nothing may run",
    Reason.STORE_UNAVAILABLE: "the store of runs could not be asked, so nothing may run",
    Reason.CREDENTIAL_UNAVAILABLE: "no credential was to be had from the broker, so the tool could not go on",
    Reason.CREDENTIAL_LEAK: "its result held a secret that nobody may see, so it was withheld",
    Reason.INTERNAL_ERROR: "the guard itself failed, so nothing may run",
}
"""What a reason says, for those that no policy's id says better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One policy that bore on a call.

    Attributes:
        id: As decisions name it.
        permit: Whether it permits.
        matched: Whether it matched; None if that cannot be told, or if it failed.
        error: How it failed.
        decided: Whether it determined the decision.
        conditions: All that has to be so for it to match, in order.
        policy: The organisation's policy; None for one of a grant.
    """

    id: str
    permit: bool
    matched: bool | None
    error: str = ""
    decided: bool = False
    conditions: tuple[Condition, ...] = ()
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFound:
    """What one link of the chain came to.

    Attributes:
        invocation: Who acted there.
        organisation: The organisation's policies whose head covers the action.
        grant: The policies of the run's grant; None if it has none.
        refusal: Why nothing could be asked here; None if all was.
    """

    invocation: Invocation
    organisation: tuple[Found, ...] = ()
    grant: tuple[Found, ...] | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request, its decision, and the links of its chain, root first."""

    request: AccessRequest
    decision: Decision
    links: tuple[LinkFound, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a call was decided as it was.

    Attributes:
        verdict: What was decided.
        meaning: What the reason says, where no policy says it.
        answers: What was asked, one for each resource.
        suggestions: The smallest changes of the call after which it is allowed.
        mended: Changes of the policies after which it is allowed.
        loose: Whether what a suggestion says of arguments holds only as long as
            ``context.facts``, which is made of them, stays as it is.
    """

    verdict: Verdict
    meaning: str = ""
    answers: tuple[Answered, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    mended: tuple[Mended, ...] = ()
    loose: bool = False


def explain(verdict: Verdict, policies: PolicySet, *, workspace: Workspace | None = None) -> Explanation:
    """Explain what `judge` or `suppose` answered.

    Args:
        verdict: The answer.
        policies: The policies that gave it.
        workspace: The folder that they are of: without one, no change of policies is tried.
    """
    requests = _judged(verdict, policies)
    open_ = () if verdict.allowed else suggestions(requests, policies, fixed=_fixed(requests, workspace))
    return Explanation(
        verdict=verdict,
        meaning=meaning_of(verdict.reason, verdict.errors),
        answers=tuple(answered(request, policies, _decision(verdict, request, policies)) for request in requests),
        suggestions=open_,
        mended=() if verdict.allowed or workspace is None else mended(verdict, workspace),
        loose=any("facts" in request.context for request in requests),
    )


def explain_requests(
    requests: Sequence[AccessRequest], policies: PolicySet, *, workspace: Workspace | None = None
) -> Explanation:
    """Explain what the guard would answer to the requests of one call, one for each resource."""
    return explain(judge(requests, policies), policies, workspace=workspace)


def meaning_of(reason: Reason, errors: Sequence[str] = ()) -> str:
    """Return what a reason says, with what went wrong; empty where the policies say it."""
    meaning = MEANINGS.get(reason, "")
    return f"{meaning}: {'; '.join(errors)}" if meaning and errors else meaning


def answered(request: AccessRequest, policies: PolicySet, decision: Decision) -> Answered:
    """Return one request with its decision and all that bore on it.

    Args:
        request: The request.
        policies: The policies.
        decision: What was decided.
    """

    def decided(trial: Trial, depth: int) -> bool:
        named = trial.id in decision.policy_ids and trial.permit is decision.allowed
        if trial.matched is None:
            # One that failed has a say only where no forbid matched, and where arguments were looked at.
            named = decision.reason is Reason.POLICY_ERROR
        # A denial is by one link, but for what a person could lift: there all links are named.
        return named and (decision.allowed or is_liftable(decision) or depth == decision.link)

    return Answered(request=request, decision=decision, links=links_of(request, policies, decided))


def links_of(
    request: AccessRequest,
    policies: PolicySet,
    decided: Callable[[Trial, int], bool],
) -> tuple[LinkFound, ...]:
    """Return all that bore on a request, link by link.

    Args:
        request: The request.
        policies: The policies.
        decided: Tells whether a policy that matched, or failed, at a link determined the decision.
    """
    tried = trials(request, policies)
    chain = request.invocation.chain
    if len(tried) < len(chain):
        # Nothing of it could be asked, whoever it is.
        return tuple(LinkFound(invocation=invocation, refusal=tried[0].refusal) for invocation in chain)
    question = Question(request, policies) if any(link.refusal is None for link in tried) else None
    found = []
    for depth, (invocation, link) in enumerate(zip(chain, tried, strict=True)):
        if question is None or link.refusal is not None:
            found.append(LinkFound(invocation=invocation, refusal=link.refusal))
            continue
        known = Known(request, policies, depth)
        found.append(_link(invocation, link, question, known, decided))
    return tuple(found)


def _link(
    invocation: Invocation, link: LinkTrials, question: Question, known: Known, decided: Callable[[Trial, int], bool]
) -> LinkFound:
    every = (*link.organisation, *(link.grant or ()))
    conditions = conditions_of([trial.text for trial in every], question, known)
    found = [
        Found(
            id=trial.id,
            permit=trial.permit,
            matched=trial.matched,
            error=trial.error,
            decided=trial.matched is not False and decided(trial, known.depth),
            conditions=some,
            policy=trial.policy,
        )
        for trial, some in zip(every, conditions, strict=True)
    ]
    count = len(link.organisation)
    return LinkFound(
        invocation=invocation,
        organisation=tuple(found[:count]),
        grant=None if link.grant is None else tuple(found[count:]),
    )


def _judged(verdict: Verdict, policies: PolicySet) -> tuple[AccessRequest, ...]:
    """Return the requests as they were judged: nobody is asked to approve what would be denied anyway."""
    if verdict.allowed or not any("approval" in request.context for request in verdict.requests):
        return verdict.requests
    unapproved = tuple(
        replace(request, context={name: value for name, value in request.context.items() if name != "approval"})
        for request in verdict.requests
    )
    decisions = [decide(request, policies) for request in unapproved]
    counts = all(decision.allowed or is_liftable(decision) for decision in decisions)
    return verdict.requests if counts else unapproved


def _decision(verdict: Verdict, request: AccessRequest, policies: PolicySet) -> Decision:
    """Return what was decided on one request: not what only a person could lift, where that would help nobody."""
    # Where no argument was looked at, what was decided is about none of the requests in particular.
    if verdict.early:
        return verdict.decisions[0]
    decision = decide(request, policies)
    return decision if verdict.reason is Reason.APPROVAL_REQUIRED or not is_liftable(decision) else verdict.decisions[0]


def _fixed(requests: Sequence[AccessRequest], workspace: Workspace | None) -> frozenset[str]:
    """Return the arguments that name what is acted on."""
    templates = (
        offered.resource
        for offered in (() if workspace is None else workspace.written.offers)
        if requests and offered.tool.name == requests[0].action
    )
    return frozenset(template.argument for template in templates if template is not None)
