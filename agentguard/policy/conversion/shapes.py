"""Python types as Cedar types, each with the converter of its values.

A model is read attribute by attribute, in its declared type: `model_dump` leaves out
and rewrites. A type without an exact counterpart is refused, with the fix.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import types
import typing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NotRequired, Required, Union, get_args, get_origin
from uuid import UUID

import pydantic
import typing_extensions

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.limits import Limits
from agentguard.policy.conversion import scalars
from agentguard.policy.conversion.composites import ESCAPES, Member, Shape, pairs_of, record_from, set_of
from agentguard.policy.conversion.scalars import Budget, Convert

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LIMITS: Final = Limits()
_DEEPEST: Final = _LIMITS.argument_nesting
_MOST_DIGITS: Final = 18
_SHOWN: Final = 120
_TOTAL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has"})


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a record: its annotation, and whether it is always there."""

    annotation: object
    required: bool = True


@dataclass(frozen=True, slots=True)
class Scaled:
    """Declares, in `Annotated`, that a number counts in units of 10**-digits.

    ``Annotated[float, Scaled(6)]`` is a Long of millionths, for numbers that need more
    than the four places of Cedar's decimal, such as coordinates.

    Raises:
        ValueError: If *digits* is not a whole number from 0 to 18.
    """

    digits: int

    def __post_init__(self) -> None:
        if type(self.digits) is not int or not 0 <= self.digits <= _MOST_DIGITS:
            message = f"`Scaled` wants 0 to {_MOST_DIGITS} digits, got `{self.digits}`"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Spend:
    """Declares, in `Annotated`, that a number is spent: it adds to a total of the run, named *total*.

    ``amount: Annotated[Decimal, Spend("payments")]``, on an argument or on what `facts=` return: a
    call is judged with the total as it would be after it, ``context.run.spent.payments``.

    Raises:
        ValueError: If *total* is no name that policies can write after a dot.
    """

    total: str

    def __post_init__(self) -> None:
        if not is_total(self.total):
            message = f"`Spend` wants a name such as `payments`, got `{self.total}`"
            raise ValueError(message)


def is_total(name: object) -> bool:
    """Return whether policies can write *name* after a dot: as `payments` in ``context.run.spent.payments``."""
    return isinstance(name, str) and _TOTAL.fullmatch(name) is not None and name not in _WORDS


def shape_of(annotation: object, *, where: str) -> Shape:
    """Compile an annotation.

    Args:
        annotation: A type, as a signature has it.
        where: What is annotated, for messages: ``export_records.max_rows``.

    Raises:
        UnmappableTypeError: If Cedar has no exact counterpart; the message has the fix.
    """
    return _shape(annotation, where, ())


def record_of(fields: Mapping[str, Field], *, where: str) -> Shape:
    """Compile the record of a tool's arguments, whose values come as a `dict`.

    A nullable annotation makes a member optional: its None is absent in Cedar. What is
    not among *fields* is left out of the record, as `exclude=` wants it.

    Raises:
        UnmappableTypeError: If Cedar has no exact counterpart for a member.
    """
    return record_from(_members(fields, where, ()), dict, where, closed=False)


# An annotation, and the exact types that its values have after validation: pydantic's
# own annotations stand beside the standard types that they give.
_SCALARS: Final[Mapping[object, tuple[str, Callable[[str], Convert]]]] = {
    **dict.fromkeys((str, pydantic.EmailStr), ("String", scalars.text)),
    bool: ("Bool", scalars.truth),
    int: ("Long", scalars.whole),
    float: ("decimal", partial(scalars.decimal, kind=float)),
    Decimal: ("decimal", partial(scalars.decimal, kind=Decimal)),
    **dict.fromkeys(
        (datetime, pydantic.AwareDatetime, pydantic.PastDatetime, pydantic.FutureDatetime),
        ("datetime", scalars.moment),
    ),
    **dict.fromkeys((date, pydantic.PastDate, pydantic.FutureDate), ("datetime", scalars.day)),
    timedelta: ("duration", scalars.span),
}
_WRITTEN: Final[Mapping[object, type]] = {
    UUID: UUID,
    Path: type(Path()),
    PurePath: type(PurePath()),
    PurePosixPath: PurePosixPath,
    PureWindowsPath: PureWindowsPath,
}
_ADDRESSES: Final[Mapping[object, tuple[type, ...]]] = {
    pydantic.IPvAnyAddress: (IPv4Address, IPv6Address),
    pydantic.IPvAnyInterface: (IPv4Interface, IPv6Interface),
    pydantic.IPvAnyNetwork: (IPv4Network, IPv6Network),
    **{kind: (kind,) for kind in (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)},
}
_SETS: Final[Mapping[object, tuple[type, ...]]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    tuple: (tuple,),
    collections.abc.Sequence: (list, tuple),
    collections.abc.MutableSequence: (list,),
    collections.abc.Set: (set, frozenset),
    collections.abc.MutableSet: (set,),
}
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_ALIASES: Final = (
    typing_extensions.TypeAliasType,
    getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType),
)
_QUALIFIERS: Final = (Required, NotRequired, typing_extensions.ReadOnly)


