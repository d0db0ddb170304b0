"""Judge one request against one policy set.

`decide` is pure: it reads no file, clock or network, so a recorded request replays to
the same decision. Loading policies belongs to `policy.source`; acting on a decision
belongs to the guard.

A call is allowed when, for every link of its delegation chain, a permit of the
organisation matches, a permit of the link's own grant matches where it has one, no
forbid matches, every policy evaluated cleanly, and everything that the request can reach
was present. Everything else is denied.

Cedar is called inline: it holds the interpreter anyway, and in a thread with a small
stack it errs.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.errors import Refusal
from agentguard.model import Decision, Effect, Reason
from agentguard.policy.deciding.compiled import Policy, PolicySet
from agentguard.policy.deciding.given import Given
from agentguard.policy.deciding.reach import Uid, add_references, json_text, parents_of, uid_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.model import AccessRequest, EntityUid, Invocation
    from agentguard.policy.deciding.compiled import Action, Link, Slice

__all__ = ["Policy", "PolicySet", "bearing", "context_text", "decide", "denial_of", "may_ever", "never"]

# The parts of the context whose schema has no entity type in it, so that nothing in them
# can refer to one. Cedar itself refuses a context that is not as its schema says.
_WITHOUT_ENTITIES: Final = frozenset(("input", "facts", "now", "local", "environment", "transport", "run"))
# Of one slice; Cedar names policies in any order.
_ANSWERS: Final = 1_024
# Of what a principal reaches, as many are looked at as if the call acted on them.
_RESOURCES: Final = 16
_POSITIONAL: Final = re.compile(r"error while evaluating policy `(policy[0-9]+)`: ([^`]*)")


def decide(request: AccessRequest, policies: PolicySet, *, supposing: frozenset[str] | None = None) -> Decision:
    """Decide whether *request* may run under *policies*.

    A denial is a result, not an error. Code that must stop on denial raises
    `AccessDenied` with it.

    Args:
        request: The call to judge, made on behalf of a verified invocation.
        policies: The compiled policies to judge it by.
        supposing: The scopes that the run's own token is supposed to have. Nothing may
            run on the answer; `policy.scopes` asks so.

    Returns:
        An allow names the permits that granted it, over all links. A denial names the
        forbids that matched, or carries the errors that made it. It is `APPROVAL_UNAVAILABLE`
        if nothing but forbids that a person can lift denies it, at any link; their ids are all named.
    """
    resource = request.resource
    answers: list[Decision] = []
    try:
        action = policies.action(request.action)
        start = {(resource.type, resource.id)}
        given = Given(request.entities, policies)
        for depth, invocation in enumerate(request.invocation.chain):
            context = context_text(request.of_link(depth), start)
            link = policies.link(invocation, action, supposing=supposing)
            entities = given.around(link, action, start, (resource.type, resource.id))
            chosen = policies.slice(link, action, given.closure(link))
            result = cedarpy.is_authorized(
                {"principal": link.principal, "action": action.uid, "resource": resource.as_json(), "context": context},
                chosen.handle,
                entities,
                # With the schema, Cedar refuses a context of other types than were
                # declared, and an `unknown` of partial evaluation in it.
                action.schema,
            )
            answer = _answer(result, policies, chosen, depth)
            # What no person can lift, at whichever link, comes before what one could.
            if not answer.allowed and answer.reason is not Reason.APPROVAL_UNAVAILABLE:
                return answer
            answers.append(answer)
    except Refusal as refusal:
        return _deny(policies, refusal.reason, len(answers), errors=(refusal.detail,), missing=refusal.missing)
    if len(answers) == 1:
        return answers[0]
    denied = [answer for answer in answers if not answer.allowed]
    decided = denied[0] if denied else answers[-1]
    return replace(decided, policy_ids=_sorted(id_ for answer in denied or answers for id_ in answer.policy_ids))


def context_text(context: Mapping[str, object], start: set[Uid]) -> str:
    """Return the context as Cedar gets it, and add to *start* what it refers to.

    Raises:
        Refusal: INVALID_ARGUMENT, if it is not plain Cedar JSON.
    """
    try:
        if not context.keys() <= _WITHOUT_ENTITIES:
            for key in context.keys() - _WITHOUT_ENTITIES:
                add_references(context[key], start, special=True)
        return json_text(context)
    except ValueError:
        raise Refusal(Reason.INVALID_ARGUMENT, "the context is not plain Cedar JSON") from None


def _answer(result: cedarpy.AuthzResult, policies: PolicySet, chosen: Slice, depth: int) -> Decision:
    """Turn Cedar's answer for one link into ours.

    | Cedar  | policies it names    | errors | ours                               |
    | ------ | -------------------- | ------ | ---------------------------------- |
    | none   |                      |        | invalid_argument                   |
    | deny   | forbids              | any    | policy; grant, if only the grant's |
    | any    | no forbid            | some   | policy_error                       |
    | any    | no permit of ours    | none   | no_permit                          |
    | allow  | no permit of a grant | none   | grant, if there is one             |
    | allow  | both                 | none   | allow                              |

    Raises:
        Refusal: INVALID_ARGUMENT, if Cedar could not even build the request.
    """
    decision = result.decision
    diagnostics = result.diagnostics
    reasons = diagnostics.reasons
    errors = diagnostics.errors
    if decision is cedarpy.Decision.NoDecision:
        # The message holds the context's values, and stays out of this.
        raise Refusal(Reason.INVALID_ARGUMENT, "the request does not fit the action's schema")
    allowed = decision is cedarpy.Decision.Allow
    # Cedar skips a policy that fails to evaluate, so a broken forbid would read as "no
    # objection". It counts as an objection.
    if errors:
        ids = () if allowed else _ids(reasons, chosen, depth)
        reason = _objector(policies, reasons, chosen) if ids else Reason.POLICY_ERROR
        if reason is Reason.APPROVAL_UNAVAILABLE:
            # No person can lift a policy that is broken.
            reason = Reason.POLICY_ERROR
        return _deny(policies, reason, depth, ids=ids, errors=_named(errors, chosen, depth))
    # The same answer again is the same decision again: making one costs more than finding it.
    key = (depth, allowed, *reasons)
    found = chosen.answers.get(key)
    if found is None:
        if len(chosen.answers) >= _ANSWERS:
            chosen.answers.clear()
        found = chosen.answers[key] = _judge(policies, chosen, depth, reasons, allowed=allowed)
    return found


def _judge(policies: PolicySet, chosen: Slice, depth: int, reasons: Sequence[str], *, allowed: bool) -> Decision:
    """Return the decision where no policy failed to evaluate."""
    ids = _ids(reasons, chosen, depth)
    by_organisation = any(reason in chosen.names for reason in reasons)
    by_grant = any(reason not in chosen.names for reason in reasons)
    # One evaluation judges both layers, so Cedar's own allow may rest on either alone.
    if allowed and by_organisation and (by_grant or not chosen.granted):
        return Decision(
            effect=Effect.ALLOW, reason=Reason.PERMIT, policy_ids=ids, policy_version=policies.version, link=depth
        )
    if allowed:
        return _deny(policies, Reason.GRANT if by_organisation else Reason.NO_PERMIT, depth)
    if not ids:
        return _deny(policies, Reason.NO_PERMIT, depth)
    return _deny(policies, _objector(policies, reasons, chosen), depth, ids=ids)


def _objector(policies: PolicySet, forbids: Sequence[str], chosen: Slice) -> Reason:
    """Return whose forbids these are: the organisation's, those that a person can lift, or the grant's alone."""
    if all(forbid in chosen.names and policies.policies[chosen.names[forbid]].approval for forbid in forbids):
        return Reason.APPROVAL_UNAVAILABLE
    return Reason.POLICY if any(forbid in chosen.names for forbid in forbids) else Reason.GRANT


def _deny(
    policies: PolicySet,
    reason: Reason,
    depth: int,
    *,
    ids: tuple[str, ...] = (),
    errors: tuple[str, ...] = (),
    missing: EntityUid | None = None,
) -> Decision:
    deciding = [policies.policies[id_] for id_ in ids if id_ in policies.policies]
    if reason is Reason.POLICY:
        # Whoever follows the advice of a forbid that a person could lift would still be stopped by the others.
        deciding = [policy for policy in deciding if not policy.approval]
    return Decision(
        effect=Effect.DENY,
        reason=reason,
        policy_ids=ids,
        policy_version=policies.version,
        errors=errors,
        advice=next((policy.advice for policy in deciding if policy.advice), None),
        link=depth,
        missing=missing,
    )


def _ids(reasons: Sequence[str], chosen: Slice, depth: int) -> tuple[str, ...]:
    """Return the ids of policies. All of a grant's count as one, named by its link."""
    return _sorted(chosen.names.get(reason, f"grant:{depth}") for reason in reasons)


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    """Return ids once each, the organisation's first: no @id has a colon in it."""
    return tuple(sorted(set(ids), key=lambda id_: (":" in id_, id_)))


