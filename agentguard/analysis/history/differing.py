"""In what two policy folders differ beside their policies: what is listed, and what calls reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.policy.deciding.looks import ENTITIES

if TYPE_CHECKING:
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.looks import Path
    from agentguard.policy.schemas.types import CedarType

# What the guard makes itself is never missing.
_MADE: Final = frozenset(("Tool", "Resource", "Prompt", "Server", "Invocation"))


def offer_of(workspace: Workspace, action: str) -> tuple[object, ...]:
    """Return all that policies can see of what is called, to compare."""
    tool = workspace.policies.actions[action].tool
    declared = workspace.types.actions[action]
    facts = None if tool.facts is None else tool.facts.cedar
    return tool.input.cedar, facts, tool.resource_type, tool.groups, declared.context, workspace.written.loaders


def changed_types(old: Workspace, new: Workspace) -> frozenset[Path]:
    """Return the types of listed entities that are not the same in two folders, as what is not known."""
    before, after = old.policies.known.text, new.policies.known.text
    changed = {uid[0] for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)}
    return frozenset((ENTITIES, type_) for type_ in changed)


def misfit(old: Workspace, new: Workspace) -> str | None:
    """Return the type of entities that were loaded and that the new folder would not take as they were, if any."""
    for name in sorted(old.written.loaders & new.written.loaders):
        before, after = old.types.entities[name], new.types.entities[name]
        had, has = before.attributes.members, after.attributes.members
        kept = all(has.get(member) == declared for member, declared in had.items())
        # What is new and need not be there was not there.
        added = any(declared.required for member, declared in has.items() if member not in had)
        tagged = before.tags is None or before.tags == after.tags
        if not (kept and tagged and set(before.parents) <= set(after.parents)) or added:
            return name
    return None


def may_lack(workspace: Workspace) -> bool:
    """Return whether what a loader knows may refer to an entity that has to be listed."""
    seen: set[str] = set()
    pending = list(workspace.written.loaders)
    while pending:
        name = pending.pop()
        declared = workspace.types.entities.get(name)
        if name in seen or declared is None:
            continue
        seen.add(name)
        pending += (*declared.parents, *_referred(declared.attributes), *_referred(declared.tags))
    return bool(workspace.policies.missing({(name, "") for name in seen - workspace.written.loaders - _MADE}))


def _referred(type_: CedarType | None) -> tuple[str, ...]:
    """Return the entity types that a value's type names."""
    found: list[str] = []
    pending = [type_]
    while pending:
        one = pending.pop()
        if one is None:
            continue
        if one.is_entity:
            found.append(one.name)
        pending += (one.element, *(member.type for member in one.members.values()))
    return tuple(found)


def reach_is_kept(old: Workspace, new: Workspace) -> bool:
    """Return whether nothing that a loaded entity refers to can be missing in the new folder alone.

    What is listed refers to nothing that is not: a folder where it does is refused.
    """
    return not may_lack(new) or old.policies.static_uids <= new.policies.static_uids