def _unmappable(where: str, annotation: object, fix: str) -> UnmappableTypeError:
    plain = isinstance(annotation, type) and get_origin(annotation) is None
    name = annotation.__qualname__ if plain else repr(annotation).replace("typing.", "")  # type: ignore[attr-defined]
    message = f"`{where}` has type `{name[:_SHOWN]}`, which Cedar cannot hold: {fix}, or leave it out with exclude="
    return UnmappableTypeError(message)


def _shape(annotation: object, where: str, around: tuple[object, ...]) -> Shape:
    """Compile *annotation*, which stands inside the types *around* it."""
    if any(annotation is outer for outer in around):
        raise _unmappable(where, annotation, "take a type that does not contain itself")
    if len(around) > _DEEPEST:
        # Its origin alone: to write a type out that is nested without end recurses.
        raise _unmappable(where, get_origin(annotation) or annotation, f"nest types at most {_DEEPEST} deep")
    if isinstance(annotation, type):
        return _class(annotation, where, around)
    if isinstance(annotation, _ALIASES):
        return _shape(annotation.__value__, where, (*around, annotation))
    if isinstance(annotation, typing.NewType):
        return _shape(annotation.__supertype__, where, around)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], where, around)
    if origin is Literal:
        return _choice(annotation, arguments, where)
    return _container(annotation, where, (*around, annotation))


def _container(annotation: object, where: str, inside: tuple[object, ...]) -> Shape:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and arguments[1:] != (...,):
        raise _unmappable(where, annotation, "name its parts in a model")
    if origin in (Union, types.UnionType):
        raise _unmappable(where, annotation, "take one type, with null only for a whole argument or member")
    if origin in _SETS and arguments:
        return set_of(_shape(arguments[0], f"{where}[]", inside), _SETS[origin], where)
    if origin in _MAPPINGS and arguments:
        # Cedar's records have fixed keys, so a mapping becomes a set of pairs.
        key, item = (_shape(argument, f"{where}[]", inside) for argument in arguments)
        if key.cedar != "String":
            raise _unmappable(where, annotation, "let its keys be strings")
        return pairs_of(key, item, where)
    raise _unmappable(where, annotation, "declare exactly what it holds")


def _class(kind: type, where: str, around: tuple[object, ...]) -> Shape:
    if kind in _SCALARS:
        cedar, converter = _SCALARS[kind]
        return Shape(cedar, convert=converter(where))
    if kind in _WRITTEN or issubclass(kind, pydantic.AnyUrl):
        return Shape("String", convert=scalars.text_of(where, _WRITTEN.get(kind, kind)))
    if kind in _ADDRESSES:
        return Shape("ipaddr", convert=scalars.address(where, _ADDRESSES[kind]))
    if issubclass(kind, Enum) and not issubclass(kind, Flag):
        return _choice(kind, tuple(kind), where)
    fields = _fields(kind, where)
    if fields is None:
        raise _unmappable(where, kind, "declare exactly what it holds")
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    if config.get("extra") == "allow":
        raise _unmappable(where, kind, 'set its `extra` to "forbid"')
    read_as = dict if typing_extensions.is_typeddict(kind) else kind
    return record_from(_members(fields, where, (*around, kind)), read_as, where, closed=read_as is dict)


