"""Python types become Cedar types, or are refused with the fix."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import typing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, Required, TypedDict, TypeVar
from uuid import UUID

import cedarpy
import pydantic
import pytest
import typing_extensions

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.policy.conversion.values import Field, Scaled, Spend, record_of, shape_of, to_cedar
from tests.policy.asking import LIMITS, cedar_says_of, mapped

T = TypeVar("T")


class Colour(enum.Enum):
    """An enum of strings."""

    RED = "red"
    ROT = "red"  # noqa: PIE796  an alias on purpose
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum of whole numbers."""

    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    """An enum whose members are strings."""

    YES = "yes"


class Mixed(enum.Enum):
    """An enum of both."""

    A = "a"
    B = 1


class Flags(enum.IntFlag):
    """Members that combine."""

    A = 1
    B = 2


class Huge(enum.Enum):
    """A member past 64 bits."""

    A = 2**63


class Address(pydantic.BaseModel):
    """A model with what `model_dump` would leave out or rewrite."""

    street: str
    secret: str = pydantic.Field(default="s", exclude=True)
    town: str | None = pydantic.Field(default=None, serialization_alias="city")
    at: Annotated[float | None, Scaled(6)] = None

    @pydantic.field_serializer("street")
    def _rewritten(self, street: str) -> str:
        return f"not {street}"


class Home(Address):
    """A model that is an Address and more."""

    floor: int = 0


class Open(pydantic.BaseModel):
    """A model that keeps what it does not know."""

    model_config = pydantic.ConfigDict(extra="allow")


class ByValue(pydantic.BaseModel):
    """A model that keeps an enum's value."""

    model_config = pydantic.ConfigDict(use_enum_values=True)
    colour: Colour


