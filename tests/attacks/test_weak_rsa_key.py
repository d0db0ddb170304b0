"""The trap: pyjwt only warns of an RSA key that is short enough to be factored, and verifies with it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from agentguard.errors import ConfigurationError
from agentguard.identity.jwk import PublicKey, read_key_set
from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer
from agentguard.model import Reason
from tests.tokens import ISSUER, KEY_ID, make_claims, refusal_of, sign

WEAK = generate_private_key(65537, 1024)  # noqa: S505  the weakness is the subject
TRUSTED = TrustedIssuer(issuer=ISSUER, algorithms=frozenset({"RS256"}))


def jwks(key: RSAPrivateKey) -> dict[str, object]:
    """Return a JWK set of one RSA key."""
    return {"keys": [{**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": KEY_ID}]}


def test_weak_key_of_a_key_set_is_left_out() -> None:
    """It does not become a key of the issuer at all."""
    keys, problems = read_key_set(jwks(WEAK))

    assert keys == {}
    assert problems == ("key 0: RSA keys have 2048 to 8192 bits, this one 1024",)


def test_weak_key_is_refused_at_set_up() -> None:
    """Whoever configures it is told."""
    with pytest.raises(ConfigurationError, match="2048 to 8192 bits"):
        FixedKeys(jwks(WEAK))


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_token_under_a_weak_key_is_refused() -> None:
    """Even where the key came in another way."""
    keys = {KEY_ID: PublicKey(KEY_ID, frozenset({"RS256"}), WEAK.public_key())}
    token = sign(make_claims(), key=WEAK, algorithm="RS256")

    assert refusal_of(token, trusted=TRUSTED, keys=keys) is Reason.INVALID_TOKEN
