"""A run that says something else of itself: another purpose, another user, a shorter life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentguard.analysis.known import ABSENT, entity_of
from agentguard.analysis.notation import units_of
from agentguard.model import Grade
from agentguard.testing import unsafe_invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.model import Invocation

_ENTITIES: Final = {"agent": "Agent", "user": "User", "task": "Task"}
_TIMES: Final = frozenset(("issued_at", "ends_at", "lifetime"))
_PLAIN: Final = frozenset(("grade", "scopes", "delegation_depth", "purpose", "issuer"))
_GRADES: Final = [grade.value for grade in Grade]
_SECOND: Final = 1_000
_FACTS: Final = (
    "agent",
    "run_id",
    "issuer",
    "grade",
    "issued_at",
    "ends_at",
    "run_ends_at",
    "client_id",
    "subject",
    "user",
    "task",
    "purpose",
    "scopes",
    "claims",
    "grant",
    "ancestors",
    "prefix",
)


def changed_run(invocation: Invocation, depth: int, names: Sequence[str], value: object) -> Invocation | None:
    """Return a run of whose chain one link says something else.

    Args:
        invocation: The run.
        depth: The place of the link, from the root; past the end, it is the run itself.
        names: The attribute of its entity that is another.
        value: Cedar JSON, or `ABSENT`.

    Returns:
        Another run, which nobody verified; None if no token can say that.
    """
    (name,) = names
    facts = _facts(invocation.chain[min(depth, len(invocation.ancestors))], name, value)
    return None if facts is None else _with(invocation, depth, facts)


def granted_run(invocation: Invocation, depth: int, text: str) -> Invocation:
    """Return a run of whose chain the grant of one link has more in it.

    Args:
        invocation: The run.
        depth: The place of the link, from the root.
        text: Cedar text that is added to its grant.
    """
    return _with(invocation, depth, {"grant": f"{invocation.chain[depth].grant or ''}\n{text}"})


def _with(invocation: Invocation, depth: int, facts: dict[str, Any]) -> Invocation:
    above = [*invocation.ancestors]
    if depth < len(above):
        above[depth] = unsafe_invocation(**{**_all(above[depth]), **facts})
        facts = {"ancestors": tuple(above)}
    return unsafe_invocation(**{**_all(invocation), **facts})


def _all(invocation: Invocation) -> dict[str, Any]:
    return {name: getattr(invocation, name) for name in _FACTS}


def _facts(invocation: Invocation, name: str, value: object) -> dict[str, Any] | None:
    """Return what a token says differently if an attribute of the principal is another."""
    if name in _ENTITIES:
        uid = entity_of(value)
        if uid is None:
            return {name: None} if value is ABSENT and name != "agent" else None
        return {name: uid[1]} if uid[0] == _ENTITIES[name] and uid[1] else None
    if name in _TIMES:
        return _times(invocation, name, value)
    if name in _PLAIN:
        return _plain(name, value)
    claims = {claim: held for claim, held in invocation.claims.items() if claim != name}
    if value is ABSENT:
        return {"claims": claims}
    return {"claims": {**claims, name: frozenset(value) if isinstance(value, list) else value}}


def _plain(name: str, value: object) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None
    if name == "grade":
        found = {name: Grade(value)} if value in _GRADES else None
    elif name == "scopes":
        found = {name: frozenset(map(str, value))} if isinstance(value, list) else None
    elif name == "delegation_depth":
        # The one other depth that can be had without another run.
        found = {"ancestors": ()} if value == 0 else None
    elif (isinstance(value, str) and value) or (name == "purpose" and value is ABSENT):
        found = {name: None if value is ABSENT else value}
    return found


def _times(invocation: Invocation, name: str, value: object) -> dict[str, Any] | None:
    """Return the times of a run: whole seconds, and none of them over before it began."""
    found = units_of(value)
    if found is None or found[1] % _SECOND:
        return None
    seconds = found[1] // _SECOND
    began = seconds if name == "issued_at" else invocation.issued_at
    ends = {"issued_at": invocation.run_ends_at, "ends_at": seconds, "lifetime": began + seconds}[name]
    return {"issued_at": began, "run_ends_at": ends, "ends_at": float(ends)} if 0 < began < ends else None
