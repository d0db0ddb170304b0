"""For any value: what the mapping accepts it does not change, and all else it refuses."""

import dataclasses
import enum
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.errors import Refusal
from agentguard.model import Reason
from agentguard.policy.conversion.scalars import CedarJson
from agentguard.policy.conversion.values import Scaled, check_no_escapes, shape_of
from tests.policy.asking import cedar_says, cedar_says_of, mapped


class Suit(enum.Enum):
    """An enum of strings."""

    HEARTS = "hearts"
    SPADES = "spades"


@dataclasses.dataclass(frozen=True)
class Order:
    """A record with most kinds of members."""

    amount: Decimal
    due: datetime | None
    tags: list[str]
    suit: Suit
    rates: dict[str, float]


class Pair(TypedDict):
    """A record that is a dict."""

    a: int
    b: bool


def argument_of(value: CedarJson) -> str:
    """Return what an extension function is called with."""
    assert isinstance(value, dict)
    (function,) = value.values()
    assert isinstance(function, dict)
    argument = function["arg"]
    assert isinstance(argument, str)
    return argument


def plain(value: Any) -> Any:
    """Return a string, bool or number as it is."""
    return value


def instant(value: Any) -> datetime:
    """Read a datetime."""
    return datetime.fromisoformat(argument_of(value))


def midnight(value: Any) -> date:
    """Read a date back from the moment that it begins with."""
    moment = instant(value)
    assert moment.timetz() == datetime(1, 1, 1, tzinfo=UTC).timetz()
    return moment.date()


def milliseconds(value: Any) -> timedelta:
    """Read a duration."""
    return timedelta(milliseconds=int(argument_of(value).removesuffix("ms")))


def order(value: Any) -> Order:
    """Read a record of every kind of member."""
    return Order(
        Decimal(argument_of(value["amount"])),
        instant(value["due"]) if "due" in value else None,
        value["tags"],
        Suit(value["suit"]),
        {pair["key"]: float(argument_of(pair["value"])) for pair in value["rates"]},
    )


ANY_TEXT = st.text(st.characters())  # lone surrogates included
NUMBERS = st.floats() | st.integers(-(10**9), 10**9).map(lambda n: n / 10_000) | st.integers().map(float)
DECIMALS = st.decimals() | st.decimals(places=4) | st.integers(-(10**20), 10**20).map(lambda n: Decimal(n).scaleb(-4))
ZONES = st.none() | st.just(UTC) | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
MOMENTS = st.datetimes(timezones=ZONES) | st.datetimes(timezones=ZONES).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
SPANS = st.timedeltas() | st.timedeltas().map(lambda span: timedelta(span.days, span.seconds))
ORDERS = st.builds(
    Order, DECIMALS, st.none() | MOMENTS, st.lists(ANY_TEXT), st.sampled_from(Suit), st.dictionaries(ANY_TEXT, NUMBERS)
)

