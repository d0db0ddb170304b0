"""What a principal might be allowed, of all that a server has, at once.

`possible` gives the actions for which `never` has no denial, as far as one question to
Cedar for each link and layer tells: each policy is asked about without what its head
demands of the action, and that is looked up for each action instead. Only policies that
look at the action, or at what it acts on, in any other way are asked about again, for the
actions where it matters.

A list is what people and models choose from, so it errs in one direction: what is left
out is denied for every argument, and what is shown may still be denied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.errors import Refusal
from agentguard.policy.deciding.engine import denial_of, spelled
from agentguard.policy.deciding.given import Given
from agentguard.policy.deciding.reach import json_text
from agentguard.policy.deciding.sketch import keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import cedarpy

    from agentguard.model import Invocation
    from agentguard.policy.deciding.compiled import Action, Link, PolicySet
    from agentguard.policy.deciding.sketch import Key, Settled, Sketch


def possible(
    invocation: Invocation,
    policies: PolicySet,
    entities: Sequence[Mapping[str, object]] = (),
    *,
    supposing: frozenset[str] | None = None,
) -> frozenset[str]:
    """Return the actions that *invocation* might be allowed with some argument, on some resource.

    Args:
        invocation: Who would act.
        policies: The compiled policies.
        entities: Cedar JSON entities that the principal reaches and the policies do not
            know.
        supposing: The scopes that the run's own token is supposed to have.
    """
    plain = not entities and supposing is None
    found = policies.sketches.answers.get(invocation) if plain else None
    if found is None:
        found = _possible(invocation, policies, entities, supposing)
        if plain:
            policies.sketches.answers.put(invocation, found, 1 + len(found))
    return found


def _possible(
    invocation: Invocation,
    policies: PolicySet,
    entities: Sequence[Mapping[str, object]],
    supposing: frozenset[str] | None,
) -> frozenset[str]:
    left = frozenset(policies.actions)
    try:
        for invoked in invocation.chain:
            link = policies.link(invoked, policies.anything, supposing=supposing)
            left, own = _of_link(link, policies, entities, left)
            for action in map(policies.action, own):
                if denial_of(policies.link(invoked, action, supposing=supposing), action, policies, entities) is None:
                    left |= {action.tool.name}
    except Refusal:
        # The grant is not valid, or the principal is not as the schema says: every call is denied.
        return frozenset()
    return left


def _of_link(
    link: Link, policies: PolicySet, entities: Sequence[Mapping[str, object]], names: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return those of *names* that one link might be allowed, and those that have to be asked about one by one."""
    try:
        given = Given(entities, policies)
        around = given.around(link, policies.anything, set())
    except Refusal:
        # What comes with a call may be otherwise.
        return names, frozenset()
    layers = [_Layer(policies.sketches.organisation(given.closure(link)), link, around)]
    if link.grant is not None:
        layers.append(_Layer(policies.sketches.grant(link.grant.text), link, around))
    shown = frozenset(name for name in names if all(layer.may_permit(policies.actions[name]) for layer in layers))
    # What a call acts on is in what acts on it, and one question for all actions cannot say so.
    types = {type_ for type_, _ in given.reached(link)}
    return shown, frozenset(name for name in names - shown if policies.actions[name].tool.resource_type in types)


class _Layer:
    """What one layer of policies says to one link, for all actions."""

    def __init__(self, sketch: Sketch, link: Link, around: cedarpy.Entities) -> None:
        self._sketch = sketch
        self._request = {"principal": spelled(link.principal)}
        self._around = around
        self._forbids: set[Key] = set()
        self._permits: set[Key] = set()
        self._closer: dict[Key, list[int]] = {}
        for settled in (sketch.same, sketch.ask(self._request, around)):
            self._take(settled)

    def _take(self, settled: Settled | None) -> None:
        """Take over what was settled, by what it demands of an action."""
        if settled is None:
            # Nothing is known, so nothing is ruled out.
            self._permits.add(None)
            return
        for place in settled.holds:
            part = self._sketch.parts[place]
            (self._permits if part.permit else self._forbids).update(part.keys)
        for place in settled.may_hold:
            part = self._sketch.parts[place]
            if part.looks_closer:
                for key in part.keys:
                    self._closer.setdefault(key, []).append(place)
            elif part.permit:
                self._permits.update(part.keys)

    def may_permit(self, action: Action) -> bool:
        """Return whether an action might be permitted, and by nothing certainly forbidden."""
        keys = keys_of(action.tool.name, action.tool.groups)
        if not self._forbids.isdisjoint(keys):
            return False
        permitted = not self._permits.isdisjoint(keys)
        parts = self._sketch.parts
        for key in self._closer.keys() & keys:
            places = self._closer[key]
            # What is acted on is known before the call only where the guard makes it.
            known = [place for place in places if parts[place].sees_action or action.tool.resource_type is None]
            if not known or (permitted and all(parts[place].permit for place in known)):
                permitted |= any(parts[place].permit for place in places)
                continue
            # All of this key, so that what is parsed for it is the same for every principal.
            settled = self._ask(action, self._sketch.closer[key])
            if settled is None:
                return True
            if not all(parts[place].permit for place in settled.holds):
                return False
            permitted |= any(parts[place].permit for place in settled.holds + settled.may_hold)
        return permitted

    def _ask(self, action: Action, places: tuple[int, ...]) -> Settled | None:
        """Ask some of the policies about one action."""
        request = {**self._request, "action": spelled(action.uid)}
        if action.tool.resource_type is None:
            request["resource"] = spelled(action.tool.itself.as_json())
        try:
            around = self._around.with_added_json_str(json_text(action.entities), action.schema)
        except ValueError:
            # What came with the request is in the way, and may be otherwise at the call.
            return None
        return self._sketch.ask(request, around, places)