class Tree(pydantic.BaseModel):
    """A model that contains itself."""

    children: list[Tree] = []


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A dataclass without a `__dict__`."""

    kind: typing.ClassVar[str] = "point"
    x: int
    y: int | None = None


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="allow"))
class OpenPoint:
    """A dataclass that keeps what it does not know."""

    x: int


class Base(TypedDict, total=False):
    """Optional members, inherited."""

    note: str


class Row(Base):
    """Required members, and each way to say otherwise."""

    id: Required[int]
    size: NotRequired[int]
    name: typing_extensions.ReadOnly[str]
    mail: str | None


class Reserved(TypedDict("Reserved", {"__extn": str})):
    """A member that Cedar would read as an instruction."""


class Box(pydantic.BaseModel, Generic[T]):
    """A generic model."""

    inside: T


Money = NewType("Money", Decimal)
Ids = typing_extensions.TypeAliasType("Ids", list[str])
MaybeId = typing_extensions.TypeAliasType("MaybeId", str | None)
Loop = typing_extensions.TypeAliasType("Loop", "list[Loop]")


@pytest.mark.parametrize(
    ("annotation", "cedar"),
    [
        (str, "String"),
        (pydantic.EmailStr, "String"),
        (bool, "Bool"),
        (int, "Long"),
        (pydantic.PositiveInt, "Long"),
        (pydantic.StrictStr, "String"),
        (float, "decimal"),
        (Decimal, "decimal"),
        (Money, "decimal"),
        (datetime, "datetime"),
        (pydantic.AwareDatetime, "datetime"),
        (pydantic.FutureDatetime, "datetime"),
        (date, "datetime"),
        (pydantic.PastDate, "datetime"),
        (timedelta, "duration"),
        (UUID, "String"),
        (pydantic.UUID4, "String"),
        (Path, "String"),
        (PurePath, "String"),
        (PurePosixPath, "String"),
        (PureWindowsPath, "String"),
        (pydantic.FilePath, "String"),
        (pydantic.AnyUrl, "String"),
        (pydantic.HttpUrl, "String"),
        (pydantic.IPvAnyAddress, "ipaddr"),
        (pydantic.IPvAnyNetwork, "ipaddr"),
        (pydantic.IPvAnyInterface, "ipaddr"),
        (IPv4Address, "ipaddr"),
        (IPv6Address, "ipaddr"),
        (IPv4Network, "ipaddr"),
        (IPv6Network, "ipaddr"),
        (IPv4Interface, "ipaddr"),
        (IPv6Interface, "ipaddr"),
        (Colour, "String"),
        (Word, "String"),
        (Level, "Long"),
        (Literal["a", "b"], "String"),
        (Literal[1, 2], "Long"),
        (Literal[True], "Bool"),
        (Literal[Colour.RED], "String"),
        (Annotated[float, Scaled(6)], "Long"),
        (Annotated[Annotated[int, "a"], Scaled(2), "b"], "Long"),
        (list[int], "Set<Long>"),
        (typing.List[int], "Set<Long>"),  # noqa: UP006  old code has it
        (set[str], "Set<String>"),
        (frozenset[str], "Set<String>"),
        (tuple[int, ...], "Set<Long>"),
        (collections.abc.Sequence[bool], "Set<Bool>"),
        (collections.abc.MutableSequence[bool], "Set<Bool>"),
        (collections.abc.Set[bool], "Set<Bool>"),
        (collections.abc.MutableSet[bool], "Set<Bool>"),
        (Ids, "Set<String>"),
        (dict[str, int], 'Set<{ "key": String, "value": Long }>'),
        (collections.abc.Mapping[Colour, Ids], 'Set<{ "key": String, "value": Set<String> }>'),
        (collections.abc.MutableMapping[str, bool], 'Set<{ "key": String, "value": Bool }>'),
        (Address, '{ "street": String, "secret": String, "town"?: String, "at"?: Long }'),
        (Point, '{ "x": Long, "y"?: Long }'),
        (Row, '{ "note"?: String, "id": Long, "size"?: Long, "name": String, "mail"?: String }'),
        (Box[int], '{ "inside": Long }'),
        (list[Box[Point]], 'Set<{ "inside": { "x": Long, "y"?: Long } }>'),
    ],
)
def test_a_type_has_one_cedar_type(annotation: object, cedar: str) -> None:
    """And the real Cedar takes its text."""
    assert shape_of(annotation, where="t.a").cedar == cedar
    cedarpy.Schema.from_str(f"entity Anything = {{ a: {cedar} }};")


@pytest.mark.parametrize(
    ("annotation", "fix"),
    [
        (Any, "declare exactly"),
        (object, "declare exactly"),
        (None, "declare exactly"),
        (T, "declare exactly"),
        ("str", "declare exactly"),
        (list, "declare exactly"),
        (dict, "declare exactly"),
        (typing.List, "declare exactly"),  # noqa: UP006  old code has it
        (list[Any], "declare exactly"),
        (bytes, "declare exactly"),
        (complex, "declare exactly"),
        (time, "declare exactly"),
        (pydantic.SecretStr, "declare exactly"),
        (pydantic.NaiveDatetime, "declare exactly"),
        (pydantic.PostgresDsn, "declare exactly"),
        (Flags, "declare exactly"),
        (Box, "declare exactly"),
        (collections.abc.Iterable[int], "declare exactly"),
        (collections.abc.Iterator[int], "declare exactly"),
        (collections.abc.Callable[[], int], "declare exactly"),
        (tuple[int, str], "name its parts"),
        (tuple[int], "name its parts"),
        (int | str, "take one type"),
        (typing.Union[int, str, None], "take one type"),  # noqa: UP007  old code has it
        (pydantic.JsonValue, "take one type"),
        (list[int | None], "null only for a whole argument"),
        (dict[str, int | None], "null only for a whole argument"),
        (dict[int, int], "let its keys be strings"),
        (enum.Enum, "all strings or all whole numbers"),
        (Mixed, "all strings or all whole numbers"),
        (Literal["a", 1], "all strings or all whole numbers"),
        (Literal[1, True], "all strings or all whole numbers"),
        (Literal[b"a"], "all strings or all whole numbers"),
        (Huge, "64 bits"),
        (Literal["\ud800"], "surrogates"),
        (Annotated[str, Scaled(2)], "one `Scaled`"),
        (Annotated[str, Spend("payments")], "one `Spend`"),
        (Annotated[int, Spend("payments"), Spend("refunds")], "one `Spend`"),
        (Annotated[float, Spend("payments"), Scaled(2)], "no `Scaled`"),
        (Annotated[float, Scaled(2), Scaled(3)], "one `Scaled`"),
        (Open, 'set its `extra` to "forbid"'),
        (OpenPoint, 'set its `extra` to "forbid"'),
        (Reserved, "Cedar reserves that name"),
        (Tree, "does not contain itself"),
        (Loop, "declare exactly"),
    ],
)
def test_a_type_without_a_counterpart_is_refused_with_the_fix(annotation: object, fix: str) -> None:
    """One line at start-up that names the argument and what to do."""
    with pytest.raises(UnmappableTypeError) as caught:
        shape_of(annotation, where="export.rows")

    message = str(caught.value)
    assert message.startswith("`export.rows")
    assert fix in message
    assert message.endswith("or leave it out with exclude=")
    assert "\n" not in message


def test_annotations_that_cannot_be_resolved_are_refused() -> None:
    """A type that only a function knows cannot be read."""

    @dataclasses.dataclass
    class Local:
        there: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UnmappableTypeError, match="define `Nowhere`"):
        shape_of(Local, where="t.a")


def test_types_nested_without_end_are_refused() -> None:
    """A generated annotation cannot exhaust the stack."""
    annotation: Any = int
    for _ in range(200):
        annotation = list[annotation]

    with pytest.raises(UnmappableTypeError, match="at most 32 deep"):
        shape_of(annotation, where="t.a")


@pytest.mark.parametrize("digits", [-1, 19, True, 1.0])
def test_a_scale_that_is_no_scale_is_refused(digits: Any) -> None:
    """A Long has 18 digits and a sign."""
    with pytest.raises(ValueError, match="`Scaled` wants 0 to 18 digits"):
        Scaled(digits)


def test_a_model_is_read_by_attribute_and_not_dumped() -> None:
    """Excluded fields are there, serializers do not run, aliases do not rename."""
    value = Address(street="a", at=1.5)

    assert mapped(value, Address) == {"street": "a", "secret": "s", "at": 1_500_000}


def test_none_is_absent_where_the_type_says_so_and_refused_elsewhere() -> None:
    """Cedar has no null; absent is not the same as empty."""
    assert mapped(Point(1), Point) == {"x": 1}
    assert mapped(Point(1, 0), Point) == {"x": 1, "y": 0}
    with pytest.raises(Refusal):
        mapped(Point(None), Point)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [Home(street="a"), {"street": "a"}, None, Point(1), Address.model_construct()])
def test_what_is_not_exactly_the_declared_model_is_refused(value: object) -> None:
    """A subclass, a dict, another class, or a model that was not filled in."""
    with pytest.raises(Refusal):
        mapped(value, Address)


def test_a_typed_dict_has_its_declared_keys_alone() -> None:
    """A key that no policy can see would reach the tool unjudged."""
    row: dict[str, object] = {"id": 1, "name": "a", "mail": None}

    assert mapped(row, Row) == {"id": 1, "name": "a"}
    wrongs: list[object] = [{**row, "extra": 1}, {"id": 1}, {**row, "size": None}, [], None]
    for wrong in wrongs:
        with pytest.raises(Refusal):
            mapped(wrong, Row)


def test_the_arguments_leave_out_what_is_excluded() -> None:
    """`exclude=` keeps an argument from the policies, so its value may be anything."""
    shape = record_of({"a": Field(int), "b": Field(str, required=False), "c": Field(MaybeId)}, where="t")

    assert shape.cedar == '{ "a": Long, "b"?: String, "c"?: String }'
    assert to_cedar({"a": 1, "c": None, "excluded": object()}, shape, LIMITS) == {"a": 1}
    wrongs: list[object] = [{}, {"a": 1, "b": None}, {"a": None}, None, [("a", 1)]]
    for wrong in wrongs:
        with pytest.raises(Refusal):
            to_cedar(wrong, shape, LIMITS)


def test_an_empty_record_is_a_record() -> None:
    """A tool without arguments has an input all the same."""
    shape = record_of({}, where="t")

    assert (shape.cedar, shape.depth) == ("{  }", 1)
    assert to_cedar({}, shape, LIMITS) == {}


@pytest.mark.parametrize(
    "annotation",
    [Literal["a", None], typing.Optional[Literal["a"]], Annotated[str | None, "x"], MaybeId, Annotated[MaybeId, "x"]],  # noqa: PYI061, UP045  each spelling counts
)
def test_null_is_found_wherever_it_is_written(annotation: object) -> None:
    """In a literal, inside of `Annotated`, behind an alias."""
    shape = record_of({"a": Field(annotation)}, where="t")

    assert shape.cedar == '{ "a"?: String }'
    assert to_cedar({"a": None}, shape, LIMITS) == {}
    assert to_cedar({"a": "a"}, shape, LIMITS) == {"a": "a"}


@pytest.mark.parametrize(
    ("annotation", "value", "cedar"),
    [
        (Colour, Colour.ROT, "red"),
        (Colour, "blue", "blue"),
        (Word, Word.YES, "yes"),
        (Word, "yes", "yes"),
        (Level, Level.HIGH, 2),
        (Level, 2, 2),
        (Literal[1, 2], 2, 2),
        (Literal[True], True, True),
        (Literal[Colour.RED], Colour.RED, "red"),
    ],
)
def test_a_member_becomes_its_value(annotation: object, value: object, cedar: object) -> None:
    """An enum's member, or its value where a model keeps that."""
    assert mapped(value, annotation) == cedar
    assert mapped(ByValue(colour=Colour.RED), ByValue) == {"colour": "red"}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Colour, "green"),
        (Colour, Word.YES),
        (Colour, []),
        (Level, True),
        (Literal[1, 2], True),
        (Literal[1, 2], 1.0),
        (Literal[True], 1),
        (Literal[Colour.RED], Colour.BLUE),
    ],
)
def test_what_is_not_a_member_is_refused(annotation: object, value: object) -> None:
    """By its exact type: True is not 1."""
    with pytest.raises(Refusal):
        mapped(value, annotation)