def _fields(kind: type, where: str) -> dict[str, Field] | None:
    """Return the members of a model, dataclass or TypedDict; None for other classes."""
    if issubclass(kind, pydantic.BaseModel):
        return {name: Field(_rejoined(info)) for name, info in kind.model_fields.items()}
    typed_dict = typing_extensions.is_typeddict(kind)
    if not typed_dict and not dataclasses.is_dataclass(kind):
        return None
    try:
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise _unmappable(where, kind, f"define `{error.name}` where its module sees it") from error
    if typed_dict:
        required: frozenset[str] = kind.__required_keys__  # type: ignore[attr-defined]
        return {name: _unqualified(hint, required=name in required) for name, hint in hints.items()}
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    # Pydantic's own way to say `InitVar`.
    passing = {field.name for field in fields if getattr(field.default, "init_var", False)}
    passing.update(name for name, hint in hints.items() if dataclasses.InitVar in (hint, type(hint)))
    for name in passing:
        # Gone once `__post_init__` has had it, so there is nothing left to judge.
        here = f"{where}.{name}"
        raise _unmappable(here, hints[name], "make it a field that stays, and not one for `__post_init__` alone")
    return {field.name: Field(hints[field.name]) for field in fields}


def _rejoined(info: pydantic.fields.FieldInfo) -> object:
    """Return a field's annotation with the metadata that pydantic split off."""
    annotation: Any = info.annotation
    for item in info.metadata:
        annotation = Annotated[annotation, item]
    return annotation


def _unqualified(hint: object, *, required: bool) -> Field:
    # Postponed annotations hide `NotRequired` from `__required_keys__`.
    while (qualifier := get_origin(hint)) in _QUALIFIERS:
        if qualifier is not typing_extensions.ReadOnly:
            required = qualifier is Required
        (hint,) = get_args(hint)
    return Field(hint, required)


def _annotated(inner: Any, metadata: tuple[object, ...], where: str, around: tuple[object, ...]) -> Shape:
    scales = [item for item in metadata if isinstance(item, Scaled)]
    if any(item is Spend for item in metadata):
        # It would say nothing, and whoever wrote it relies on it.
        message = f'`{where}` is spent on no total: write `Annotated[Decimal, Spend("payments")]`'
        raise UnmappableTypeError(message)
    if spends := [item for item in metadata if isinstance(item, Spend)]:
        if inner not in (int, float, Decimal) or len(spends) > 1 or scales:
            raise _unmappable(where, inner, "put one `Spend`, and no `Scaled`, on an int, a float or a Decimal")
        return dataclasses.replace(_shape(inner, where, around), spends=spends[0].total)
    if not scales:
        return _shape(inner, where, around)
    if inner not in (int, float, Decimal) or len(scales) > 1:
        raise _unmappable(where, inner, "put one `Scaled` on an int, a float or a Decimal")
    return Shape("Long", convert=scalars.scaled(where, inner, scales[0].digits))


def _choice(annotation: object, members: tuple[object, ...], where: str) -> Shape:
    raw: list[Any] = [member.value if isinstance(member, Enum) else member for member in members]
    kinds = set(map(type, raw))
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind not in (str, int, bool):
        raise _unmappable(where, annotation, "let its members be all strings or all whole numbers")
    plain = _class(kind, where, ())
    try:
        for value in raw:
            plain.convert(value, Budget(total_bytes=_LIMITS.string_bytes, string_bytes=_LIMITS.string_bytes))
    except Refusal as error:
        raise _unmappable(where, annotation, f"mend its members ({error.detail})") from error
    # With `use_enum_values` a model holds a member's value instead.
    values = dict(zip([*members, *raw], [*raw, *raw], strict=True))
    return Shape(plain.cedar, tuple(raw), convert=scalars.choice(where, values, {kind, *map(type, members)}))


def _members(fields: Mapping[str, Field], where: str, around: tuple[object, ...]) -> tuple[Member, ...]:
    members = []
    for name, field in fields.items():
        here = f"{where}.{name}"
        if name in ESCAPES:
            raise _unmappable(here, field.annotation, "Cedar reserves that name, so give it another")
        annotation, nullable = _nullable(field.annotation)
        shape = _shape(annotation, here, around)
        members.append(Member(name, shape, nullable or not field.required, nullable))
    return tuple(members)


def _nullable(annotation: Any) -> tuple[Any, bool]:
    """Return *annotation* without null, and whether it had it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, _ALIASES):
        inner, nullable = _nullable(annotation.__value__)
        return (inner if nullable else annotation), nullable
    if origin is Annotated:
        inner, nullable = _nullable(arguments[0])
        return (Annotated[(inner, *arguments[1:])] if nullable else annotation), nullable
    if origin in (Union, types.UnionType) and types.NoneType in arguments:
        others = tuple(part for part in arguments if part is not types.NoneType)
        return Union[others], True  # noqa: UP007  the union is made at run time
    if origin is Literal and any(part is None for part in arguments):
        return Literal[tuple(part for part in arguments if part is not None)], True
    return annotation, False
