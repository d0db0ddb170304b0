"""The trap: an ES256 signature can be varied without the key, so a token has two texts that both verify."""

from __future__ import annotations

import base64

import pytest

from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer, UnsafeSharedIdentity
from agentguard.identity.verifier import InvocationVerifier
from tests.tokens import (
    ABSENT,
    AUDIENCE,
    FOREIGN,
    ISSUER,
    TRUSTED,
    Clock,
    base64url,
    make_foreign_token,
    make_jwks,
    make_token,
)

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the curve P-256


def varied(token: str) -> str:
    """Return the same token with the other signature that its signer did not make."""
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = ORDER - int.from_bytes(raw[32:], "big")
    return f"{signed}.{base64url(raw[:32] + other.to_bytes(32, 'big'))}"


@pytest.mark.parametrize(
    ("token", "trusted"),
    [
        (make_token(), TRUSTED),
        (make_foreign_token(), FOREIGN),
        (make_foreign_token(jti=ABSENT), UnsafeSharedIdentity(issuer=ISSUER)),
    ],
    ids=["ours", "foreign", "shared"],
)
async def test_varied_token_is_the_same_identity(token: str, trusted: TrustedIssuer) -> None:
    """Revoking the run, or spending its approval, holds for both texts."""
    keys = {ISSUER: FixedKeys(make_jwks())}
    verifier = InvocationVerifier(trusted, audience=AUDIENCE, keys=keys, clock=Clock())

    first, second = await verifier.verify(token), await verifier.verify(varied(token))

    assert varied(token) != token
    assert (first.issuer, first.run_id, first.token_id) == (second.issuer, second.run_id, second.token_id)
