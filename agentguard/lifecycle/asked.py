"""Read what a client asks a token endpoint for: the parameters of a token exchange.

RFC 8693 section 2.1, with the grant of a run as RFC 9396 has it, and ``task``,
``purpose`` and ``ends_in``, which are our own. A parameter that is not known is ignored,
as RFC 6749 wants it; one that is known is read strictly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, cast

from agentguard.errors import ConfigurationError, OAuthError, Refusal
from agentguard.identity.form import ID_CHARACTERS, read_json
from agentguard.identity.token import GRANT_TYPE
from agentguard.lifecycle.delegation import read_bounds, read_scopes
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from agentguard.lifecycle.delegation import Arguments

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
"""The one ``grant_type``."""

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a type, not a secret
TYPES: Final = frozenset({ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt"})
"""The types of token that go in and come out: ours are both."""

_LIMITS: Final = Limits()
_DETAILS_CHARACTERS: Final = 2 * _LIMITS.grants_bytes
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a run is asked to be granted: `cedar`, or `tools` with values of their arguments."""

    cedar: str | None = None
    tools: Sequence[str] | None = None
    arguments: Arguments | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a token. What was not said is None.

    Attributes:
        subject: The token that is to be exchanged.
        actor: The token of who is to act.
        kind: The type of the token that is wanted.
        grant: What the run may call.
        targets: The servers that the token is for, as ``audience`` and ``resource`` name them.
        scopes: OAuth scopes.
        task: The task.
        purpose: The purpose.
        ends_in: Seconds to the run's end.
    """

    subject: str = field(repr=False)
    actor: str | None = field(default=None, repr=False)
    kind: str = ACCESS_TOKEN
    grant: Grant | None = None
    targets: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    task: str | None = None
    purpose: str | None = None
    ends_in: int | None = None


def reject(error: str, description: str) -> NoReturn:
    """Refuse a request in the words of the RFC, and of whoever has to mend it."""
    raise OAuthError(error=error, description=description)


def read_asked(parameters: Mapping[str, str], targets: Collection[str]) -> Asked:
    """Read a request for a token.

    Args:
        parameters: The parameters that come once at most.
        targets: The values of ``audience`` and ``resource``, which may come several times.

    Raises:
        OAuthError: It is not a token exchange, or not one that can be understood.
    """
    grant_type = parameters.get("grant_type")
    if grant_type is None:
        reject("invalid_request", "grant_type is missing")
    if grant_type != EXCHANGE:
        reject("unsupported_grant_type", f"grant_type wants {EXCHANGE}")
    subject = _token(parameters, "subject_token")
    if subject is None:
        reject("invalid_request", "subject_token is missing")
    kind = parameters.get("requested_token_type", ACCESS_TOKEN)
    if kind not in TYPES:
        reject("invalid_request", f"requested_token_type wants {' or '.join(sorted(TYPES))}")
    return Asked(
        subject=subject,
        actor=_token(parameters, "actor_token"),
        kind=kind,
        grant=_grant(parameters.get("authorization_details")),
        targets=frozenset(targets),
        scopes=_scopes(parameters.get("scope")),
        task=_text(parameters, "task", ID_CHARACTERS),
        purpose=_text(parameters, "purpose", _LIMITS.purpose_characters),
        ends_in=_ends_in(parameters.get("ends_in")),
    )


def _token(parameters: Mapping[str, str], name: str) -> str | None:
    token, kind = parameters.get(name), parameters.get(f"{name}_type")
    if token is None:
        if kind is not None:
            reject("invalid_request", f"{name}_type wants {name} beside it")
        return None
    if kind not in TYPES:
        reject("invalid_request", f"{name}_type wants {' or '.join(sorted(TYPES))}")
    if not len(token) <= _LIMITS.token_bytes:
        reject("invalid_request", f"{name} has more than {_LIMITS.token_bytes} bytes")
    return token


def _text(parameters: Mapping[str, str], name: str, most: int) -> str | None:
    text = parameters.get(name)
    if text is not None and not len(text) <= most:
        reject("invalid_request", f"{name} has more than {most} characters")
    return text


def _scopes(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    try:
        return read_scopes(text.split(" "))
    except ConfigurationError:
        reject("invalid_scope", "scope wants scopes with one blank between them")


def _ends_in(text: str | None) -> int | None:
    if text is None:
        return None
    if _SECONDS.fullmatch(text) is None:
        reject("invalid_request", "ends_in wants a positive whole number of seconds")
    return int(text)


def _grant(text: str | None) -> Grant | None:
    if text is None:
        return None
    # Longer than any grant that is small enough, however it is written: rendering it would cost.
    if not len(text) <= _DETAILS_CHARACTERS:
        reject("invalid_authorization_details", f"authorization_details has more than {_DETAILS_CHARACTERS} characters")
    try:
        grant = _read_grant(read_json(text.encode()))
        # Whether it grants anything, and is Cedar, is known before anything is looked up.
        read_bounds(tools=grant.tools, arguments=grant.arguments, grant=grant.cedar)
    except Refusal as refusal:
        reject("invalid_authorization_details", f"authorization_details wants JSON: {refusal.detail}")
    except ConfigurationError as error:
        reject("invalid_authorization_details", str(error))
    return grant


def _read_grant(details: object) -> Grant:
    wanted = f"authorization_details wants one {GRANT_TYPE}, with cedar or with tools"
    if not isinstance(details, list) or len(details) != 1:
        raise ConfigurationError(wanted)
    entry = details[0]
    if not isinstance(entry, dict) or entry.get("type") != GRANT_TYPE:
        raise ConfigurationError(wanted)
    match entry:
        case {"cedar": str(cedar)} if entry.keys() == {"type", "cedar"}:
            return Grant(cedar=cedar)
        case {"tools": list(tools)} if entry.keys() <= {"type", "tools", "arguments"} and _all(str, tools):
            return Grant(tools=tools, arguments=_arguments(entry.get("arguments", {})))
    raise ConfigurationError(wanted)


def _arguments(given: object) -> Arguments:
    tables = list(given.values()) if isinstance(given, dict) else [None]
    lists = [values for table in tables if isinstance(table, dict) for values in table.values()]
    if not _all(dict, tables) or not _all(list, lists):
        message = "arguments wants lists of values, by argument, by tool"
        raise ConfigurationError(message)
    return cast("Arguments", given)


def _all(kind: type, values: list[object]) -> bool:
    return all(type(value) is kind for value in values)
