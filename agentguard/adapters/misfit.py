"""What did not fit, for whoever runs the server: a framework refuses arguments before the guard sees them.

Made of the names that a tool declares and of kinds of values. What a caller made up, a
value or a name, has no way into it; nor has the text of an exception, which quotes both.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from agentguard.errors import Refusal
from agentguard.model import Reason
from agentguard.policy.conversion.composites import quoted
from agentguard.policy.conversion.values import check_no_escapes
from agentguard.policy.text.lexer import Kind, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentguard.limits import Limits
    from agentguard.policy.schemas.schema import GuardedTool

UNFIT: Final = Refusal(Reason.INVALID_ARGUMENT, "the arguments do not fit the schema")

_MOST: Final = 3
# Each is written out before any is read.
_MOST_ERRORS: Final = 1_000
_DEEPEST: Final = 8
_CHAINED: Final = 8

_WANTED: Final[Mapping[str, str]] = {
    kind: wanted
    for wanted, kinds in {
        "a string": "string_type",
        "a whole number": "int_type int_parsing int_parsing_size int_from_float",
        "a number": "float_type float_parsing finite_number decimal_type decimal_parsing",
        "true or false": "bool_type bool_parsing",
        "a list": "list_type tuple_type set_type frozen_set_type iterable_type",
        "an object": "dict_type mapping_type model_type model_attributes_type dataclass_type",
        "one of the declared values": "literal_error enum",
        "null": "none_required",
        "a date": "date_type date_parsing date_from_datetime_parsing date_from_datetime_inexact",
        "a date with a time": "datetime_type datetime_parsing datetime_from_date_parsing",
        "a date with a time zone": "timezone_aware",
        "a time": "time_type time_parsing",
        "a duration": "time_delta_type time_delta_parsing",
        "a UUID": "uuid_type uuid_parsing",
        "a URL": "url_type url_parsing",
    }.items()
    for kind in kinds.split()
}
"""What was wanted, by pydantic's name for the error."""

_GOT: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_MISSING: Final = frozenset({"missing", "missing_argument", "missing_keyword_only_argument"})
_UNDECLARED: Final = frozenset({"extra_forbidden", "unexpected_keyword_argument"})

Heard = list[Exception | str]
"""What a framework raised, and our own words, which are taken as they are."""

_HEARD: Final[ContextVar[Heard | None]] = ContextVar("agentguard_misfit", default=None)


@contextmanager
def hearing() -> Iterator[Heard]:
    """Give a list for what there is against the arguments of one request."""
    heard: Heard = []
    outer = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(outer)


def hear(what: Exception | str) -> None:
    """Take what there is against the arguments, where somebody wants to know."""
    heard = _HEARD.get()
    if heard is not None:
        heard.append(what)


def has_no_escapes(arguments: object, limits: Limits) -> bool:
    """Return whether arguments may go to the framework; why they may not is heard."""
    try:
        check_no_escapes(arguments, limits)
    except Refusal as refusal:
        hear(refusal.detail)
        return False
    return True


def unfit(tool: GuardedTool | None, heard: Heard) -> Refusal:
    """Return the refusal of arguments that no guarded function was reached with.

    Args:
        tool: What was called; None for nothing guarded.
        heard: What was heard meanwhile; the last of it counts.
    """
    for what in reversed(heard):
        detail = what if isinstance(what, str) else "" if tool is None else _told(tool, what)
        if detail:
            return Refusal(Reason.INVALID_ARGUMENT, detail)
    return UNFIT


def _told(tool: GuardedTool, error: BaseException | None) -> str:
    """Return what *error*, or what it came from, says of the arguments that *tool* declares."""
    for _ in range(_CHAINED):
        if error is None or isinstance(error, ValidationError):
            break
        error = error.__cause__ or error.__context__
    if not isinstance(error, ValidationError) or error.error_count() > _MOST_ERRORS:
        return ""
    declared = {token.text for token in tokens(tool.input.cedar) if token.kind is Kind.STRING}
    declared.update(map(quoted, tool.unseen))
    errors = error.errors(include_url=False, include_context=False)
    lines = list(dict.fromkeys(line for line in (_line(one, declared) for one in errors) if line))
    more = f"; and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
    return "; ".join(lines[:_MOST]) + more


def _line(error: Any, declared: set[str]) -> str:
    """Return what there is to say of one error; nothing of what is not about a declared argument."""
    kind, (first, *inner) = error["type"], error["loc"] or ("",)
    if quoted(str(first)) not in declared:
        return "there is an argument that is not declared" if kind in _UNDECLARED else ""
    where = str(first)
    for part in inner[:_DEEPEST]:
        if isinstance(part, str) and quoted(part) not in declared:
            # A key that the caller made up, or a word of pydantic's own.
            break
        where += f".{part}" if isinstance(part, str) else "[]"
    if kind in _MISSING:
        return f"`{where}` is missing"
    if kind in _UNDECLARED:
        return f"`{where}` has more than it declares"
    # Any other may be a validator's own, whose words may hold the value.
    wanted = f"wants {_WANTED[kind]}" if kind in _WANTED else "is not as its declaration wants it"
    return f"`{where}` {wanted}, got {_GOT.get(type(error['input']), 'something else')}"
