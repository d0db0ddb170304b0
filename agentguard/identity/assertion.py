"""What an OAuth client signs to say who it is, ``private_key_jwt``: made, and verified.

RFC 7523 section 3, with the client's part of OpenID Connect Core section 9. Pure: text,
keys and a time in, what was proved out. That an assertion is used only once is up to
whoever keeps the uses, `lifecycle.clients`.

Conditions are stated as what is accepted; everything else is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import jwt

from agentguard.errors import Refusal
from agentguard.identity.form import (
    optional_id,
    optional_moment,
    read_claims,
    refuse,
    required_id,
    required_moment,
    unverified,
)
from agentguard.identity.jwk import ASYMMETRIC
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from agentguard.identity.jwk import KeySet

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""The one ``client_assertion_type`` that is accepted (RFC 7523 section 2.2)."""

USUAL_SECONDS: Final = 300
"""How far ahead an assertion's end may lie, where nothing else is said."""

_LIMITS: Final = Limits()
# None, as most clients send it, or what says no more. The type of an access token would let
# one that a client's key signed pass for the client.
_TYPES: Final = frozenset({None, "jwt", "client-authentication+jwt"})
_JWS: Final = jwt.PyJWS(algorithms=sorted(ASYMMETRIC), options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What an unverified assertion says: which client it names, and by which key.

    Attributes:
        client_id: The client.
        key_id: ``kid``.
    """

    client_id: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """What a verified assertion proves, once.

    Attributes:
        client_id: The client.
        token_id: ``jti``; unique for the client.
        until: When it cannot be accepted any more, unix seconds, leeway included.
    """

    client_id: str
    token_id: str
    until: float


def sign_assertion(
    *,
    client_id: str,
    audience: str,
    private: EllipticCurvePrivateKey | Ed25519PrivateKey,
    algorithm: str,
    key_id: str,
    token_id: str,
    now: int,
    seconds: int,
) -> str:
    """Make an assertion, for one request.

    Args:
        client_id: The client.
        audience: The one issuer that it is for.
        private: The client's key.
        algorithm: What the key signs with: ES256 or EdDSA.
        key_id: ``kid``.
        token_id: ``jti``, another one each time.
        now: Unix seconds.
        seconds: How long it is good.
    """
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": token_id,
        "iat": now,
        "exp": now + seconds,
    }
    payload = json.dumps(claims, separators=(",", ":")).encode()
    # With `typ` as every server knows it, of old.
    return _JWS.encode(payload, private, algorithm=algorithm, headers={"kid": key_id, "typ": "JWT"})


def peek_assertion(assertion: str) -> Claimed:
    """Read which client an assertion names, before any key is involved.

    Raises:
        Refusal: The form is not an assertion's; the reason is `Reason.INVALID_TOKEN`.
    """
    header, claims = unverified(assertion, _LIMITS)
    return Claimed(client_id=required_id(claims, "sub"), key_id=required_id(header, "kid"))


def verify_assertion(
    assertion: str,
    *,
    client_id: str,
    keys: KeySet,
    audiences: Collection[str],
    now: float,
    most_seconds: int = USUAL_SECONDS,
) -> Assertion:
    """Verify that a client signed an assertion for us, now.

    Args:
        assertion: A JWS in compact form.
        client_id: The client.
        keys: The client's own public keys.
        audiences: What ``aud`` may name: us, by the issuer's name or the token endpoint.
        now: Unix seconds.
        most_seconds: How far ahead its end may lie: for so long its use has to be
            remembered, and one that was caught before it was used is good.

    Raises:
        Refusal: It proves nothing; the reason is `Reason.INVALID_TOKEN`.
    """
    try:
        header, _ = unverified(assertion, _LIMITS)
        kind = optional_id(header, "typ")
        if (kind if kind is None else kind.lower()) not in _TYPES:
            refuse("`typ` is not an assertion's")
        key = keys.get(required_id(header, "kid"))
        if key is None:
            refuse("the client has no key with this `kid`")
        algorithm = required_id(header, "alg")
        if algorithm not in ASYMMETRIC & key.algorithms:
            refuse("`alg` is not accepted for this key")
        signed = _JWS.decode_complete(assertion, key=key.key, algorithms=[algorithm])
        return _read(read_claims(signed["payload"]), client_id, audiences, now, most_seconds)
    except Refusal:
        raise
    # pyjwt and cryptography raise more than `PyJWTError` on hostile input.
    except Exception as error:  # noqa: BLE001
        refuse(f"verification stopped with {type(error).__name__}")


def _read(
    claims: dict[str, object], client_id: str, audiences: Collection[str], now: float, most_seconds: int
) -> Assertion:
    if not required_id(claims, "iss") == required_id(claims, "sub") == client_id:
        refuse("`iss` and `sub` want to be the client")
    # One that names others too could be one that a client made for them, and they passed on.
    named = claims.get("aud")
    several = named if isinstance(named, list) else [named]
    if len(several) != 1 or type(several[0]) is not str or several[0] not in audiences:
        refuse("`aud` does not name this issuer alone")
    expires_at = required_moment(claims, "exp")
    issued_at, not_before = optional_moment(claims, "iat") or 0, optional_moment(claims, "nbf") or 0
    leeway = _LIMITS.leeway_seconds
    if not now - leeway < expires_at <= now + most_seconds + leeway:
        refuse(f"`exp` wants to be in the next {most_seconds} s")
    if not max(issued_at, not_before) <= now + leeway:
        refuse("the assertion is not valid yet")
    return Assertion(client_id=client_id, token_id=required_id(claims, "jti"), until=float(expires_at + leeway))
