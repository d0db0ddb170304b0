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

import json
import re
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.errors import Refusal
from agentguard.model import Decision, Effect, EntityUid, Reason
from agentguard.policy.compiled import Policy, PolicySet
from agentguard.policy.reach import (
    Uid,
    add_references,
    ancestors,
    parents_of,
    references_of,
    resolve,
    uid_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.model import AccessRequest, Invocation
    from agentguard.policy.compiled import Action, Link, Slice

__all__ = ["Policy", "PolicySet", "decide", "may_ever"]

# Made of strings, numbers and the like alone: a record of a `type` and an `id` in it is
# no entity.
_WITHOUT_ENTITIES: Final = frozenset(("input", "facts"))
_POSITIONAL: Final = re.compile(r"error while evaluating policy `(policy[0-9]+)`: ([^`]*)")


def decide(request: AccessRequest, policies: PolicySet) -> Decision:
    """Decide whether *request* may run under *policies*.

    A denial is a result, not an error. Code that must stop on denial raises
    `AccessDenied` with it.

    Args:
        request: The call to judge, made on behalf of a verified invocation.
        policies: The compiled policies to judge it by.

    Returns:
        An allow names the permits that granted it, over all links. A denial names the
        forbids that matched, or carries the errors that made it.
    """
    permits: set[str] = set()
    depth = 0
    try:
        action = policies.action(request.action)
        question = _Question(request, policies)
        for depth, invocation in enumerate(request.invocation.chain):
            decision = question.ask(action, policies.link(invocation, action), depth)
            if not decision.allowed:
                return decision
            permits.update(decision.policy_ids)
    except Refusal as refusal:
        return _deny(policies, refusal.reason, depth, errors=(refusal.detail,))
    return Decision(
        effect=Effect.ALLOW,
        reason=Reason.PERMIT,
        policy_ids=tuple(sorted(permits)),
        policy_version=policies.version,
        link=depth,
    )


class _Given:
    """The entities that came with a request."""

    __slots__ = ("_parents", "_policies", "_refers_to", "_text")

    def __init__(self, entities: Sequence[Mapping[str, object]], policies: PolicySet) -> None:
        self._policies = policies
        if len(entities) > policies.limits.entities_per_request:
            raise Refusal(Reason.MISSING_ENTITY, "the request brings more entities than the limit")
        try:
            self._refers_to = {uid_of(entity.get("uid")): references_of(entity) for entity in entities}
            self._parents = {uid_of(entity.get("uid")): parents_of(entity) for entity in entities}
            self._text = json.dumps(entities)[1:-1]
        except (ValueError, TypeError, RecursionError):
            raise Refusal(Reason.MISSING_ENTITY, "an entity is not plain Cedar JSON") from None

    def closure(self, link: Link) -> frozenset[Uid]:
        """Return the principal and everything that it is in."""
        if link.unresolved.isdisjoint(link.closure):
            return link.closure
        return ancestors(link.closure, self._parents, self._policies.known.parents)

    def around(self, link: Link, action: Action, start: Iterable[Uid]) -> cedarpy.Entities:
        """Return everything that *link* and *start* can reach.

        Raises:
            Refusal: MISSING_ENTITY, if that is not all there, or not as the schema says.
        """
        known = self._policies.known
        # Every entity that came with the request is followed, even where nothing leads
        # to it: one that is known too is then added twice, and two versions are refused.
        used, absent = resolve((*start, *link.unresolved, *self._refers_to), known, self._refers_to, link.present)
        for type_, _ in self._policies.missing(absent):
            # Its id stays out of this: the type may be declared private.
            raise Refusal(Reason.MISSING_ENTITY, f"an entity of type `{type_}` is not there")
        delta = [self._text] if self._refers_to else []
        delta += [known.text[uid] for uid in used]
        if not delta:
            return link.base
        try:
            return link.base.with_added_json_str(f"[{','.join(delta)}]", action.schema)
        except ValueError as error:
            detail = f"the entities are not as the schema says: {_without_values(str(error))}"
            raise Refusal(Reason.MISSING_ENTITY, detail) from None


class _Question:
    """One request, as every link of its chain is asked about it."""

    __slots__ = ("_context", "_given", "_policies", "_resource", "_start")

    def __init__(self, request: AccessRequest, policies: PolicySet) -> None:
        resource = request.resource
        self._policies = policies
        self._resource = resource.as_json()
        self._start: set[Uid] = {(resource.type, resource.id)}
        try:
            for key, value in request.context.items():
                add_references(value, set() if key in _WITHOUT_ENTITIES else self._start)
            self._context = json.dumps(dict(request.context))
        except (ValueError, TypeError, RecursionError):
            raise Refusal(Reason.INVALID_ARGUMENT, "the context is not plain Cedar JSON") from None
        self._given = _Given(request.entities, policies)

    def ask(self, action: Action, link: Link, depth: int) -> Decision:
        """Judge one link.

        Raises:
            Refusal: MISSING_ENTITY, if something it can reach is not there or not as the
                schema says; INVALID_ARGUMENT, if the context is not as the schema says.
        """
        entities = self._given.around(link, action, self._start)
        chosen = self._policies.slice(link, action, depth, self._given.closure(link))
        result = cedarpy.is_authorized(
            {"principal": link.principal, "action": action.uid, "resource": self._resource, "context": self._context},
            chosen.handle,
            entities,
            # With the schema, Cedar refuses a context of other types than were declared,
            # and an `unknown` of partial evaluation in it.
            action.schema,
        )
        return _outcome(self._policies, link, chosen, depth, result)


def _outcome(policies: PolicySet, link: Link, chosen: Slice, depth: int, result: cedarpy.AuthzResult) -> Decision:
    """Turn Cedar's answer for one link into ours.

    | Cedar    | policies it names    | errors | ours                              |
    | -------- | -------------------- | ------ | --------------------------------- |
    | none     |                      |        | invalid_argument                  |
    | deny     | forbids              | any    | policy; grant, if only the grant's |
    | any      | no forbid            | some   | policy_error                      |
    | any      | no permit of ours    | none   | no_permit                         |
    | allow    | no permit of a grant | none   | grant, if there is one            |
    | allow    | both                 | none   | allow                             |
    """
    decision = result.decision
    if decision is cedarpy.Decision.NoDecision:
        # Cedar could not even build the request. Its message holds the values.
        raise Refusal(Reason.INVALID_ARGUMENT, "the request does not fit the action's schema")
    reasons = result.diagnostics.reasons
    organisation = [chosen.organisation[reason] for reason in reasons if reason in chosen.organisation]
    grant = [chosen.grant[reason] for reason in reasons if reason in chosen.grant]
    ids = tuple(sorted((*organisation, *grant)))
    errors = _named(result.diagnostics.errors, chosen)
    if decision is not cedarpy.Decision.Allow and ids:
        reason = Reason.POLICY if organisation else Reason.GRANT
        return _deny(policies, reason, depth, ids=ids, errors=errors)
    # Cedar skips a policy that fails to evaluate, so a broken forbid would read as "no
    # objection". It counts as an objection.
    if errors:
        return _deny(policies, Reason.POLICY_ERROR, depth, errors=errors)
    # One evaluation judges both layers, so Cedar's own allow may rest on either alone.
    if not (decision is cedarpy.Decision.Allow and organisation):
        return _deny(policies, Reason.NO_PERMIT, depth)
    if link.grant is not None and not grant:
        return _deny(policies, Reason.GRANT, depth)
    return Decision(
        effect=Effect.ALLOW, reason=Reason.PERMIT, policy_ids=ids, policy_version=policies.version, link=depth
    )


def _deny(
    policies: PolicySet, reason: Reason, depth: int, *, ids: tuple[str, ...] = (), errors: tuple[str, ...] = ()
) -> Decision:
    advice = (policies.policies[id_].advice for id_ in ids if id_ in policies.policies)
    return Decision(
        effect=Effect.DENY,
        reason=reason,
        policy_ids=ids,
        policy_version=policies.version,
        errors=errors,
        advice=next(filter(None, advice), None),
        link=depth,
    )


def _named(errors: Sequence[str], chosen: Slice) -> tuple[str, ...]:
    """Return evaluation errors by policy id, without the values that Cedar quotes."""
    named = []
    for error in errors:
        match = _POSITIONAL.match(error)
        place, what = (match[1], match[2]) if match else ("", "")
        id_ = chosen.organisation.get(place) or chosen.grant.get(place, "?")
        named.append(f"policy `{id_}` failed: {what.strip() or 'it cannot be evaluated'}")
    return tuple(sorted(named))


def _without_values(message: str) -> str:
    return message.partition("`")[0].strip()


def may_ever(
    invocation: Invocation, action: str, policies: PolicySet, entities: Sequence[Mapping[str, object]] = ()
) -> bool:
    """Tell whether any resource and any input could be allowed.

    Sound in one direction: what `decide` would allow is never refused here. Cedar's
    partial evaluation never contradicted its own Deny; its Allow is but a preview, so
    everything that is not a definite Deny counts as possible.

    Args:
        invocation: Who would call.
        action: What would be called.
        policies: The compiled policies.
        entities: Cedar JSON entities that the principal reaches and the policies do not
            know.

    Returns:
        False if every such call would be denied.
    """
    try:
        row = policies.action(action)
        return all(_may_ever(policies.link(link, row), row, policies, entities) for link in invocation.chain)
    except Refusal:
        # No such action, or a grant that is not valid: `decide` denies every call too.
        return False


def _may_ever(link: Link, action: Action, policies: PolicySet, entities: Sequence[Mapping[str, object]]) -> bool:
    if link.may_ever is not None and not entities:
        return link.may_ever
    try:
        given = _Given(entities, policies)
        around = given.around(link, action, ())
    except Refusal:
        # What is missing now may be there at the call.
        return True
    layers = [policies.organisation(action, given.closure(link)).handle]
    if link.grant is not None:
        layers.append(link.grant.handle)
    # Partial evaluation takes uids as text alone.
    request = {"principal": str(EntityUid(**link.principal)), "action": str(EntityUid(**action.uid))}
    # What the guard itself makes is known before the call.
    if action.tool.resource_type is None:
        request["resource"] = str(EntityUid("Tool", action.tool.name))
    possible = all(
        cedarpy.is_authorized_partial(request, layer, around).decision is not cedarpy.Decision.Deny for layer in layers
    )
    if not entities:
        link.may_ever = possible
    return possible
