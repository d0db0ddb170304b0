"""What a request can reach, and whether all of it is there.

Cedar answers for an entity that it was not given as if it had no attributes and were in
nothing: `principal.user in Group::"suspended"` is then quietly false, and a forbid does
not fire. So every entity that can be reached from principal, resource or context has to
be present before Cedar is asked.

To find them, Cedar JSON has to be read as Cedar reads it. With a schema, Cedar takes a
record with a type and an id, and even a list of the two, for an entity, and likewise for
a function call. Here only the explicit forms pass: what could be one of the others counts
as a reference too, and `unknown`, which makes a forbid not fire, is refused in each form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

Uid = tuple[str, str]
"""An entity's type and id; a plain tuple, since these are hashed on every call."""

_FUNCTIONS: Final = frozenset(("decimal", "datetime", "duration", "ip"))
_SCALARS: Final = frozenset((str, int, bool))
_CALL_KEYS: Final = {"fn", "arg"}
_ENTITY_KEYS: Final = {"uid", "attrs", "parents"}
_TAGGED_KEYS: Final = {*_ENTITY_KEYS, "tags"}
_PAIR: Final = 2


class UnsafeValueError(ValueError):
    """Cedar JSON that is not a plain value, or not plainly one."""


def json_text(value: object) -> str:
    """Return *value* as JSON.

    Raises:
        ValueError: If it is nested too deep, holds a lone surrogate, or is no JSON.
    """
    return to_json(value).decode()


def uid_of(value: object) -> Uid:
    """Return the entity that the JSON names.

    Raises:
        UnsafeValueError: For anything but ``{"type": …, "id": …}``.
    """
    if type(value) is dict and len(value) == _PAIR:
        type_, id_ = value.get("type"), value.get("id")
        if type(type_) is str and type(id_) is str:
            return type_, id_
    return _unsafe('an entity is named by {"type": …, "id": …}')


def add_references(value: object, found: set[Uid], *, special: bool) -> None:
    """Add to *found* every entity that a Cedar JSON value could refer to.

    Args:
        value: The value.
        found: Where to add them.
        special: Whether the value's type has an entity or an extension type in it, so
            that Cedar may read a record or a list as one.

    Raises:
        UnsafeValueError: For an extension function other than the four that values are
            made of, or for what is no Cedar JSON.
    """
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is dict:
        _add_of_record(value, found, special=special)  # type: ignore[arg-type]
    elif kind is list:
        if special:
            _add_of_pair(value, found)  # type: ignore[arg-type]
        for item in value:  # type: ignore[attr-defined]
            add_references(item, found, special=special)
    else:
        _unsafe("a value is no string, whole number, bool, list or record")


def _add_of_record(record: Mapping[object, object], found: set[Uid], *, special: bool) -> None:
    if "__entity" in record:
        found.add(uid_of(record["__entity"]))
    elif "__extn" in record:
        call = record["__extn"]
        if type(call) is not dict or call.keys() != _CALL_KEYS or type(call["arg"]) is not str:
            _unsafe("a function is called in a way that values are not made")
        _check_function(call["fn"])
    elif "__expr" in record:
        _unsafe("a value is given as an expression")
    else:
        _add_of_plain_record(record, found, special=special)
        return
    if len(record) != 1:
        _unsafe("a reference or a call holds more than itself")


def _add_of_plain_record(record: Mapping[object, object], found: set[Uid], *, special: bool) -> None:
    if special:
        if "fn" in record:
            _check_function(record["fn"])
        if "type" in record and "id" in record:
            _add_of_pair([record["type"], record["id"]], found)
    for key, item in record.items():
        if type(key) is not str:
            _unsafe("a record has a key that is no string")
        add_references(item, found, special=special)


def _add_of_pair(pair: list[object], found: set[Uid]) -> None:
    """Add what could be a type and an id, or a function and its argument."""
    if len(pair) == _PAIR:
        first, second = pair
        if first == "unknown":
            _check_function(first)
        if type(first) is str and type(second) is str:
            found.add((first, second))


def _check_function(name: object) -> None:
    if type(name) is not str or name not in _FUNCTIONS:
        _unsafe("a value uses a function that values are not made of")


def _unsafe(what: str) -> NoReturn:
    raise UnsafeValueError(what)


def references_of(entity: object, plain: Mapping[str, frozenset[str]]) -> tuple[Uid, set[Uid]]:
    """Return an entity's own name, and every entity that it could refer to.

    Args:
        entity: Cedar JSON of one entity.
        plain: For each entity type, the attributes that can refer to nothing.

    Raises:
        UnsafeValueError: If it is not exactly of the form that entities have.
    """
    if type(entity) is not dict or not entity.keys() >= _ENTITY_KEYS:
        _unsafe('an entity is {"uid": …, "attrs": {…}, "parents": […]}')
    uid, attributes, parents = uid_of(entity["uid"]), entity["attrs"], entity["parents"]
    if type(attributes) is not dict or type(parents) is not list:
        _unsafe('an entity has an object for "attrs" and a list for "parents"')
    found = {uid_of(parent) for parent in parents}
    without = plain.get(uid[0], ())
    for name, value in attributes.items():
        if type(value) not in _SCALARS:
            add_references(value, found, special=name not in without)
        if type(name) is not str:
            _unsafe("an attribute's name is no string")
    if len(entity) > len(_ENTITY_KEYS):
        if entity.keys() != _TAGGED_KEYS:
            _unsafe('an entity has no more than "uid", "attrs", "parents" and "tags"')
        add_references(entity["tags"], found, special=True)
    return uid, found


def parents_of(entity: Mapping[str, object]) -> frozenset[Uid]:
    """Return the parents of an entity that `references_of` let pass."""
    parents = entity["parents"]
    return frozenset(uid_of(parent) for parent in parents) if isinstance(parents, list) else frozenset()


class KnownEntities:
    """Entities that are known before any request, with what each refers to.

    Attributes:
        text: Each one's Cedar JSON text.
        refers_to: What each one refers to.
        parents: The parents of each one.
    """

    def __init__(self, entities: Iterable[Mapping[str, object]], plain: Mapping[str, frozenset[str]]) -> None:
        self.text: dict[Uid, str] = {}
        self.refers_to: dict[Uid, set[Uid]] = {}
        self.parents: dict[Uid, frozenset[Uid]] = {}
        for entity in entities:
            uid, references = references_of(entity, plain)
            self.text[uid] = json_text(entity)
            self.refers_to[uid] = references
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
        if uid in done or uid in seen:
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
