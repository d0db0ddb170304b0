"""Plain data, whose scalars are all text, as Cedar values of a known type.

A file that people write says ``1000.00``, and its reader must not make a float of it. So
each scalar comes as the text that stands there, and the type says what it is; nothing is
rounded, and nothing is guessed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import TYPE_CHECKING, Any, Final, NoReturn

from agentguard.errors import ConfigurationError, Refusal
from agentguard.model import printable
from agentguard.policy.conversion import scalars
from agentguard.policy.conversion.composites import ESCAPES
from agentguard.policy.conversion.scalars import LONG_MAX, LONG_MIN, Budget
from agentguard.policy.problem import did_you_mean
from agentguard.policy.text.lexer import LexError, tokens, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.policy.conversion.scalars import CedarJson, Convert
    from agentguard.policy.schemas.types import CedarType

_SHOWN: Final = 64
# What people write into a file is bounded where it is read.
_BYTES: Final = 2**40
_LONG: Final = re.compile(r"-?[0-9]{1,19}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,4})?")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,3})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?"
)
_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION: Final = re.compile("(?P<sign>-)?" + "".join(f"(?:(?P<{unit}>[0-9]{{1,19}}){unit})?" for unit in _UNITS))
_ID: Final = re.compile(r'[^\s"\\]+')
_ADDRESSES: Final = (IPv4Address, IPv4Interface, IPv6Address, IPv6Interface)


def value_of(value: str | list[Any] | dict[str, Any], type_: CedarType, where: str) -> CedarJson:
    """Return plain data as Cedar JSON of a type.

    Args:
        value: Texts, and lists and dicts of them.
        type_: What it has to be.
        where: What it is, for messages.

    Raises:
        ConfigurationError: If it is not exactly that; the message has the fix.
    """
    if type_.element is not None:
        if not isinstance(value, list):
            _refuse(where, "a list", value, "put it into brackets, `[…]`")
        return [value_of(item, type_.element, f"{where}[{place}]") for place, item in enumerate(value)]
    # A team may have an entity type that is called `Record`.
    if type_.is_entity:
        return _entity(value, type_.name, where)
    if type_.name == "Record":
        return _record(value, type_, where)
    read, wanted, fix = _SCALARS[type_.name]
    if not isinstance(value, str):
        _refuse(where, wanted, value, fix)
    if type_.one_of and value not in type_.one_of:
        _refuse(where, "one of its values", value, did_you_mean(value, type_.one_of))
    found = read(value, where)
    if found is None:
        _refuse(where, wanted, value, fix)
    return found


def _record(value: object, type_: CedarType, where: str) -> CedarJson:
    if not isinstance(value, dict):
        _refuse(where, "a record", value, f"give it members, such as {_some(type_)}")
    found: dict[str, CedarJson] = {}
    for name, item in value.items():
        if name not in type_.members or name in ESCAPES:
            message = f"`{where}` has no member `{_cut(str(name))}`: {did_you_mean(str(name), type_.members)}"
            raise ConfigurationError(message)
        found[name] = value_of(item, type_.members[name].type, f"{where}.{name}")
    for name, member in type_.members.items():
        if member.required and name not in found:
            message = f"`{where}.{_cut(name)}` is missing, and is always there: give it a {member.type}"
            raise ConfigurationError(message)
    return found


def _entity(value: object, type_: str, where: str) -> CedarJson:
    """Read ``User::alice``, or as Cedar writes it, ``User::"alice"``."""
    id_: str | None = None
    if isinstance(value, str) and value.startswith(f"{type_}::"):
        written = value.removeprefix(f"{type_}::")
        id_ = _unquoted(written) if written.startswith('"') else written if _ID.fullmatch(written) else None
    if id_ is None:
        _refuse(where, f"a `{type_}`", value, f'write `{type_}::id`, or `{type_}::"its id"`')
    return {"__entity": {"type": type_, "id": _as(scalars.text(where), id_, id_)}}


def _unquoted(written: str) -> str | None:
    try:
        (token,) = tokens(written)
        return unquote(token.text) if token.text == written else None
    except (LexError, ValueError):
        return None


def _string(value: str, where: str) -> CedarJson:
    return _as(scalars.text(where), value, value)


def _long(value: str, _: str) -> CedarJson | None:
    return int(value) if _LONG.fullmatch(value) and LONG_MIN <= int(value) <= LONG_MAX else None


def _bool(value: str, _: str) -> CedarJson | None:
    return {"true": True, "false": False}.get(value)


def _decimal(value: str, where: str) -> CedarJson | None:
    if not _DECIMAL.fullmatch(value):
        return None
    return _as(scalars.decimal(where, Decimal), Decimal(value), value)


def _datetime(value: str, where: str) -> CedarJson | None:
    if not _MOMENT.fullmatch(value):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    # A day alone is its first moment in UTC, as in Cedar.
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _as(scalars.moment(where), moment, value)


def _duration(value: str, _: str) -> CedarJson | None:
    found = _DURATION.fullmatch(value)
    if found is None or not value.lstrip("-"):
        return None
    total = sum(int(found[unit] or 0) * size for unit, size in _UNITS.items())
    total = -total if found["sign"] else total
    return {"__extn": {"fn": "duration", "arg": f"{total}ms"}} if LONG_MIN <= total <= LONG_MAX else None


def _ipaddr(value: str, where: str) -> CedarJson | None:
    try:
        address = ip_interface(value) if "/" in value else ip_address(value)
    except ValueError:
        return None
    return _as(scalars.address(where, _ADDRESSES), address, value)


_SCALARS: Final[Mapping[str, tuple[Callable[[str, str], CedarJson | None], str, str]]] = {
    "String": (_string, "text", "put it into quotes"),
    "Long": (_long, "a whole number", "write digits alone, at most 64 bits of them"),
    "Bool": (_bool, "a truth value", "write `true` or `false`"),
    "decimal": (_decimal, "a decimal", "write digits, and at most four after the point: `12.50`"),
    "datetime": (_datetime, "a moment", "write it with its zone, `2026-11-24T10:00:00Z`, or a day, `2026-11-24`"),
    "duration": (_duration, "a duration", "write `1h30m`, of d, h, m, s and ms in this order"),
    "ipaddr": (_ipaddr, "an IP address", "write `10.0.0.1`, or a range, `10.0.0.0/8`"),
}


def _as(convert: Convert, value: object, written: str) -> CedarJson:
    """Convert as the guard does."""
    try:
        return convert(value, Budget(total_bytes=_BYTES, string_bytes=_BYTES))
    except Refusal as refusal:
        message = f"{refusal.detail}: mend `{_cut(written)}`"
        raise ConfigurationError(message) from None


def _refuse(where: str, wanted: str, value: object, fix: str) -> NoReturn:
    got = "a list" if isinstance(value, list) else "a record" if isinstance(value, dict) else f"`{_cut(str(value))}`"
    message = f"`{where}` wants {wanted}, got {got}: {fix}"
    raise ConfigurationError(message)


def _some(type_: CedarType) -> str:
    return ", ".join(f"`{_cut(name)}`" for name in [*type_.members][:3]) or "none"


def _cut(text: str) -> str:
    return printable(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
