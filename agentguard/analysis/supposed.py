"""A call that somebody supposes, judged as the guard would judge it.

Nothing runs, and no server is needed: who calls is said and not verified, and what
loaders would answer is said too. From there on it is the guard's own way: the same
context, a request for each resource, the same engine, and a person's approval for
nothing that would be denied anyway.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from agentguard.analysis.doing import check_carried, tallied
from agentguard.analysis.loaded import Loaded, check_loadable, reached
from agentguard.analysis.sizes import check_size
from agentguard.approval import APPROVER, CLIENT
from agentguard.errors import ConfigurationError, Refusal
from agentguard.model import AccessRequest, Decision, Effect, EntityUid, Reason, naming, printable
from agentguard.policy.conversion.values import check_readings
from agentguard.policy.deciding.engine import decide, never
from agentguard.policy.deciding.entities import references
from agentguard.policy.deciding.reach import uid_of
from agentguard.policy.problem import did_you_mean
from agentguard.request import agent_uid, base_context, task_uid, user_uid
from agentguard.steps.call import Rule
from agentguard.steps.judging import Judged, is_liftable, without_approval
from agentguard.steps.tallying import Tallied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.analysis.workspace import Workspace
    from agentguard.model import Invocation
    from agentguard.policy.conversion.scalars import CedarJson
    from agentguard.policy.deciding.compiled import PolicySet
    from agentguard.policy.files.written import Offered
    from agentguard.policy.schemas.types import CedarType

_SHOWN: Final = 64
_LIFTABLE: Final = frozenset({Reason.APPROVAL_REQUIRED, Reason.APPROVAL_UNAVAILABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the guard would answer, and what that rests on.

    Attributes:
        effect: Allow or deny.
        reason: Why, as the evidence would have it.
        policy_ids: The ids of the policies that determined it, sorted, over all resources.
        requests: What was asked, one request for each resource; empty if it came to no request.
        decisions: The decisions that it consists of: an allow for each resource, or one denial.
        early: Whether every call of this tool by this identity would be denied, so that the
            guard looks at no argument.
        whole: Whether *requests* are all that there was to ask: where a call was refused
            halfway, they say nothing of what comes after them.
    """

    effect: Effect
    reason: Reason
    policy_ids: tuple[str, ...] = ()
    requests: tuple[AccessRequest, ...] = ()
    decisions: tuple[Decision, ...]
    early: bool = False
    whole: bool = True

    @property
    def allowed(self) -> bool:
        """Whether the effect is exactly allow."""
        return self.effect is Effect.ALLOW

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong on the way, each once."""
        found = (naming(error, decision.missing) for decision in self.decisions for error in decision.errors)
        return tuple(dict.fromkeys(found))

    @property
    def advice(self) -> str | None:
        """What the deciding policy says to the caller."""
        return next((decision.advice for decision in self.decisions if decision.advice), None)


def suppose(workspace: Workspace, call: SupposedCall) -> Verdict:
    """Return what the guard would answer to a call.

    Raises:
        ConfigurationError: There is no such action, or an entity is known without the call.
    """
    made: list[AccessRequest] = []
    try:
        for request in _each(workspace, call):
            made.append(request)  # noqa: PERF402  those before a refusal count too
        if (verdict := judge(made, workspace.policies)).allowed:
            check_carried(call, offered_as(workspace, call.action).tool)
    except Refusal as refusal:
        return replace(_refused(workspace, call, made, refusal), whole=False)
    return verdict


def _refused(workspace: Workspace, call: SupposedCall, made: Sequence[AccessRequest], refusal: Refusal) -> Verdict:
    """Return the answer to a call of which no more than *made* could be asked."""
    if call.approval is not None:
        # Who approves is looked up where somebody is asked, and nowhere else.
        unasked = suppose(workspace, replace(call, approval=None))
        if unasked.reason is not Reason.APPROVAL_REQUIRED:
            return unasked
    early = None
    if made:
        verdict = judge(made, workspace.policies)
        # Resources are judged one after the other, so one that is denied for good comes before the refusal.
        if not verdict.allowed and verdict.reason not in _LIFTABLE:
            return verdict
    else:
        # Whoever may never call is told that first, whatever the arguments are.
        invocation = call.identity.invocation(call.now)
        with suppress(Refusal):
            known = Loaded(workspace, call.entities).of(_principal(invocation))
            early = never(invocation, call.action, workspace.policies, known)
    if early is not None:
        return _verdict((), (_unadvised(early),), early=True)
    version = workspace.policies.version
    denial = Decision(effect=Effect.DENY, reason=refusal.reason, policy_version=version, errors=(refusal.detail,))
    denial = replace(denial, missing=refusal.missing)
    return _verdict(made, (denial,))


def requests_of(workspace: Workspace, call: SupposedCall) -> tuple[AccessRequest, ...]:
    """Return what the guard would ask about a call: a request for each resource.

    Raises:
        Refusal: It would be denied before anything is asked.
        ConfigurationError: There is no such action, or an entity is known without the call.
    """
    return tuple(_each(workspace, call))


def _each(workspace: Workspace, call: SupposedCall) -> Iterator[AccessRequest]:
    offered = offered_as(workspace, call.action)
    check_loadable(workspace, call.entities)
    tool, limits = offered.tool, workspace.limits
    invocation = call.identity.invocation(call.now)
    context = base_context(call.now, call.time_zone, call.environment, call.transport)
    context["input"] = {name: value for name, value in call.input.items() if name not in tool.unseen}
    if call.facts is not None:
        context["facts"] = dict(call.facts)
    declared = cast("CedarType", workspace.types.actions[tool.name].context).members
    for part in ("input", "facts"):
        if part in context:
            check_size(cast("CedarJson", context[part]), declared[part].type, limits)
    uids = (tool.itself,) if offered.resource is None else offered.resource.uids(call.input, limits)
    records = tallied(call, tool, context).records(workspace.policies.totals)
    context["run"] = records[-1]
    check_readings(context, len(uids) * len(invocation.chain), limits)
    loaded = Loaded(workspace, call.entities)
    wanted = _principal(invocation)
    approver: tuple[Mapping[str, object], ...] = ()
    if call.approval is not None:
        context["approval"] = dict(call.approval)
        approver = loaded.of(references(call.approval))
    for resource in uids:
        own = loaded.of(wanted) if offered.resource is None else loaded.of((resource, *wanted), tool=tool.itself)
        present = [entity["uid"] for entity in own]
        more = (entity for entity in approver if entity["uid"] not in present)
        yield AccessRequest(
            invocation=invocation,
            action=tool.name,
            resource=resource,
            context=context,
            entities=(*own, *more),
            runs=records if len(records) > 1 else (),
        )


def judge(requests: Sequence[AccessRequest], policies: PolicySet) -> Verdict:
    """Return what the guard would answer to the requests of one call, as `requests_of` made them.

    All of them must be allowed. What only a person could lift is `Reason.APPROVAL_REQUIRED`,
    unless the requests have an approval: it then counts where the guard would have asked
    for one, and nowhere else.
    """
    first = requests[0]
    try:
        early = never(first.invocation, first.action, policies, _known_before(first, policies))
        tool = policies.action(first.action).tool
    except Refusal as refusal:
        early = Decision(effect=Effect.DENY, reason=refusal.reason, errors=(refusal.detail,))
        return _verdict(requests, (early,), early=True)
    if early is not None:
        return _verdict(requests, (_unadvised(early),), early=True)
    judged = _judged([without_approval(request) for request in requests], Rule(tool=tool), policies)
    if not judged.liftable:
        return _of(judged, requests)
    given = cast("Mapping[str, object] | None", first.context.get("approval"))
    # What no answer could change is found before anybody is asked.
    vain = _in_vain(judged, given or {"channel": CLIENT, "at": first.context["now"]})
    # A guard whose channel is not known may have one that they accept.
    if vain is not None and (given is not None or vain.reason not in {Reason.POLICY, *_LIFTABLE}):
        return _verdict(requests, (vain,))
    if given is not None:
        return _of(_judged(requests, judged.rule, policies), requests)
    return replace(_of(judged, requests), reason=Reason.APPROVAL_REQUIRED)


def _in_vain(judged: Judged, approval: Mapping[str, object]) -> Decision | None:
    """Return the denial that would remain of a yes that comes as *approval* does, whoever gives it."""
    nobodys = {name: value for name, value in approval.items() if name != "approver"}
    requests = [replace(request, context={**request.context, "approval": nobodys}) for request, _ in judged.judged]
    lifted = replace(judged, judged=tuple((request, decide(request, judged.policies)) for request in requests))
    # A client's person is never named, so whoever is has come by another way.
    vain = lifted.in_vain(APPROVER if "approver" in approval else cast("str", approval["channel"]))
    return None if vain is None else vain[1]


def offered_as(workspace: Workspace, action: str) -> Offered:
    """Return what the server offers by a name.

    Raises:
        ConfigurationError: If that is nothing.
    """
    offers = {offered.tool.name: offered for offered in workspace.written.offers}
    if action not in offers:
        message = f"no tool is called `{printable(action[:_SHOWN])}`: {did_you_mean(action, offers)}"
        raise ConfigurationError(message)
    return offers[action]


def ordered(ids: Iterable[str]) -> tuple[str, ...]:
    """Return ids of policies once each, in the order of decisions: those of grants last."""
    return tuple(sorted(set(ids), key=lambda id_: (":" in id_, id_)))


def decided(verdict: Verdict, policies: PolicySet) -> tuple[AccessRequest, ...]:
    """Return those of a verdict's requests that the guard comes to, as it decides them at last.

    An approval is there only where the guard would have asked for one, and what comes after
    a resource that is denied for good is not looked at.
    """
    bare = tuple(without_approval(request) for request in verdict.requests)
    if verdict.early or not bare:
        return bare
    lifted = "approval" in verdict.requests[0].context and judge(bare, policies).reason is Reason.APPROVAL_REQUIRED
    asked = verdict.requests if lifted else bare
    if verdict.allowed:
        return asked
    return asked[: len(_judged(asked, Rule(tool=policies.action(asked[0].action).tool), policies).judged)]


def _judged(requests: Sequence[AccessRequest], rule: Rule, policies: PolicySet) -> Judged:
    """Take step 4 of the way of a call: one decision for each resource, up to one that no person can lift."""
    judged: list[tuple[AccessRequest, Decision]] = []
    for request in requests:
        decision = decide(request, policies)
        judged.append((request, decision))
        if not (decision.allowed or is_liftable(decision)):
            break
    tallied = Tallied.of_a_new_run(requests[0].invocation)
    return Judged(rule=rule, policies=policies, tallied=tallied, judged=tuple(judged))


def _of(judged: Judged, requests: Sequence[AccessRequest]) -> Verdict:
    return _verdict(requests, tuple(decision for _, decision in judged.outcome))


def _verdict(requests: Sequence[AccessRequest], decisions: tuple[Decision, ...], *, early: bool = False) -> Verdict:
    return Verdict(
        effect=decisions[0].effect,
        reason=decisions[0].reason,
        policy_ids=ordered(id_ for decision in decisions for id_ in decision.policy_ids),
        requests=tuple(requests),
        decisions=decisions,
        early=early,
    )


def _unadvised(denial: Decision) -> Decision:
    """Return the denial of every such call: its caller is told what is told of a tool that does not exist."""
    return replace(denial, advice=None)


def _principal(invocation: Invocation) -> list[EntityUid]:
    """Return the chain's agents, users and tasks."""
    uids = [uid for link in invocation.chain for uid in (agent_uid(link), user_uid(link), task_uid(link))]
    return [uid for uid in uids if uid is not None]


def _known_before(request: AccessRequest, policies: PolicySet) -> list[Mapping[str, object]]:
    """Return those of a request's entities that are known before its resource is: what the principal reaches."""
    given = {EntityUid(*uid_of(entity["uid"])): entity for entity in request.entities}
    tool = policies.action(request.action).tool.itself.as_json()
    known: dict[EntityUid, Mapping[str, object]] = {}
    pending = _principal(request.invocation)
    while pending:
        uid = pending.pop()
        if uid in given and uid not in known:
            parents = [parent for parent in cast("list[object]", given[uid]["parents"]) if parent != tool]
            known[uid] = {**given[uid], "parents": parents}
            pending += reached(known[uid])
    return list(known.values())
