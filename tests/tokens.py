"""Real tokens for tests: minted ones, and ones that are wrong in exactly one place."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from jwt.algorithms import ECAlgorithm, get_default_algorithms

from agentguard.errors import Refusal
from agentguard.identity.jwk import KeySet, read_key_set
from agentguard.identity.token import TrustedIssuer, verify
from agentguard.lifecycle.issuer import Issuer
from agentguard.limits import Limits
from agentguard.model import Invocation, Reason
from tests import leaks

NOW: Final = 1_800_000_000
ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "https://records.example/mcp"
GRANT: Final = "permit (principal, action, resource);"

KEY: Final = generate_private_key(SECP256R1())
KEY_ID: Final = "key-1"
TRUSTED: Final = TrustedIssuer(issuer=ISSUER)
FOREIGN: Final = TrustedIssuer(issuer=ISSUER, mints_runs=False)

ABSENT: Final = object()
"""As a claim's or a header's value: leave it out."""


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def make_issuer(
    *, issuer: str = ISSUER, audience: str = AUDIENCE, clock: Callable[[], float] = lambda: float(NOW)
) -> Issuer:
    """Return an issuer of agentguard's own, with a key of its own; its clock stands at `NOW`."""
    return Issuer(issuer=issuer, audience=audience, clock=clock)


def make_jwks(key: EllipticCurvePrivateKey = KEY, key_id: str = KEY_ID) -> dict[str, object]:
    """Return a JWK set of one EC key."""
    return {"keys": [{**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id}]}


def make_keys(key: EllipticCurvePrivateKey = KEY, key_id: str = KEY_ID) -> KeySet:
    """Return a key set of one EC key."""
    keys, _ = read_key_set(make_jwks(key, key_id))
    return keys


def make_claims(**changes: object) -> dict[str, object]:
    """Return the claims of a token that agentguard's own issuer could have signed, with changes."""
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "support-agent",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": "token-1",
        "run": "run-1",
        "run_exp": NOW + 600,
        "authorization_details": [{"type": "agentguard_grant", "cedar": GRANT}],
    }
    return _present({**claims, **changes})


def make_foreign_claims(**changes: object) -> dict[str, object]:
    """Return the claims of a token that another issuer could have signed, with changes."""
    left_out = {"run": ABSENT, "run_exp": ABSENT, "authorization_details": ABSENT}
    return make_claims(**{**left_out, **changes})


def make_ancestor(**changes: object) -> dict[str, object]:
    """Return one entry of ``ancestors``, with changes."""
    entry: dict[str, object] = {
        "iss": ISSUER,
        "run": "run-0",
        "agent": "planner",
        "scope": [],
        "grade": "run",
        "iat": NOW - 10,
        "exp": NOW + 900,
        "grant": GRANT,
    }
    return _present({**entry, **changes})


def sign(
    payload: Mapping[str, object] | bytes,
    *,
    header: Mapping[str, object] | bytes | None = None,
    key: object = KEY,
    algorithm: str = "ES256",
) -> str:
    """Sign any payload under any header; nothing is checked.

    Args:
        payload: Claims, or the payload's very bytes.
        header: Changes of the usual header, or the header's very bytes.
        key: The private key.
        algorithm: What signs; the header is free to name another.
    """
    if not isinstance(header, bytes):
        usual = {"alg": algorithm, "kid": KEY_ID, "typ": "at+jwt"}
        header = json.dumps(_present({**usual, **(header or {})})).encode()
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    signed = f"{base64url(header)}.{base64url(payload)}"
    signature = get_default_algorithms()[algorithm].sign(signed.encode(), key)
    return leaks.minted(f"{signed}.{base64url(signature)}")


def make_token(**changes: object) -> str:
    """Return a token of agentguard's own kind, signed with `KEY`, with changes of its claims."""
    return sign(make_claims(**changes))


def make_foreign_token(**changes: object) -> str:
    """Return a token of another issuer's kind, signed with `KEY`, with changes of its claims."""
    return sign(make_foreign_claims(**changes))


def verified(
    token: str,
    *,
    trusted: TrustedIssuer = TRUSTED,
    keys: KeySet | None = None,
    audience: str = AUDIENCE,
    now: float = NOW,
    limits: Limits | None = None,
) -> Invocation:
    """Verify a token as the one trusted issuer's."""
    issuers = {trusted.issuer: trusted}
    return verify(token, issuers, {trusted.issuer: keys or make_keys()}, audience, now, limits or Limits())


def refusal_of(token: str, *, trusted: TrustedIssuer = TRUSTED, now: float = NOW, keys: KeySet | None = None) -> Reason:
    """Verify a token that must be refused, and return the reason.

    Raises:
        AssertionError: It was believed.
    """
    try:
        verified(token, trusted=trusted, now=now, keys=keys)
    except Refusal as refusal:
        return refusal.reason
    message = "the token was believed"
    raise AssertionError(message)


def base64url(raw: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _present(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not ABSENT}
