"""The guarded tools again, from the schema that was written of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

import cedarpy

from agentguard.errors import ConfigurationError
from agentguard.model import printable
from agentguard.policy.conversion.composites import Member, Shape, record_from, set_of
from agentguard.policy.conversion.scalars import refusal
from agentguard.policy.conversion.shapes import is_total
from agentguard.policy.files.folder import WRITTEN as FILE
from agentguard.policy.problem import Problem, refused
from agentguard.policy.schemas.offered import Offered, WrittenSchema
from agentguard.policy.schemas.schema import ATTRIBUTES, CLAIMS, CREDENTIALS, GROUPS, METHODS, GuardedTool, OwnType
from agentguard.policy.schemas.schematext import shown
from agentguard.policy.schemas.types import read_types
from agentguard.policy.text.annotations import COMMA, listed
from agentguard.policy.text.lexer import LexError, check_schema_bounds, tokens
from agentguard.request import ResourceTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.limits import Limits
    from agentguard.policy.conversion.scalars import Budget
    from agentguard.policy.schemas.types import ActionDecl, CedarType, SchemaTypes

_MOST: Final = 2**24
_INVALID: Final = "invalid-schema"
_FIX: Final = "write it again, with `agentguard schema SERVER --write FOLDER`"
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_TRUTH: Final = frozenset(("true", "false"))
_GIVEN: Final = frozenset(name.rstrip("?") for name in ATTRIBUTES)
_KINDS: Final = {"resources/read": OwnType.RESOURCE, "prompts/get": OwnType.PROMPT}


def read_schema(text: str, limits: Limits) -> WrittenSchema:
    """Return what `write_schema` wrote. People may have edited it since.

    Raises:
        PolicyError: If it is not what could have been written, one line for each problem.
    """
    if len(text) > _MOST:
        message = f"holds {len(text)} characters, and may hold {_MOST}: {_FIX}"
        raise refused([Problem(FILE, 0, message, name=_INVALID)])
    try:
        found = tokens(text)
        check_schema_bounds(text, found, limits)
        types = read_types(text, limits)
    except LexError as error:
        raise refused([Problem(FILE, error.line, error.what, column=error.column, name=_INVALID)]) from None
    try:
        cedarpy.Schema.from_str(text)
    except ValueError as error:
        what = f"Cedar cannot read it: {printable(str(error))}: {_FIX}"
        raise refused([Problem(FILE, 0, what, name=_INVALID)]) from None
    reader = _Reader(types)
    written = reader.read()
    if reader.problems:
        raise refused(sorted(reader.problems))
    return written


class _Reader:
    """Finds what is said beside the types, and what is not as it was written."""

    def __init__(self, types: SchemaTypes) -> None:
        self._types = types
        self._server = ""
        self.problems: list[Problem] = []

    def read(self) -> WrittenSchema:
        actions = self._types.actions.values()
        said = next((action for action in actions if action.context is None and "server" in action.annotations), None)
        if said is None:
            self._refuse(0, f'says of no server what it offers, as `@server("its name")` above its groups: {_FIX}')
            return WrittenSchema(server="", offers=())
        self._server = said.annotations["server"]
        loaders = said.annotations.get("loaders")
        offers = [self._offered(action, action.context) for action in actions if action.context is not None]
        for action in actions:
            if action.context is None and action.name not in GROUPS and action.name not in METHODS:
                self._refuse(action.line, f"action {shown(action.name)} applies to nothing: remove it, or {_FIX}")
        return WrittenSchema(
            server=self._server,
            offers=tuple(offered for offered in offers if offered is not None),
            loaders=frozenset() if loaders is None else frozenset(listed(loaders, COMMA)),
            claims=self._claims(),
        )

    def _refuse(self, line: int, what: str) -> None:
        self.problems.append(Problem(FILE, line, what, name=_INVALID))

    def _claims(self) -> dict[str, type]:
        invocation = self._types.entities.get("Invocation")
        if invocation is None:
            self._refuse(0, f"declares no `Invocation`, which every principal is: {_FIX}")
            return {}
        claims: dict[str, type] = {}
        for name, member in invocation.attributes.members.items():
            if name not in _GIVEN:
                kind = next((kind for kind, cedar in CLAIMS.items() if cedar == str(member.type)), None)
                if kind is None:
                    what = f"claim {shown(name)} of `Invocation` is {member.type}, which no claim can be: {_FIX}"
                    self._refuse(invocation.line, what)
                else:
                    claims[name] = kind
        return claims

    def _offered(self, action: ActionDecl, context: CedarType) -> Offered | None:
        known = len(self.problems)
        what = f"action {shown(action.name)}"
        if stray := [group for group in action.groups if group not in GROUPS and group not in METHODS]:
            self._refuse(action.line, f"{what} is in {shown(stray[0])}, which the guard has not: {_FIX}")
        if len(action.resources) != 1:
            self._refuse(action.line, f"{what} wants one type of resource, got {len(action.resources)}: {_FIX}")
        shapes: dict[str, Shape] = {}
        for key in ("input", "facts"):
            member = context.members.get(key)
            if member is not None and (member.type.name != "Record" or not member.required):
                self._refuse(action.line, f"`context.{key}` of {what} wants a record, always there: {_FIX}")
            elif member is not None:
                try:
                    shapes[key] = shape_from(member.type, where=action.name)
                except ValueError as error:
                    self._refuse(action.line, f"`context.{key}` of {what}: {error}: {_FIX}")
            elif key == "input":
                self._refuse(action.line, f"{what} has no `input` in its context: {_FIX}")
        totals = self._totals(action, shapes, what)
        resource = self._template(action, what)
        if len(self.problems) > known:
            return None
        kind = _kind(action)
        type_ = None if action.resources == (kind.value,) else action.resources[0]
        tool = GuardedTool(
            name=action.name,
            server=self._server,
            input=shapes["input"],
            facts=shapes.get("facts"),
            resource_type=type_,
            groups=frozenset(action.groups),
            kind=kind,
            unseen=listed(action.annotations["unseen"], COMMA) if "unseen" in action.annotations else (),
            totals=totals,
            labels=frozenset(listed(action.annotations["labels"], COMMA) if "labels" in action.annotations else ()),
        )
        return Offered(tool=tool, resource=resource, annotated="unannotated" not in action.annotations)

    def _totals(self, action: ActionDecl, shapes: Mapping[str, Shape], what: str) -> tuple[str, ...]:
        """Return the totals that a tool adds to: those that it names, and those of its arguments and facts."""
        named = listed(action.annotations["totals"], COMMA) if "totals" in action.annotations else ()
        if wrong := [name for name in named if not is_total(name)]:
            self._refuse(action.line, f"{what} has @totals, and {shown(wrong[0])} is no name of one: {_FIX}")
        spent = {part.shape.spends for shape in shapes.values() for part in shape.parts} - {""}
        return tuple(sorted({*named, *spent}))

    def _template(self, action: ActionDecl, what: str) -> ResourceTemplate | None:
        written = action.annotations.get("resource")
        if written is None:
            return None
        try:
            template = ResourceTemplate.parse(written)
        except ConfigurationError as error:
            self._refuse(action.line, f"{what}: {printable(str(error))}")
            return None
        if (template.type,) != action.resources:
            wanted = ", ".join(f"`{type_}`" for type_ in action.resources)
            self._refuse(action.line, f"{what} acts on {wanted}, and its @resource is {shown(written)}: {_FIX}")
        return template


def _kind(action: ActionDecl) -> OwnType:
    if action.name in METHODS or (action.name == CREDENTIALS and not action.groups):
        return OwnType.SERVER
    return next((kind for group, kind in _KINDS.items() if group in action.groups), OwnType.TOOL)


def shape_from(type_: CedarType, *, where: str) -> Shape:
    """Return a shape with the text of a type. It converts nothing: values come typed where it is used.

    Raises:
        ValueError: If no argument has such a type.
    """
    if type_.is_entity:
        message = f"{shown(type_.name)} is an entity, which no argument is"
        raise ValueError(message)
    if type_.element is not None:
        return set_of(shape_from(type_.element, where=where), (), where)
    if type_.name == "Record":
        parts = [
            Member(name, shape_from(member.type, where=where), optional=not member.required, nullable=False)
            for name, member in type_.members.items()
        ]
        return record_from(parts, dict, where, closed=True)
    return Shape(type_.name, _values(type_), spends=type_.spends, convert=_unconverted)


def _values(type_: CedarType) -> tuple[str | int | bool, ...]:
    """Return the values that there are, as what they are.

    Raises:
        ValueError: If one of them is of another type.
    """
    if type_.name == "Long":
        if wrong := [one for one in type_.one_of if _WHOLE.fullmatch(one) is None]:
            message = f"@one_of wants whole numbers, got {shown(wrong[0])}"
            raise ValueError(message)
        return tuple(map(int, type_.one_of))
    if type_.name == "Bool":
        if wrong := [one for one in type_.one_of if one not in _TRUTH]:
            message = f"@one_of wants `true` or `false`, got {shown(wrong[0])}"
            raise ValueError(message)
        return tuple(one == "true" for one in type_.one_of)
    return type_.one_of


def _unconverted(value: object, _: Budget) -> NoReturn:
    raise refusal(where="a value", wanted="a shape that was made from a type", value=value)
