"""What a request can reach, and whether all of it is there.

Cedar answers for an entity that it was not given as if it had no attributes and were in
nothing: `principal.user in Group::"suspended"` is then quietly false, and a forbid does
not fire. So every entity that can be reached from principal, resource or context has to
be present before Cedar is asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

Uid = tuple[str, str]
"""An entity's type and id; a plain tuple, since these are hashed on every call."""

_FUNCTIONS: Final = frozenset(("decimal", "datetime", "duration", "ip"))
_UID_KEYS: Final = {"type", "id"}


class UnsafeValueError(ValueError):
    """Cedar JSON that says something other than a plain value."""


def uid_of(value: object) -> Uid:
    """Return the entity that the JSON names.

    Raises:
        UnsafeValueError: For anything but ``{"type": …, "id": …}``. Cedar takes other
            spellings too, which would hide an entity from the check that it is there.
    """
    if type(value) is dict and value.keys() == _UID_KEYS:
        type_, id_ = value["type"], value["id"]
        if type(type_) is str and type(id_) is str:
            return type_, id_
    message = 'an entity is named by {"type": …, "id": …}'
    raise UnsafeValueError(message)


def add_references(value: object, found: set[Uid]) -> None:
    """Add to *found* every entity that a Cedar JSON value could refer to.

    With a schema, Cedar reads a record of a type and an id as an entity without being
    told, so any such record counts as one.

    Raises:
        UnsafeValueError: For an extension function other than the four that values are
            made of. `unknown`, of partial evaluation, makes a forbid not fire.
    """
    if type(value) is dict:
        if value.keys() == _UID_KEYS and type(value["type"]) is str and type(value["id"]) is str:
            found.add((value["type"], value["id"]))
            return
        if "fn" in value and value["fn"] not in _FUNCTIONS:
            message = "a value uses a function that values are not made of"
            raise UnsafeValueError(message)
        if "__expr" in value:
            message = "a value is given as an expression"
            raise UnsafeValueError(message)
        for item in value.values():
            add_references(item, found)
    elif type(value) is list:
        for item in value:
            add_references(item, found)


def references_of(entity: Mapping[str, object]) -> set[Uid]:
    """Return every entity that attributes, tags and parents of *entity* refer to."""
    found: set[Uid] = set()
    for key, value in entity.items():
        if key != "uid":
            add_references(value, found)
    return found


def parents_of(entity: Mapping[str, object]) -> frozenset[Uid]:
    """Return the parents of *entity*."""
    parents = entity.get("parents", [])
    return frozenset(uid_of(parent) for parent in parents) if isinstance(parents, list) else frozenset()


class KnownEntities:
    """Entities that are known before any request, with what each refers to.

    Attributes:
        text: Each one's Cedar JSON text.
        refers_to: What each one refers to.
        parents: The parents of each one.
    """

    def __init__(self, entities: Iterable[Mapping[str, object]]) -> None:
        self.text: dict[Uid, str] = {}
        self.refers_to: dict[Uid, set[Uid]] = {}
        self.parents: dict[Uid, frozenset[Uid]] = {}
        for entity in entities:
            uid = uid_of(entity.get("uid"))
            self.text[uid] = json.dumps(entity)
            self.refers_to[uid] = references_of(entity)
            self.parents[uid] = parents_of(entity)


def resolve(
    start: Iterable[Uid], known: KnownEntities, given: Mapping[Uid, set[Uid]], done: Container[Uid]
) -> tuple[set[Uid], set[Uid]]:
    """Follow references from *start* until there are no more.

    Args:
        start: Where to begin.
        known: Entities known before the request.
        given: What each entity that came with the request refers to.
        done: Entities that need not be looked at again.

    Returns:
        The entities of *known* that were reached, and those found nowhere.
    """
    used: set[Uid] = set()
    absent: set[Uid] = set()
    seen: set[Uid] = set()
    pending = list(start)
    while pending:
        uid = pending.pop()
        if uid in seen or uid in done:
            continue
        seen.add(uid)
        # One that came with the request and is known too is added twice, so that Cedar
        # refuses two versions of it.
        if uid in known.refers_to:
            used.add(uid)
            pending += known.refers_to[uid]
        if uid in given:
            pending += given[uid]
        elif uid not in known.refers_to:
            absent.add(uid)
    return used, absent


def ancestors(start: Iterable[Uid], *parents: Mapping[Uid, frozenset[Uid]]) -> frozenset[Uid]:
    """Return *start* and everything that these are in, as far as *parents* tells."""
    seen: set[Uid] = set()
    pending = list(start)
    while pending:
        uid = pending.pop()
        if uid not in seen:
            seen.add(uid)
            for mapping in parents:
                pending += mapping.get(uid, ())
    return frozenset(seen)
