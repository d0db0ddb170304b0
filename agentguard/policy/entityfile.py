"""Read `cedarentities.json`: the entities that the security team knows by name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import cedarpy

from agentguard.model import EntityUid
from agentguard.policy.lexer import position
from agentguard.policy.reach import UnsafeValueError, references_of, uid_of
from agentguard.policy.reader import Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentguard.policy.reach import Uid
    from agentguard.policy.schema import SchemaTexts

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_KEYS: Final = frozenset(("uid", "attrs", "parents", "tags"))
_NEEDED: Final = frozenset(("uid", "attrs", "parents"))
_OURS: Final = frozenset(("Action", "Invocation", "Server", "Tool"))


@dataclass(frozen=True, slots=True)
class StaticEntity:
    """One entity of the file: its name, its Cedar JSON, and the line it starts on."""

    uid: EntityUid
    json: Mapping[str, object]
    line: int


def read_entities(file: str, text: str) -> tuple[list[StaticEntity], list[Problem]]:
    """Return the entities that *text* lists, and what is wrong with the others."""
    entities: dict[EntityUid, StaticEntity] = {}
    problems: list[Problem] = []
    try:
        items = _items(text)
    except json.JSONDecodeError as error:
        return [], [Problem(file, error.lineno, f"this is not JSON: {error.msg.lower()}")]
    except RecursionError:
        return [], [Problem(file, 1, "this is nested too deep: flatten it")]
    for value, line in items:
        try:
            entity = _entity(value, line)
        except ValueError as error:
            problems.append(Problem(file, line, str(error)))
            continue
        earlier = entities.setdefault(entity.uid, entity)
        if earlier is not entity:
            problems.append(
                Problem(file, line, f"`{entity.uid}` is there twice, first in line {earlier.line}: keep one")
            )
    return list(entities.values()), problems


def _items(text: str) -> list[tuple[object, int]]:
    """Return the members of a JSON list, each with its line, which `json` does not tell."""
    decoder = json.JSONDecoder(object_pairs_hook=_record, parse_constant=_no_number, parse_float=_no_number)

    def after_blank(at: int) -> int:
        match = _BLANK.match(text, at)
        return match.end() if match else at

    def expect(at: int, character: str) -> int:
        if text[at : at + 1] != character:
            message = f"expecting `{character}`"
            raise json.JSONDecodeError(message, text, min(at, len(text)))
        return after_blank(at + 1)

    items: list[tuple[object, int]] = []
    at = expect(after_blank(0), "[")
    while text[at : at + 1] != "]":
        if items:
            at = expect(at, ",")
        line, _ = position(text, at)
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            raise json.JSONDecodeError(str(error), text, at) from None
        items.append((value, line))
        at = after_blank(end)
    if (end := expect(at, "]")) != len(text):
        message = "expecting nothing after the list"
        raise json.JSONDecodeError(message, text, end)
    return items


def _record(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) != len(pairs):
        message = "an object has a key twice: keep one"
        raise ValueError(message)
    return record


def _no_number(number: str) -> NoReturn:
    message = (
        f'Cedar has no number `{number}`: write {{"__extn": {{"fn": "decimal", "arg": "{number}"}}}} or a whole number'
    )
    raise ValueError(message)


def _entity(value: object, line: int) -> StaticEntity:
    """Check one member of the list.

    Raises:
        ValueError: With what to change.
    """
    if not isinstance(value, dict) or not _NEEDED <= value.keys() <= _KEYS:
        message = (
            'an entity is {"uid": …, "attrs": {…}, "parents": […]}: write exactly these, and "tags" if it has some'
        )
        raise ValueError(message)
    if type(value["attrs"]) is not dict or type(value["parents"]) is not list:
        message = 'wants an object for "attrs" and a list for "parents": write {} and [] where there are none'
        raise ValueError(message)
    try:
        uids = [uid_of(value["uid"]), *(uid_of(parent) for parent in value["parents"])]
    except UnsafeValueError:
        message = 'an entity is named by its type and its id: write {"type": "User", "id": "alice"}'
        raise ValueError(message) from None
    uid = EntityUid(*uids[0])
    if uid.type in _OURS:
        message = f"`{uid}` is made by the guard: remove it"
        raise ValueError(message)
    return StaticEntity(uid, value, line)


def unfit_entities(
    file: str, entities: Sequence[StaticEntity], schema: SchemaTexts, plain: Mapping[str, frozenset[str]]
) -> list[Problem]:
    """Return a problem for every entity that the schema does not allow, or that lacks another.

    Args:
        file: The file's name, for messages.
        entities: What it lists.
        schema: The entity types.
        plain: For each of these, the attributes that can refer to nothing.
    """
    types = cedarpy.Schema.from_str(schema.types)
    present = {(entity.uid.type, entity.uid.id) for entity in entities}
    problems = [
        Problem(file, entity.line, what)
        for entity in entities
        for what in _unfit(entity, schema, plain, types, present)
    ]
    if not problems:
        try:
            cedarpy.Entities.from_json_str(json.dumps([entity.json for entity in entities]), types)
        except ValueError as error:
            problems.append(Problem(file, 1, f"the entities do not fit together: {error}: look for a cycle of parents"))
    return problems


def _unfit(
    entity: StaticEntity,
    schema: SchemaTexts,
    plain: Mapping[str, frozenset[str]],
    types: cedarpy.Schema,
    present: set[Uid],
) -> Iterator[str]:
    if entity.uid.type in schema.ours:
        yield f"`{entity.uid}` is made by the guard: remove it"
        return
    declared = schema.entities
    if entity.uid.type not in declared:
        yield f"there is no entity type `{entity.uid.type}`: {did_you_mean(entity.uid.type, declared)}"
        return
    try:
        _, references = references_of(entity.json, plain)
    except UnsafeValueError as error:
        yield f"`{entity.uid}`: {error}: write plain values, and __extn with decimal, datetime, duration or ip"
        return
    try:
        cedarpy.Entities.from_json_str(json.dumps([entity.json]), types)
    except ValueError:
        # Cedar says no more than that.
        yield f"`{entity.uid}` does not fit its type: compare attributes and parents with its declaration"
    for type_, id_ in sorted(references - present):
        if type_ in declared and not declared[type_].bare:
            yield f"`{entity.uid}` refers to `{EntityUid(type_, id_)}`, which is not here: add it"
