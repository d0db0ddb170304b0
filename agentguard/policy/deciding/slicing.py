"""Choose the few policies that a request could be decided by.

Cedar looks at every policy of a set for every request. A policy whose head names another
action, or a principal that this one is not and is not in, cannot be satisfied and cannot
err, so leaving it out changes neither the decision, nor the ids, nor the errors. A policy
that tests its agent in `when` instead of its head is always chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.model import EntityUid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A principal is in one of these by what the call acts on, such as its own agent: nobody knows it before.
_BY_THE_CALL: Final = frozenset(("Tool", "Resource", "Prompt", "Server"))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a policy's head demands of principal and action.

    Attributes:
        principal: The entity that the principal must be or be in; None for any.
        actions: The ids that the action must be one of or be in; None for any.
    """

    principal: EntityUid | None = None
    actions: frozenset[str] | None = None


class PolicyIndex:
    """The ids of policies by what their heads demand.

    Attributes:
        principals: Every entity that a head names as principal.
    """

    def __init__(self, scopes: Mapping[str, Scope]) -> None:
        self._ids = tuple(scopes)
        self._by_action: dict[str | None, dict[EntityUid | None, list[int]]] = {}
        for place, scope in enumerate(scopes.values()):
            for action in (None,) if scope.actions is None else scope.actions:
                self._by_action.setdefault(action, {}).setdefault(scope.principal, []).append(place)
        self.principals = frozenset(scope.principal for scope in scopes.values() if scope.principal is not None)

    def select(self, action: str, groups: Iterable[str], principal_closure: frozenset[EntityUid]) -> tuple[str, ...]:
        """Return the ids of the policies that could apply, in the order of the set.

        Args:
            action: The action's id.
            groups: The ids of the groups that the action is in.
            principal_closure: The principal and everything that it is in.
        """
        named: tuple[EntityUid | None, ...] = (None, *(principal_closure & self.principals))
        places: set[int] = set()
        for key in (None, action, *groups):
            by_principal = self._by_action.get(key)
            if by_principal is not None:
                for principal in named:
                    places.update(by_principal.get(principal, ()))
        return tuple(self._ids[place] for place in sorted(places))


def scope_of(head: Mapping[str, object]) -> Scope:
    """Read the scope from a policy in Cedar's JSON policy format.

    What this does not recognise demands nothing, so the policy is chosen always.
    """
    return Scope(_principal(head.get("principal")), _actions(head.get("action")))


def _principal(constraint: object) -> EntityUid | None:
    match constraint:
        case {"op": "==" | "in", "entity": {"type": str(type_), "id": str(id_)}} if type_ not in _BY_THE_CALL:
            return EntityUid(type_, id_)
        case {"op": "is", "in": {"entity": {"type": str(type_), "id": str(id_)}}} if type_ not in _BY_THE_CALL:
            return EntityUid(type_, id_)
    return None


def _actions(constraint: object) -> frozenset[str] | None:
    match constraint:
        case {"op": "==" | "in", "entity": {"type": "Action", "id": str(id_)}}:
            return frozenset((id_,))
        case {"op": "in", "entities": [*uids]}:
            ids = [uid["id"] for uid in uids if isinstance(uid, dict) and uid.get("type") == "Action"]
            return frozenset(ids) if len(ids) == len(uids) else None
    return None