def _named(errors: Sequence[str], chosen: Slice, depth: int) -> tuple[str, ...]:
    """Return evaluation errors by policy id, without the values that Cedar quotes."""
    named = []
    for error in errors:
        match = _POSITIONAL.match(error)
        (id_,) = _ids([match[1]], chosen, depth) if match else ("?",)
        what = match[2].strip() if match else ""
        named.append(f"policy `{id_}` failed: {what or 'it cannot be evaluated'}")
    return tuple(sorted(named))


def bearing(
    invocation: Invocation, action: str, policies: PolicySet, entities: Sequence[Mapping[str, object]] = ()
) -> tuple[Policy, ...]:
    """Return the organisation's policies that can bear on what *invocation* does by *action*, in their order.

    Raises:
        Refusal: If the policies do not know the action, or the grant or an entity is not valid.
    """
    row = policies.action(action)
    closure = Given(entities, policies).closure(policies.link(invocation, row))
    return tuple(policies.policies[id_] for id_ in policies.organisation(row, closure).names.values())


def may_ever(
    invocation: Invocation, action: str, policies: PolicySet, entities: Sequence[Mapping[str, object]] = ()
) -> bool:
    """Tell whether any resource and any input could be allowed; see `never`."""
    return never(invocation, action, policies, entities) is None


