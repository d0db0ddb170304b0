"""Scalars become Cedar's values exactly, or not at all."""

import uuid
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePosixPath
from typing import Annotated

import pytest

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.values import Scaled, datetime_json, duration_json, shape_of, to_cedar, units_of_json
from tests.policy.asking import cedar_says, cedar_says_of, mapped


class Unsure(tzinfo):
    """A time zone that does not know its offset."""

    def utcoffset(self, moment: datetime | None, /) -> timedelta | None:
        """Return nothing."""

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        """Return nothing."""

    def tzname(self, moment: datetime | None, /) -> str | None:
        """Return nothing."""


class Text(str):
    """A string that is not exactly one."""

    __slots__ = ()


def refused(value: object, annotation: object) -> Refusal:
    """Return the refusal of *value*."""
    with pytest.raises(Refusal) as caught:
        mapped(value, annotation)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    return caught.value


@pytest.mark.parametrize(
    ("annotation", "value", "condition"),
    [
        (str, 'é"\\\n\0', r'context.v0 == "é\"\\\n\0"'),
        (bool, True, "context.v0"),
        (int, 2**63 - 1, "context.v0 == 9223372036854775807"),
        (int, -(2**63), "context.v0 == -9223372036854775808"),
        (Decimal, Decimal("1E+2"), 'context.v0 == decimal("100.0")'),
        (Decimal, Decimal("-0.0001"), 'context.v0.lessThan(decimal("0.0"))'),
        (Decimal, Decimal("-1.5"), 'context.v0 == decimal("-1.5")'),
        (Decimal, Decimal("922337203685477.5807"), 'context.v0 == decimal("922337203685477.5807")'),
        (Decimal, Decimal("-922337203685477.5808"), 'context.v0 == decimal("-922337203685477.5808")'),
        (Decimal, Decimal("-0E+999999"), 'context.v0 == decimal("0.0")'),
        (float, 0.1, 'context.v0 == decimal("0.1")'),
        (float, 1e2, 'context.v0 == decimal("100.0")'),
        (float, -0.0, 'context.v0 == decimal("0.0")'),
        (float, 900_000_000_000_000.125, 'context.v0 == decimal("900000000000000.125")'),
        (float, 7, 'context.v0 == decimal("7.0")'),
        (
            datetime,
            datetime(2024, 10, 15, 2, tzinfo=timezone(timedelta(hours=2))),
            'context.v0 == datetime("2024-10-15")',
        ),
        (datetime, datetime(1, 1, 1, tzinfo=UTC), 'context.v0 == datetime("0001-01-01")'),
        (
            datetime,
            datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
            'context.v0 == datetime("9999-12-31T23:59:59.999Z")',
        ),
        (date, date(2024, 2, 29), 'context.v0 == datetime("2024-02-29T00:00:00Z")'),
        (timedelta, timedelta(days=-1, milliseconds=1), 'context.v0 == duration("-86399999ms")'),
        (timedelta, timedelta.max - timedelta(microseconds=999), 'context.v0 > duration("1d")'),
        (IPv4Address, IPv4Address("10.0.0.1"), 'context.v0.isInRange(ip("10.0.0.0/8"))'),
        (IPv4Network, IPv4Network("10.0.0.0/8"), 'context.v0 == ip("10.0.0.0/8")'),
        (IPv4Interface, IPv4Interface("10.0.0.5/8"), 'context.v0 == ip("10.0.0.5/8")'),
        (IPv6Address, IPv6Address("2001:db8::1"), 'context.v0 == ip("2001:db8::1")'),
        (IPv6Network, IPv6Network("2001:db8::/32"), 'context.v0 == ip("2001:db8::/32")'),
        (IPv6Interface, IPv6Interface("2001:db8::1/32"), 'context.v0 == ip("2001:db8::1/32")'),
        (uuid.UUID, uuid.UUID(int=1), 'context.v0 == "00000000-0000-0000-0000-000000000001"'),
        (Path, Path("a/../b"), 'context.v0 == "a/../b"'),
        (PurePosixPath, PurePosixPath("/etc"), 'context.v0 like "/e*"'),
        (Annotated[float, Scaled(6)], 52.520007, "context.v0 == 52520007"),
        (Annotated[Decimal, Scaled(2)], Decimal("-0.5"), "context.v0 == -50"),
        (Annotated[int, Scaled(3)], 4, "context.v0 == 4000"),
        (Annotated[Decimal, Scaled(0)], Decimal(9), "context.v0 == 9"),
    ],
)
def test_a_value_that_cedar_can_hold_arrives_unchanged(annotation: object, value: object, condition: str) -> None:
    """The real Cedar sees the very value."""
    assert cedar_says_of(condition, value, annotation)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, 1),
        (str, Text("a")),
        (str, "\ud800"),
        (str, None),
        (bool, 1),
        (bool, "true"),
        (int, True),
        (int, 1.0),
        (int, 2**63),
        (int, -(2**63) - 1),
        (float, True),
        (float, "1.0"),
        (float, 0.00001),
        (float, 1 / 3),
        (float, 1e15),
        (float, 1e308),
        (float, 5e-324),
        (float, float("nan")),
        (float, float("inf")),
        (float, 10**400),
        (float, Decimal(1)),
        (Decimal, 1),
        (Decimal, 1.0),
        (Decimal, Decimal("0.00001")),
        (Decimal, Decimal("1.00001")),
        (Decimal, Decimal("922337203685477.5808")),
        (Decimal, Decimal("1E+999999")),
        (Decimal, Decimal("1E-999999")),
        (Decimal, Decimal("NaN")),
        (Decimal, Decimal("sNaN")),
        (Decimal, Decimal("-Infinity")),
        (Annotated[float, Scaled(6)], 0.1234567),
        (Annotated[int, Scaled(18)], 10),
        (Annotated[int, Scaled(2)], 1.0),
        (datetime, datetime(2024, 10, 15)),  # noqa: DTZ001  naive on purpose
        (datetime, datetime(2024, 10, 15, tzinfo=Unsure())),
        (datetime, datetime(2024, 10, 15, microsecond=1, tzinfo=UTC)),
        (datetime, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        (datetime, datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))),
        (datetime, date(2024, 10, 15)),
        (date, datetime(2024, 10, 15, tzinfo=UTC)),
        (timedelta, timedelta(microseconds=1)),
        (timedelta, 1),
        (IPv4Address, "10.0.0.1"),
        (IPv4Address, IPv6Address("::1")),
        (IPv4Address, IPv4Interface("10.0.0.1/8")),
        (IPv6Address, IPv6Address("fe80::1%eth0")),
        (IPv6Address, IPv6Address("::ffff:10.0.0.1")),
        (IPv6Interface, IPv6Interface("::ffff:10.0.0.1/128")),
        (IPv6Network, IPv6Network("::ffff:10.0.0.0/104")),
        (uuid.UUID, "00000000-0000-0000-0000-000000000001"),
        (Path, "/etc"),
        (Path, PurePosixPath("/etc")),
        (Path, Path("\udcff")),
    ],
)
def test_a_value_that_cedar_cannot_hold_exactly_is_refused(annotation: object, value: object) -> None:
    """Neither rounded, nor coerced, nor cut."""
    refused(value, annotation)


