"""Read a token's form, before any key is involved.

Nothing here is verified. What `peek` returns chooses the issuer and the key that
verification then uses, and is good for nothing else.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from agentguard.errors import Refusal
from agentguard.model import Reason

if TYPE_CHECKING:
    from agentguard.limits import Limits

ID_CHARACTERS: Final = 256
"""The longest string that may become an id."""

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_NESTING: Final = 32
_FAR: Final = 253_402_300_799  # the last second of the year 9999: later ones overflow what reads them

# Cedar's JSON form reads these keys as instructions. As an attribute they would make an
# unknown value, and a forbid on an unknown value does not fire.
_ESCAPES: Final = frozenset({"__extn", "__entity", "__expr"})

# Each names a key, or a rule for reading the token, that the sender chose.
_REFUSED_HEADERS: Final = frozenset({"jku", "x5u", "jwk", "x5c", "crit", "b64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeked:
    """What an unverified token says about itself.

    Attributes:
        issuer: ``iss``.
        key_id: ``kid``.
        algorithm: ``alg``.
        type: ``typ`` in lower case; empty where it is absent.
        expires_at: ``exp``, unix seconds.
    """

    issuer: str
    key_id: str
    algorithm: str
    type: str
    expires_at: int


def peek(token: str, limits: Limits) -> Peeked:
    """Read an unverified token's header and the claims that choose its key.

    Args:
        token: A JWS in compact form (RFC 7515 section 3.1).
        limits: The bounds.

    Raises:
        Refusal: The form is not a token's; the reason is `Reason.INVALID_TOKEN`.
    """
    header, claims = unverified(token, limits)
    return Peeked(
        issuer=required_id(claims, "iss"),
        key_id=required_id(header, "kid"),
        algorithm=required_id(header, "alg"),
        type=(optional_id(header, "typ") or "").lower(),
        expires_at=required_moment(claims, "exp"),
    )


def unverified(token: str, limits: Limits) -> tuple[dict[str, object], dict[str, object]]:
    """Read an unverified token's header and claims.

    Args:
        token: A JWS in compact form (RFC 7515 section 3.1).
        limits: The bounds.

    Raises:
        Refusal: The form is not a token's; the reason is `Reason.INVALID_TOKEN`.
    """
    if type(token) is not str or len(token) > limits.token_bytes:
        refuse(f"token is longer than {limits.token_bytes} bytes or no string")
    # One spelling for one token: padding, blanks and what is not ASCII would let a token
    # be written in many ways that all verify.
    match = _COMPACT.fullmatch(token)
    if match is None:
        refuse("token is not three segments of unpadded base64url")
    header = read_claims(_decoded(match[1]))
    claims = read_claims(_decoded(match[2]))
    refused = sorted(_REFUSED_HEADERS & header.keys())
    if refused:
        refuse(f"header `{refused[0]}` is not accepted")
    return header, claims


def read_claims(raw: bytes) -> dict[str, object]:
    """Read a token's JSON object as `read_object`, and refuse what reading cannot make safe.

    Raises:
        Refusal: Not such an object.
    """
    value = read_json(raw)
    if type(value) is not dict:
        refuse("not a JSON object")
    return value


def read_json(raw: bytes) -> object:
    """Read JSON as `read_claims`, whatever it is.

    Raises:
        Refusal: Not JSON, or none that is safe to read.
    """
    try:
        value = _read(raw)
        _inspect(value)
    except UnicodeError:
        # Its text quotes the token.
        refuse("not UTF-8")
    except (ValueError, RecursionError) as error:
        refuse(str(error))
    return value


def read_object(raw: bytes) -> dict[str, object]:
    """Read a JSON object in which no member of any object occurs twice.

    Raises:
        ValueError: Not UTF-8, not JSON, not an object, or a repeated member.
        RecursionError: Nested too deeply for the reader.
    """
    value = _read(raw)
    if type(value) is not dict:
        message = "not a JSON object"
        raise ValueError(message)
    return value


def _read(raw: bytes) -> object:
    return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)


def refuse(detail: str) -> NoReturn:
    """Refuse a token that cannot be believed."""
    raise Refusal(Reason.INVALID_TOKEN, detail)


def optional_id(claims: dict[str, object], name: str, most: int = ID_CHARACTERS) -> str | None:
    """Return a claim that is a non-empty string of bounded length, or None where it is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not str or not 0 < len(value) <= most:
        refuse(f"`{name}` wants a string of 1 to {most} characters")
    return value


def required_id(claims: dict[str, object], name: str) -> str:
    """Return a claim that must be there, as `optional_id`."""
    value = optional_id(claims, name)
    if value is None:
        refuse(f"`{name}` is missing")
    return value


def optional_moment(claims: dict[str, object], name: str) -> int | None:
    """Return a claim that is a whole number of unix seconds, or None where it is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int or not 0 <= value <= _FAR:
        refuse(f"`{name}` wants a whole number of unix seconds")
    return value


def required_moment(claims: dict[str, object], name: str) -> int:
    """Return a moment that must be there, as `optional_moment`."""
    value = optional_moment(claims, name)
    if value is None:
        refuse(f"`{name}` is missing")
    return value


def _decoded(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        refuse("a segment is not base64url")


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    # Of two members with one name, readers differ in which they believe.
    value = dict(members)
    if len(value) != len(members):
        message = "a JSON member occurs twice"
        raise ValueError(message)
    return value


def _constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _inspect(root: object) -> None:
    """Bound the nesting; refuse keys that Cedar reads as instructions and lone surrogates."""
    waiting: list[tuple[object, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            if not _ESCAPES.isdisjoint(value):
                message = "a member is named like one of Cedar's escapes"
                raise ValueError(message)
            waiting.extend((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list):
            waiting.extend((part, depth + 1) for part in value)
        elif isinstance(value, str):
            value.encode("utf-8")  # raises ValueError on a lone surrogate
        if depth > _NESTING:
            message = f"nested deeper than {_NESTING}"
            raise ValueError(message)