def test_members_are_kept_for_checks_of_policies() -> None:
    """A literal that no member equals can then be found."""
    assert shape_of(Colour, where="t.a").members == ("red", "blue")
    assert shape_of(Literal[1, 2], where="t.a").members == (1, 2)
    assert shape_of(str, where="t.a").members == ()


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[int], (1,)),
        (list[int], "1"),
        (list[int], iter([1])),
        (set[int], frozenset({1})),
        (tuple[int, ...], [1]),
        (list[str], ["a", 1]),
        (dict[str, int], [("a", 1)]),
        (dict[str, int], {1: 1}),
        (dict[str, int], {"a": "1"}),
        (dict[str, int], {"__extn": 1}),
    ],
)
def test_what_is_not_exactly_the_declared_container_is_refused(annotation: object, value: object) -> None:
    """A lazy or a different container could read differently the second time."""
    with pytest.raises(Refusal):
        mapped(value, annotation)


def test_a_sequence_and_a_set_take_what_validation_gives_for_them() -> None:
    """A list or a tuple; a set or a frozenset."""
    assert mapped([1], collections.abc.Sequence[int]) == mapped((1,), collections.abc.Sequence[int]) == [1]
    assert mapped({1}, collections.abc.Set[int]) == mapped(frozenset({1}), collections.abc.Set[int]) == [1]


def test_a_mapping_is_a_set_of_pairs() -> None:
    """Cedar's records have fixed keys."""
    assert cedar_says_of('context.v0.contains({ key: "a", value: 1 })', {"a": 1, "b": 2}, dict[str, int])


def test_addresses_of_any_version_are_taken_where_any_is_declared() -> None:
    """The annotation of pydantic stands for both."""
    for value in (IPv4Address("127.0.0.1"), IPv6Address("::1")):
        assert cedar_says_of("context.v0.isLoopback()", value, pydantic.IPvAnyAddress)


def test_a_url_is_its_text() -> None:
    """As the tool would write it."""
    assert mapped(pydantic.HttpUrl("https://a.example/x"), pydantic.HttpUrl) == "https://a.example/x"
    with pytest.raises(Refusal):
        mapped(pydantic.AnyUrl("https://a.example/x"), pydantic.HttpUrl)


@pytest.mark.parametrize("total", ["", "a b", "in", "1st", "a-b", "é", "x" * 65, None])
def test_total_has_a_name_that_policies_can_write(total: Any) -> None:
    """After a dot, and without quotes."""
    with pytest.raises(ValueError, match="wants a name such as `payments`"):
        Spend(total)
