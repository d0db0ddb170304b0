from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from agentguard.identity.jwk import read_key_set
from agentguard.identity.token import TrustedIssuer
from tests.tokens import ISSUER, KEY, KEY_ID, make_claims, make_jwks, sign, verified

EC = {**ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": KEY_ID}


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA", "RS256", "PS512"])
def test_key_of_each_kind_verifies_what_its_other_half_signed(algorithm: str) -> None:
    """EC, Edwards and RSA keys are read, each for its own algorithms."""
    key: object
    if algorithm == "ES256":
        key, jwk = KEY, EC
    elif algorithm == "ES384":
        key = generate_private_key(SECP384R1())
        jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif algorithm == "EdDSA":
        key = Ed25519PrivateKey.generate()
        jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        key = generate_rsa(65537, 2048)
        jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    keys, problems = read_key_set({"keys": [{**jwk, "kid": KEY_ID}]})
    trusted = TrustedIssuer(issuer=ISSUER, algorithms=frozenset({algorithm}))

    invocation = verified(sign(make_claims(), key=key, algorithm=algorithm), trusted=trusted, keys=keys)

    assert problems == ()
    assert invocation.run_id == "run-1"


def test_key_that_names_its_algorithm_is_for_that_one_alone() -> None:
    """An RSA key for PS256 does not verify RS256."""
    jwk = RSAAlgorithm.to_jwk(generate_rsa(65537, 2048).public_key(), as_dict=True)

    keys, _ = read_key_set({"keys": [{**jwk, "kid": "a", "alg": "PS256", "use": "sig", "key_ops": ["verify"]}]})

    assert keys["a"].algorithms == {"PS256"}


@pytest.mark.parametrize(
    "entry",
    [
        "key",
        {"kty": "EC"},
        {**EC, "kid": ""},
        {**EC, "kid": 7},
        {**EC, "kid": "k" * 257},
        {**EC, "use": "enc"},
        {**EC, "key_ops": ["sign"]},
        {**EC, "key_ops": 7},
        {**EC, "alg": "RS256"},
        {**EC, "alg": ["ES256"]},
        {**EC, "crv": "P-384"},
        {**EC, "x": EC["y"]},
        {**EC, "x": 7},
        {**EC, "kty": "oct", "k": "AAAA"},
        {**ECAlgorithm.to_jwk(KEY, as_dict=True), "kid": KEY_ID},
        {**ECAlgorithm.to_jwk(generate_private_key(SECP256K1()).public_key(), as_dict=True), "kid": KEY_ID},
    ],
)
def test_key_that_may_not_verify_tokens_is_left_out(entry: object) -> None:
    """Keys for other uses, secrets, and what cannot be read, without harm to the other keys."""
    good = {**EC, "kid": "good"}

    keys, problems = read_key_set({"keys": [entry, good]})

    assert list(keys) == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith("key 0: ")


def test_keys_that_share_an_id_are_all_left_out() -> None:
    """Which one is meant would be a guess."""
    keys, problems = read_key_set({"keys": [EC, EC, EC]})

    assert keys == {}
    assert len(problems) == 2


@pytest.mark.parametrize("jwks", [{}, {"keys": {}}, {"keys": None}])
def test_text_that_is_no_key_set_is_refused(jwks: dict[str, object]) -> None:
    """Nothing else is taken for an empty set."""
    with pytest.raises(ValueError, match="not a JWK set"):
        read_key_set(jwks)


def test_same_key_read_twice_is_equal() -> None:
    """A refreshed set does not drop what its unchanged keys verified."""
    assert read_key_set(make_jwks())[0][KEY_ID] == read_key_set(make_jwks())[0][KEY_ID]