def never(
    invocation: Invocation,
    action: str,
    policies: PolicySet,
    entities: Sequence[Mapping[str, object]] = (),
    *,
    supposing: frozenset[str] | None = None,
) -> Decision | None:
    """Return the denial that every such call would get, or None if some call might be allowed.

    Sound in one direction: what `decide` would allow is never refused here. Cedar's
    partial evaluation never contradicted its own Deny; its Allow is but a preview, so
    everything that is not a definite Deny counts as possible.

    Args:
        invocation: Who would call.
        action: What would be called.
        policies: The compiled policies.
        entities: Cedar JSON entities that the principal reaches and the policies do not
            know.
        supposing: The scopes that the run's own token is supposed to have.
    """
    depth = 0
    try:
        row = policies.action(action)
        for depth, invoked in enumerate(invocation.chain):
            denial = denial_of(policies.link(invoked, row, supposing=supposing), row, policies, entities, depth)
            if denial is not None:
                return denial
    except Refusal as refusal:
        # No such action, or a grant that is not valid: `decide` denies every call too.
        return _deny(policies, refusal.reason, depth, errors=(refusal.detail,), missing=refusal.missing)
    return None


def denial_of(
    link: Link, action: Action, policies: PolicySet, entities: Sequence[Mapping[str, object]], depth: int = 0
) -> Decision | None:
    """Return the denial that every call of one link would get; see `never`."""
    if link.never is not None and not entities:
        return link.never[0]
    try:
        denial = _denial_on(None, link, action, policies, entities)
        if denial is not None:
            # What a call acts on is in what acts on it. That may be something that the
            # principal reaches, or is in, and then it is in there too.
            own = [uid for uid in Given(entities, policies).reached(link) if uid[0] == action.tool.resource_type]
            if len(own) > _RESOURCES or not all(_denial_on(uid, link, action, policies, entities) for uid in own):
                denial = None
    except Refusal:
        # What is missing now may be there at the call.
        denial = None
    denial = None if denial is None else replace(denial, link=depth)
    if not entities:
        link.never = (denial,)
    return denial


def _denial_on(
    resource: Uid | None, link: Link, action: Action, policies: PolicySet, entities: Sequence[Mapping[str, object]]
) -> Decision | None:
    """Return the denial of every call on *resource*, or, if None, on what the principal does not reach.

    Raises:
        Refusal: What the principal reaches is not all there.
    """
    given = Given([_in_what_acts(entity, resource, action) for entity in entities], policies)
    around = given.around(link, action, set(), resource)
    request = {"principal": spelled(link.principal), "action": spelled(action.uid)}
    # What the guard itself makes is known before the call.
    if action.tool.resource_type is None:
        request["resource"] = spelled(action.tool.itself.as_json())
    organisation = policies.organisation(action, given.closure(link))
    asked = cedarpy.is_authorized_partial(request, organisation.handle, around)
    if asked.decision is cedarpy.Decision.Deny:
        forbids = asked.diagnostics.must_be_determining
        reason = _objector(policies, forbids, organisation) if forbids else Reason.NO_PERMIT
        return _deny(policies, reason, 0, ids=_ids(forbids, organisation, 0))
    if link.grant is not None:
        asked = cedarpy.is_authorized_partial(request, link.grant.handle, around)
        if asked.decision is cedarpy.Decision.Deny:
            return _deny(policies, Reason.GRANT, 0)
    return None


def _in_what_acts(entity: Mapping[str, object], resource: Uid | None, action: Action) -> Mapping[str, object]:
    """Return an entity as it is when a call acts on *resource*."""
    if resource is None or uid_of(entity["uid"]) != resource:
        return entity
    above = [{"type": type_, "id": id_} for type_, id_ in sorted(parents_of(entity))]
    return {**entity, "parents": [*above, action.tool.itself.as_json()]}


def spelled(uid: dict[str, str]) -> str:
    """Return an entity's name as Cedar writes it.

    Partial evaluation takes names as text alone, and of all the ways to write one only
    Cedar's own. It is asked for it, since that depends on its tables of characters.
    """
    policy = {
        "effect": "permit",
        "principal": {"op": "==", "entity": uid},
        "action": {"op": "All"},
        "resource": {"op": "All"},
        "conditions": [],
    }
    text = cedarpy.policies_from_json_str(
        json_text({"templates": {}, "staticPolicies": {"": policy}, "templateLinks": []})
    )
    return text.removeprefix("permit(principal == ").removesuffix(", action, resource);")