def test_digits_that_are_zero_are_no_precision() -> None:
    """A decimal with many places is exact if all but four are zeros."""
    assert mapped(Decimal("1.50" + "0" * 5_000), Decimal) == {"__extn": {"fn": "decimal", "arg": "1.5000"}}


def test_a_refusal_does_not_hold_the_value() -> None:
    """The detail reaches the log, where arguments must not be."""
    refusal = refused("secret\ud800", str)

    assert "t.a" in refusal.detail
    assert "secret" not in refusal.detail


def test_one_string_past_its_limit_is_refused() -> None:
    """The limit counts UTF-8, not characters."""
    shape = shape_of(str, where="t.a")
    limits = Limits(string_bytes=4)

    assert to_cedar("éé", shape, limits) == "éé"
    with pytest.raises(Refusal):
        to_cedar("ééa", shape, limits)


def test_all_strings_together_past_the_limit_are_refused() -> None:
    """Many short strings are one long value."""
    shape = shape_of(list[str], where="t.a")
    limits = Limits(arguments_bytes=24 + 2 * (24 + 3), string_bytes=4)

    assert to_cedar(["abc", "abc"], shape, limits) == ["abc", "abc"]
    with pytest.raises(Refusal):
        to_cedar(["abc", "abcd"], shape, limits)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_728_950_400.9999, "2024-10-15T00:00:00.999Z"),
        (-0.0005, "1969-12-31T23:59:59.999Z"),
        (-62_135_596_800, "0001-01-01T00:00:00.000Z"),
        (253_402_300_799, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_clock_is_cut_to_the_millisecond_below(seconds: float, text: str) -> None:
    """Never rounded up: a moment that has not come is not judged as if it had."""
    assert datetime_json(seconds) == {"__extn": {"fn": "datetime", "arg": text}}
    assert cedar_says(f'context.v0 == datetime("{text}")', datetime_json(seconds), types="datetime")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -62_135_596_801, 253_402_300_800, 10**400])
def test_a_moment_outside_of_the_calendar_is_refused(seconds: float) -> None:
    """A number from a token is not trusted to be a date."""
    with pytest.raises(Refusal):
        datetime_json(seconds)


def test_a_span_of_seconds_is_cut_to_the_millisecond_below() -> None:
    """The same for durations, which may be negative."""
    assert duration_json(1.9999) == {"__extn": {"fn": "duration", "arg": "1999ms"}}
    assert duration_json(-0.0001) == {"__extn": {"fn": "duration", "arg": "-1ms"}}
    assert cedar_says('context.v0 == duration("5m")', duration_json(300), types="duration")


@pytest.mark.parametrize("seconds", [float("nan"), float("-inf"), 10**16, -(10**16)])
def test_a_span_that_cedar_cannot_hold_is_refused(seconds: float) -> None:
    """64 bits of milliseconds, and no more."""
    with pytest.raises(Refusal):
        duration_json(seconds)


def test_what_is_no_number_has_no_units() -> None:
    """Only what a converter made of a number is asked."""
    whole, exact = (to_cedar(value, shape_of(type(value), where="x"), Limits()) for value in (3, Decimal("-0.5")))

    assert (units_of_json(whole), units_of_json(exact)) == (30_000, -5_000)
    with pytest.raises(TypeError, match="a number of Cedar is wanted"):
        units_of_json("3")
