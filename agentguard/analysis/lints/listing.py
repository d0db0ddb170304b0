"""What `cedarentities.json` says, and policies ask otherwise."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.lint import Spot
from agentguard.model import EntityUid
from agentguard.policy.deciding.reach import ancestors, uid_of
from agentguard.policy.files.folder import ENTITIES
from agentguard.policy.files.several import COMMON, split
from agentguard.policy.text.tree import Op, path_of, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentguard.analysis.lints.lint import Read, Reading
    from agentguard.policy.text.tree import Node

# What can be in a group where a policy asks for one of these.
_MEMBERS: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    ("principal",): frozenset(("Agent", "Task")),
    ("principal", "agent"): frozenset(("Agent",)),
    ("principal", "task"): frozenset(("Task",)),
}
_GROUP: Final = "Group"


def groups_of_users(read: Read) -> Iterator[Spot]:
    """Find policies that ask whether a run is in a group that holds users alone: a run is in none of them."""
    if read.workspace.written.loaders & {"Agent", "Task", _GROUP}:
        return
    holders = _holders(read)
    for reading in read.readings:
        needed = {id(node) for node, wanted in (*reading.head, *reading.conditions) if wanted}
        roots = [reading.syntax.principal, *(clause.body for clause in reading.syntax.clauses)]
        for node in (node for root in roots for node in walk(root)) if not reading.shared else ():
            asked, vain = _vain(node, holders)
            if vain:
                fatal = not reading.permits and len(vain) == asked and id(node) in needed
                yield _only_users(reading, node, vain[0])._replace(fatal=fatal)


def _holders(read: Read) -> dict[EntityUid, set[str]]:
    """Return the types of what is in each group, and in those within it."""
    parents = read.workspace.policies.known.parents
    found: dict[EntityUid, set[str]] = {}
    for uid in parents:
        for above in ancestors([uid], parents):
            found.setdefault(EntityUid(*above), set()).add(uid[0])
    return found


def _vain(node: Node, holders: Mapping[EntityUid, set[str]]) -> tuple[int, list[EntityUid]]:
    """Return how many groups a condition asks for, and those of them that hold users and nothing that is asked for."""
    wanted = _MEMBERS.get(path_of(node.parts[0]) or ()) if node.op in {Op.IN, Op.IS} and len(node.parts) > 1 else None
    if wanted is None:
        return 0, []
    outer = node.parts[1]
    asked = outer.parts if outer.op is Op.SET else (outer,)
    uids = [part.value for part in asked if isinstance(part.value, EntityUid) and part.value.type == _GROUP]
    return len(asked), [uid for uid in uids if "User" in (held := holders.get(uid, set())) and not held & wanted]


def _only_users(reading: Reading, node: Node, group: EntityUid) -> Spot:
    asked = f"principal has user && principal.user in {group}"
    fix = f"write `{asked}`"
    if node is reading.syntax.principal:
        fix = f"leave `principal` alone in the head, and write `when {{ {asked} }}`"
    what = f"`{group}` holds users alone, and `{'.'.join(path_of(node.parts[0]) or ())}` is never in it"
    return reading.spot(node, f"{what}: {fix}")


def _asks_for_any(read: Read) -> bool:
    """Whether a policy asks for a group that a record or a call names: then no policy has to name it."""
    return any(
        node.op is Op.IN and node.parts[1].op not in {Op.ENTITY, Op.SET}
        for reading in read.readings
        for clause in reading.syntax.clauses
        for node in walk(clause.body)
    )


def unlisted_parents(read: Read) -> Iterator[Spot]:
    """Find groups that something is in, and that nothing asks about: they may be mistyped."""
    entities = read.workspace.source.entities
    named = {literal.uid for reading in read.readings for literal in reading.policy.literals}
    known = sorted(uid.id for uid in named if uid.type == _GROUP)
    # Where groups are listed, one that is not is refused.
    if any(entity.uid.type == _GROUP for entity in entities) or _asks_for_any(read):
        return
    for entity in entities:
        listed = entity.json["parents"]
        for parent in listed if isinstance(listed, list) and split(entity.file)[0] != COMMON else ():
            uid = EntityUid(*uid_of(parent))
            if uid.type == _GROUP and uid not in named:
                close = difflib.get_close_matches(uid.id, known, n=1)
                fix = f"did you mean `{close[0]}`?" if close else "list it there, or take it out"
                what = f"`{entity.uid}` is in `{uid}`, which no policy asks about and {ENTITIES} does not list: {fix}"
                yield Spot(what, place=entity.problem(ENTITIES, what, "unlisted-parent", uid.id))
