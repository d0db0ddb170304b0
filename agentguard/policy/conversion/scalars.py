"""Python scalars as Cedar JSON, exactly or not at all.

A value that Cedar cannot hold exactly is refused, never rounded: rounding can step over
a limit that a policy sets. Only the exact type is taken, so a subclass cannot show one
value to the policy and another to the tool.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from math import floor
from typing import TYPE_CHECKING, Final, TypeAlias

from agentguard.errors import Refusal
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

CedarJson: TypeAlias = "str | int | bool | list[CedarJson] | dict[str, CedarJson]"

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1

PART_BYTES: Final = 24
"""What every value, set, record and key of a record counts, beside its text: Cedar takes some microseconds for each."""

_CALL_BYTES: Final = 4 * PART_BYTES
_DECIMAL_PLACES: Final = 4
_SIGNIFICANT: Final = 10**15
_EPOCH_DAY: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND: Final = -62_135_596_800
_END_OF_TIME: Final = 253_402_300_800


class Budget:
    """What is left of the bounds while one value is converted."""

    __slots__ = ("left", "string_bytes")

    def __init__(self, *, total_bytes: int, string_bytes: int) -> None:
        self.left = total_bytes
        self.string_bytes = string_bytes

    def take(self, size: int) -> None:
        """Count *size* bytes.

        Raises:
            Refusal: If that is more than is left.
        """
        self.left -= size
        if self.left < 0:
            raise Refusal(Reason.INVALID_ARGUMENT, "the value is larger than the limit")


Convert: TypeAlias = "Callable[[object, Budget], CedarJson]"


MISSING: Final = object()
"""Stands in a conversion for a value that is not there."""


def refusal(where: str, wanted: str, value: object) -> Refusal:
    """Say what was wanted. The value stays out of it: details reach the log."""
    if value is MISSING:
        return Refusal(Reason.INVALID_ARGUMENT, f"`{where}` is missing, and wants {wanted}")
    return Refusal(Reason.INVALID_ARGUMENT, f"`{where}` wants {wanted}, and this `{type(value).__name__}` is not")


def _extension(function: str, argument: str) -> CedarJson:
    return {"__extn": {"fn": function, "arg": argument}}


def encoded_size(where: str, value: str, budget: Budget) -> int:
    """Return the UTF-8 size of *value*.

    Raises:
        Refusal: If it holds a lone surrogate or is longer than one string may be.
    """
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise refusal(where, "text without lone surrogates", value) from None
    if size > budget.string_bytes:
        raise refusal(where, f"at most {budget.string_bytes} bytes of text", value)
    return size


def text(where: str) -> Convert:
    """Convert `str` to String."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not str:
            raise refusal(where, "a string", value)
        budget.take(PART_BYTES + encoded_size(where, value, budget))
        return value

    return convert


def text_of(where: str, kind: type) -> Convert:
    """Convert values of exactly *kind* to the String that `str` gives."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not kind:
            raise refusal(where, f"a `{kind.__name__}`", value)
        written = str(value)
        budget.take(PART_BYTES + encoded_size(where, written, budget))
        return written

    return convert


def truth(where: str) -> Convert:
    """Convert `bool` to Bool."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not bool:
            raise refusal(where, "a bool", value)
        budget.take(PART_BYTES)
        return value

    return convert


def whole(where: str) -> Convert:
    """Convert `int` to Long."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not int or not LONG_MIN <= value <= LONG_MAX:
            raise refusal(where, "a whole number in 64 bits", value)
        budget.take(PART_BYTES)
        return value

    return convert


def decimal_json(units: int) -> CedarJson:
    """Return a decimal of Cedar from ten-thousandths."""
    # Cedar has no exponent form: 1E+2 has to be written 100.0000.
    before, after = divmod(abs(units), 10**_DECIMAL_PLACES)
    return _extension("decimal", f"{'-' if units < 0 else ''}{before}.{after:04}")


def decimal_units(value: object) -> int | None:
    """Return a number in ten-thousandths, where it is an int, a float or a Decimal and that is exact."""
    return _units(value, type(value), _DECIMAL_PLACES)


def units_of_json(value: CedarJson) -> int:
    """Return a Long or a decimal of Cedar JSON, as a converter made it, in ten-thousandths.

    Raises:
        TypeError: It is neither.
    """
    if type(value) is int:
        return value * 10**_DECIMAL_PLACES
    if isinstance(value, dict) and isinstance(call := value.get("__extn"), dict) and call.get("fn") == "decimal":
        return int(str(call["arg"]).replace(".", ""))
    message = "a number of Cedar is wanted"
    raise TypeError(message)


def decimal(where: str, kind: type) -> Convert:
    """Convert `Decimal` or `float`, as *kind* says, to decimal."""

    def convert(value: object, budget: Budget) -> CedarJson:
        units = _units(value, kind, _DECIMAL_PLACES)
        if units is None:
            raise refusal(where, "a number that is exact in four decimal places", value)
        budget.take(_CALL_BYTES)
        return decimal_json(units)

    return convert


def scaled(where: str, kind: type, digits: int) -> Convert:
    """Convert a number of *kind* to a Long of 10**-*digits*."""

    def convert(value: object, budget: Budget) -> CedarJson:
        units = _units(value, kind, digits)
        if units is None:
            raise refusal(where, f"a number that is exact in {digits} decimal places", value)
        budget.take(PART_BYTES)
        return units

    return convert


def _units(value: object, kind: type, places: int) -> int | None:
    """Return *value* in units of 10**-*places*, or None where that is not exact.

    An `int` stands in for a `float`, as it does for Python's type checkers.
    """
    if type(value) is float and kind is float:
        # Up to 15 significant digits name one float and no other. Beyond, the shortest
        # text of a float is not its value: 900000000000000.125 reads ….1.
        units = _shifted(Decimal(repr(value)), places)
        if units is not None and -_SIGNIFICANT < units < _SIGNIFICANT:
            return units
        return _shifted(Decimal(value), places)
    if type(value) is Decimal and kind is Decimal:
        return _shifted(value, places)
    if type(value) is int and kind is not Decimal and LONG_MIN <= value <= LONG_MAX:
        return _shifted(Decimal(value), places)
    return None


def _shifted(number: Decimal, places: int) -> int | None:
    """Return number * 10**places if that is whole and has 64 bits, without a context.

    Arithmetic on decimals rounds to the context's precision, so digits are moved here.
    """
    if not number.is_finite():
        return None
    if not number:
        return 0
    # Before any digit is written out: 1E+999999999 would be a gigabyte of them.
    if number.adjusted() + places >= len(str(LONG_MAX)):
        return None
    sign, digits, exponent = number.as_tuple()
    shift = int(exponent) + places
    if shift < 0:
        digits, dropped = digits[:shift], digits[shift:]
        if any(dropped):
            return None
    units = int("".join(map(str, digits))) * 10 ** max(shift, 0) * (-1 if sign else 1)
    return units if LONG_MIN <= units <= LONG_MAX else None


def moment(where: str) -> Convert:
    """Convert an aware `datetime` to datetime, in UTC."""

    def convert(value: object, budget: Budget) -> CedarJson:
        # `astimezone` takes a naive time for local time, so the offset is asked first.
        if type(value) is not datetime or value.utcoffset() is None:
            raise refusal(where, "a datetime with a time zone", value)
        try:
            universal = value.astimezone(UTC)
        except OverflowError:
            raise refusal(where, "a datetime in the years 1 to 9999, in UTC", value) from None
        if universal.microsecond % 1000:
            raise refusal(where, "a datetime in whole milliseconds", value)
        budget.take(_CALL_BYTES)
        return _datetime(universal)

    return convert


def day(where: str) -> Convert:
    """Convert a `date` to the datetime of its first moment in UTC."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not date:
            raise refusal(where, "a date", value)
        budget.take(_CALL_BYTES)
        return _datetime(datetime(value.year, value.month, value.day, tzinfo=UTC))

    return convert


