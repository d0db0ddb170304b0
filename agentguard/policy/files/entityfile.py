"""Read `cedarentities.json`: the entities that the security team knows by name."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NoReturn

import cedarpy

from agentguard.model import EntityUid
from agentguard.policy.deciding.reach import UnsafeValueError, references_of, uid_of
from agentguard.policy.problem import Problem, did_you_mean
from agentguard.policy.text.lexer import position

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from agentguard.policy.schemas.schema import SchemaTexts

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_KEYS: Final = frozenset(("uid", "attrs", "parents", "tags"))
_NEEDED: Final = frozenset(("uid", "attrs", "parents"))
_RESERVED: Final = "reserved-type"
_OURS: Final = frozenset(("Action", "Invocation", "Server", "Tool"))


@dataclass(frozen=True, slots=True)
class StaticEntity:
    """One entity of the file.

    Attributes:
        uid: Its name.
        json: Its Cedar JSON.
        line: The line it starts on.
        at: Where in that line it does, and the rest of that line.
        file: The file, where it is known.
    """

    uid: EntityUid
    json: Mapping[str, object]
    line: int
    at: tuple[int, str] = field(default=(0, ""), compare=False, repr=False)
    file: str = field(default="", compare=False)

    def problem(self, file: str, what: str, name: str, word: str = "") -> Problem:
        """Return a problem of this entity, at *word* if that stands in its first line."""
        return _problem(self.file or file, self.line, self.at, what, name=name, word=word)


def read_entities(file: str, text: str) -> tuple[list[StaticEntity], list[Problem]]:
    """Return the entities that *text* lists, and what is wrong with the others."""
    entities: dict[EntityUid, StaticEntity] = {}
    problems: list[Problem] = []
    try:
        items = _items(text)
    except json.JSONDecodeError as error:
        what = f"this is not JSON: {error.msg.lower()}"
        return [], [Problem(file, error.lineno, what, column=error.colno, name="syntax")]
    except RecursionError:
        return [], [Problem(file, 1, "this is nested too deep: flatten it", name="past-limit")]
    for value, line, at in items:
        try:
            entity = replace(_entity(value, line, at), file=file)
        except _UnfitError as error:
            problems.append(_problem(file, line, at, str(error), name=error.name, word=error.word))
            continue
        earlier = entities.setdefault(entity.uid, entity)
        if earlier is not entity:
            what = f"`{entity.uid}` is there twice, first in line {earlier.line}: keep one"
            problems.append(entity.problem(file, what, "duplicate-entity", entity.uid.id))
    return list(entities.values()), problems


def listed_twice(entities: Iterable[StaticEntity]) -> list[Problem]:
    """Return a problem for every entity that an earlier file has too."""
    first: dict[EntityUid, StaticEntity] = {}
    problems = []
    for entity in entities:
        earlier = first.setdefault(entity.uid, entity)
        if earlier is not entity:
            what = f"`{entity.uid}` is there twice, first in {earlier.file}:{earlier.line}: keep one"
            problems.append(entity.problem(entity.file, what, "duplicate-entity", entity.uid.id))
    return problems


class _UnfitError(Exception):
    """A member of the list that is no entity; the message says what to change."""

    def __init__(self, what: str, name: str = "bad-entity", word: str = "") -> None:
        super().__init__(what)
        self.name = name
        self.word = word


def _problem(file: str, line: int, at: tuple[int, str], what: str, *, name: str, word: str) -> Problem:
    column, text = at
    written = json.dumps(word, ensure_ascii=False)
    place = text.find(written) if word else -1
    if place < 0:
        return Problem(file, line, what, column=column, name=name)
    return Problem(file, line, what, column=column + place, length=len(written), name=name)


def _items(text: str) -> list[tuple[object, int, tuple[int, str]]]:
    """Return the members of a JSON list, each with its line, which `json` does not tell, and its place in it."""
    decoder = json.JSONDecoder(object_pairs_hook=_record, parse_constant=_no_number, parse_float=_no_number)

    def after_blank(at: int) -> int:
        match = _BLANK.match(text, at)
        return match.end() if match else at

    def expect(at: int, character: str) -> int:
        if text[at : at + 1] != character:
            message = f"expecting `{character}`"
            raise json.JSONDecodeError(message, text, min(at, len(text)))
        return after_blank(at + 1)

    items: list[tuple[object, int, tuple[int, str]]] = []
    at = expect(after_blank(0), "[")
    while text[at : at + 1] != "]":
        if items:
            at = expect(at, ",")
        line, column = position(text, at)
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            raise json.JSONDecodeError(str(error), text, at) from None
        items.append((value, line, (column, text[at:end].partition("\n")[0])))
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


def _entity(value: object, line: int, at: tuple[int, str]) -> StaticEntity:
    """Check one member of the list.

    Raises:
        _UnfitError: With what to change.
    """
    if not isinstance(value, dict) or not _NEEDED <= value.keys() <= _KEYS:
        message = (
            'an entity is {"uid": …, "attrs": {…}, "parents": […]}: write exactly these, and "tags" if it has some'
        )
        raise _UnfitError(message)
    if type(value["attrs"]) is not dict or type(value["parents"]) is not list:
        message = 'wants an object for "attrs" and a list for "parents": write {} and [] where there are none'
        raise _UnfitError(message)
    try:
        uids = [uid_of(value["uid"]), *(uid_of(parent) for parent in value["parents"])]
    except UnsafeValueError:
        message = 'an entity is named by its type and its id: write {"type": "User", "id": "alice"}'
        raise _UnfitError(message) from None
    uid = EntityUid(*uids[0])
    if uid.type in _OURS:
        message = f"`{uid}` is made by the guard: remove it"
        raise _UnfitError(message, _RESERVED, uid.type)
    return StaticEntity(uid, value, line, at)


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
    present: dict[str, set[str]] = {}
    for entity in entities:
        present.setdefault(entity.uid.type, set()).add(entity.uid.id)
    problems = [
        entity.problem(file, what, name, word)
        for entity in entities
        for what, name, word in _unfit(entity, schema, plain, types, present)
    ]
    if not problems:
        try:
            cedarpy.Entities.from_json_str(json.dumps([entity.json for entity in entities]), types)
        except ValueError as error:
            what = f"the entities do not fit together: {error}: look for a cycle of parents"
            problems.append(Problem(entities[0].file or file, 1, what, name="entity-cycle"))
    return problems


def _unfit(
    entity: StaticEntity,
    schema: SchemaTexts,
    plain: Mapping[str, frozenset[str]],
    types: cedarpy.Schema,
    present: Mapping[str, Collection[str]],
) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with an entity, how that is called, and the word at fault."""
    if entity.uid.type in schema.ours:
        yield f"`{entity.uid}` is made by the guard: remove it", _RESERVED, entity.uid.type
        return
    declared = schema.entities
    if entity.uid.type not in declared:
        what = f"there is no entity type `{entity.uid.type}`: {did_you_mean(entity.uid.type, declared)}"
        yield what, "unknown-type", entity.uid.type
        return
    try:
        _, references = references_of(entity.json, plain)
    except UnsafeValueError as error:
        what = f"`{entity.uid}`: {error}: write plain values, and __extn with decimal, datetime, duration or ip"
        yield what, "bad-entity", entity.uid.id
        return
    try:
        cedarpy.Entities.from_json_str(json.dumps([entity.json]), types)
    except ValueError:
        # Cedar says no more than that.
        what = f"`{entity.uid}` does not fit its type: compare attributes and parents with its declaration"
        yield what, "type-mismatch", entity.uid.id
    for type_, id_ in sorted(references):
        ids = present.get(type_, ())
        # Where one of them is listed, all are: a group that is mistyped would suspend nobody.
        if id_ not in ids and type_ in declared and (ids or not declared[type_].bare):
            what = f"`{entity.uid}` refers to `{EntityUid(type_, id_)}`, which is not here: {_close(id_, ids)}"
            yield what, "unknown-entity", id_


def _close(id_: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(id_, sorted(known), n=1)
    return f"did you mean `{close[0]}`?" if close else "add it"