# For each type: values of it, acceptable or not, and how its Cedar JSON reads back.
CASES: dict[str, tuple[Any, st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "str": (str, ANY_TEXT, plain),
    "int": (int, st.integers() | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]), plain),
    "bool": (bool, st.booleans(), plain),
    "float": (float, NUMBERS, lambda value: float(argument_of(value))),
    "decimal": (Decimal, DECIMALS, lambda value: Decimal(argument_of(value))),
    "scaled": (Annotated[Decimal, Scaled(6)], DECIMALS, lambda value: Decimal(value).scaleb(-6)),
    "datetime": (datetime, MOMENTS, instant),
    "date": (date, st.dates(), midnight),
    "timedelta": (timedelta, SPANS, milliseconds),
    "uuid": (uuid.UUID, st.uuids(), uuid.UUID),
    "ipv4": (IPv4Address, st.ip_addresses(v=4), lambda value: ip_address(argument_of(value))),
    "ipv6": (IPv6Address, st.ip_addresses(v=6), lambda value: ip_address(argument_of(value))),
    "interface": (
        IPv6Interface,
        st.builds(lambda a, n: IPv6Interface((a, n)), st.ip_addresses(v=6), st.integers(0, 128)),
        lambda value: ip_interface(argument_of(value)),
    ),
    "network4": (
        IPv4Network,
        st.builds(lambda a, n: IPv4Network((a, n), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
        lambda value: ip_network(argument_of(value)),
    ),
    "network6": (
        IPv6Network,
        st.builds(lambda a, n: IPv6Network((a, n), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
        lambda value: ip_network(argument_of(value)),
    ),
    "enum": (Suit, st.sampled_from(Suit), Suit),
    "literal": (Literal["a", "b"], st.sampled_from(["a", "b", "c"]), plain),
    "set": (frozenset[int], st.frozensets(st.integers()), frozenset),
    "list": (list[float], st.lists(NUMBERS), lambda value: [float(argument_of(item)) for item in value]),
    "mapping": (
        dict[str, bool],
        st.dictionaries(ANY_TEXT | st.just("__extn"), st.booleans()),
        lambda value: {pair["key"]: pair["value"] for pair in value},
    ),
    "dataclass": (Order, ORDERS, order),
    "typed dict": (Pair, st.fixed_dictionaries({"a": st.integers(), "b": st.booleans()}), plain),
}

FEW = settings(max_examples=40, deadline=None)
MANY = settings(max_examples=150, deadline=None)

ANYTHING = st.recursive(
    st.none() | st.one_of(*(values for _, values, _ in CASES.values())) | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT | st.integers(), inner) | st.tuples(inner),
)


@pytest.mark.parametrize("case", CASES)
@FEW
@given(data=st.data())
def test_a_value_that_is_accepted_reads_back_unchanged(case: str, data: st.DataObject) -> None:
    """Its Cedar JSON decodes to an equal value, and Cedar itself takes it."""
    annotation, values, read = CASES[case]
    value = data.draw(values)

    try:
        cedar = mapped(value, annotation)
    except Refusal as refusal:
        assert refusal.reason is Reason.INVALID_ARGUMENT  # noqa: PT017  either outcome is right
        return

    assert read(cedar) == value
    assert cedar_says("true", cedar, types=shape_of(annotation, where="t.a").cedar)


@pytest.mark.parametrize("case", CASES)
@FEW
@given(value=ANYTHING)
def test_anything_else_is_refused_and_raises_nothing_else(case: str, value: object) -> None:
    """Whatever comes in for whatever type: an exact mapping or a Refusal."""
    annotation, _, read = CASES[case]

    try:
        cedar = mapped(value, annotation)
    except Refusal:
        return

    assert read(cedar) == value


@MANY
@given(value=ANYTHING)
def test_the_search_for_reserved_keys_raises_a_refusal_or_nothing(value: object) -> None:
    """Whatever a claim or a loader gives."""
    try:
        check_no_escapes(value)
    except Refusal as refusal:
        assert refusal.reason is Reason.INVALID_ARGUMENT  # noqa: PT017  either outcome is right


@pytest.mark.parametrize("case", ["float", "decimal"])
@MANY
@given(data=st.data())
def test_two_numbers_compare_in_cedar_as_they_do_in_python(case: str, data: st.DataObject) -> None:
    """A limit in a policy holds for exactly the numbers that it holds for in the tool."""
    annotation, values, _ = CASES[case]
    first, second = data.draw(values), data.draw(values)

    try:
        cedar = [mapped(first, annotation), mapped(second, annotation)]
    except Refusal:
        return

    assert cedar_says("context.v0.lessThan(context.v1)", *cedar, types="decimal") is (first < second)
    assert cedar_says("context.v0 == context.v1", *cedar, types="decimal") is (first == second)


@MANY
@given(units=st.integers(-(2**63), 2**63 - 1))
def test_every_decimal_of_cedar_can_be_given(units: int) -> None:
    """The mapping refuses no `Decimal` that Cedar could hold."""
    value = Decimal(f"{units}E-4")

    assert Decimal(argument_of(mapped(value, Decimal))) == value


@MANY
@given(units=st.integers(-(10**15) + 1, 10**15 - 1))
def test_every_float_of_fifteen_digits_can_be_given(units: int) -> None:
    """Prices and quantities as people write them are exact."""
    value = float(Decimal(f"{units}E-4"))

    assert Decimal(argument_of(mapped(value, float))) == Decimal(f"{units}E-4")


@MANY
@given(moment=st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0)))
def test_every_moment_in_whole_seconds_can_be_given(moment: datetime) -> None:
    """And Cedar reads the same moment from it."""
    written = moment.strftime("%m-%dT%H:%M:%SZ")

    assert cedar_says_of(f'context.v0 == datetime("{moment.year:04}-{written}")', moment, datetime)