def span(where: str) -> Convert:
    """Convert a `timedelta` to duration."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not timedelta or value.microseconds % 1000:
            raise refusal(where, "a timedelta in whole milliseconds", value)
        budget.take(_CALL_BYTES)
        return _extension("duration", f"{value // timedelta(milliseconds=1)}ms")

    return convert


def address(where: str, types: tuple[type, ...]) -> Convert:
    """Convert IP addresses, interfaces and networks of exactly *types* to ipaddr."""

    def convert(value: object, budget: Budget) -> CedarJson:
        written = _address(value) if type(value) in types else None
        if written is None:
            raise refusal(where, "an IP address without a scope, and not IPv4 inside IPv6", value)
        budget.take(_CALL_BYTES)
        return _extension("ip", written)

    return convert


def _address(value: object) -> str | None:
    if isinstance(value, (IPv4Network, IPv6Network)):
        base = _address(value.network_address)
        return base and f"{base}/{value.prefixlen}"
    if isinstance(value, (IPv4Interface, IPv6Interface)):
        base = _address(value.ip)
        return base and f"{base}/{value.network.prefixlen}"
    if isinstance(value, IPv6Address):
        # ::ffff:10.0.0.1 reaches the host 10.0.0.1, and no range of IPv4 addresses in
        # a policy contains it.
        if value.scope_id is not None or value.ipv4_mapped is not None:
            return None
        digits = f"{int(value):032x}"
        return ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))
    return str(value)


def choice(where: str, values: Mapping[object, str | int | bool], kinds: Collection[type]) -> Convert:
    """Convert the members of an enum or a `Literal`, the keys of *values*, of exactly *kinds*."""

    def convert(value: object, budget: Budget) -> CedarJson:
        # The type comes first: True equals 1, and a list has no hash.
        if type(value) not in kinds or value not in values:
            raise refusal(where, "one of the declared members", value)
        member = values[value]
        budget.take(PART_BYTES + (len(member) if type(member) is str else 0))
        return member

    return convert


def _datetime(universal: datetime) -> CedarJson:
    return _extension("datetime", f"{universal.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z")


def datetime_json(unix_seconds: float) -> CedarJson:
    """Return a clock's reading as Cedar datetime, cut to the millisecond below.

    Raises:
        Refusal: If it is no moment of the years 1 to 9999.
    """
    if not _FIRST_SECOND <= unix_seconds < _END_OF_TIME:
        raise refusal(where="time", wanted="a moment of the years 1 to 9999", value=unix_seconds)
    seconds = floor(unix_seconds)
    milliseconds = floor((unix_seconds - seconds) * 1000)
    return _extension("datetime", f"{_second(seconds)}.{milliseconds:03}Z")


@lru_cache(maxsize=8)
def _second(unix_seconds: int) -> str:
    """Return a second as Cedar writes it, the same for every call within it."""
    return (_EPOCH_DAY + timedelta(seconds=unix_seconds)).replace(tzinfo=None).isoformat(timespec="seconds")


def duration_json(seconds: float) -> CedarJson:
    """Return seconds as Cedar duration, cut to the millisecond below.

    Raises:
        Refusal: If Cedar's duration cannot hold it.
    """
    if not LONG_MIN // 1000 < seconds < LONG_MAX // 1000:
        raise refusal(where="duration", wanted="milliseconds in 64 bits", value=seconds)
    base = floor(seconds)
    return _extension("duration", f"{base * 1000 + floor((seconds - base) * 1000)}ms")
