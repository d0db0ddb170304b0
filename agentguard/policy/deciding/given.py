"""The entities that came with a request, beside those that are known without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.errors import Refusal
from agentguard.model import EntityUid, Reason, not_there
from agentguard.policy.deciding.reach import Uid, ancestors, json_text, parents_of, references_of, resolve, uid_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import cedarpy

    from agentguard.policy.deciding.compiled import Action, Link, PolicySet


class Given:
    """The entities that came with a request."""

    __slots__ = ("_entities", "_policies", "_refers_to", "_text")

    def __init__(self, entities: Sequence[Mapping[str, object]], policies: PolicySet) -> None:
        self._entities = entities
        self._policies = policies
        if len(entities) > policies.limits.entities_per_request:
            raise Refusal(Reason.MISSING_ENTITY, "the request brings more entities than the limit")
        try:
            self._refers_to = dict([references_of(entity, policies.plain) for entity in entities])
            self._text = json_text(entities)[1:-1]
        except (ValueError, RecursionError):
            raise Refusal(Reason.MISSING_ENTITY, "an entity is not plain Cedar JSON") from None

    def closure(self, link: Link) -> frozenset[Uid]:
        """Return the principal and everything that it is in."""
        if link.unresolved.isdisjoint(link.closure):
            return link.closure
        parents = {uid_of(entity["uid"]): parents_of(entity) for entity in self._entities}
        return ancestors(link.closure, parents, self._policies.known.parents)

    def around(self, link: Link, action: Action, start: set[Uid], resource: Uid | None = None) -> cedarpy.Entities:
        """Return everything that *link* and *start* can reach.

        A *resource* that is known without the request is in the tool that acts on it.

        Raises:
            Refusal: MISSING_ENTITY, if that is not all there, or not as the schema says.
        """
        known = self._policies.known
        used, absent = self._reached(link, start)
        if solid := self._policies.missing(absent):
            # Always the same one of them. Its id stays out of the text: the type may be declared private.
            missing = EntityUid(*min(uid for uid in absent if uid[0] in solid))
            raise Refusal(Reason.MISSING_ENTITY, not_there(missing), missing=missing)
        if used:
            texts = (action.resources.get(uid, known.text[uid]) if uid == resource else known.text[uid] for uid in used)
            delta = ",".join([*filter(None, (self._text,)), *texts])
        elif not (delta := self._text):
            return link.base
        try:
            return link.base.with_added_json_str(f"[{delta}]", action.schema)
        except ValueError as error:
            detail = f"the entities are not as the schema says: {str(error).partition('`')[0]}"
            raise Refusal(Reason.MISSING_ENTITY, detail) from None

    def reached(self, link: Link) -> set[Uid]:
        """Return what came with the request, and what *link* reaches besides and a call may act on."""
        used, _ = self._reached(link, set())
        return used.union(self._refers_to)

    def _reached(self, link: Link, start: set[Uid]) -> tuple[set[Uid], set[Uid]]:
        """Return what is reached and not in the link's base: what is known, and what is found nowhere."""
        known = self._policies.known
        # Every entity that came with the request is followed, even where nothing leads
        # to it: one that is known too is then added twice, and two versions are refused.
        reached = start.union(link.unresolved, self._refers_to, *self._refers_to.values()) - link.present
        if reached <= self._refers_to.keys() and known.text.keys().isdisjoint(reached):
            return set(), set()
        return resolve(reached, known, self._refers_to, link.present)
