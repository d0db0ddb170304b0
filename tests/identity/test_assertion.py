from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from agentguard.errors import Refusal
from agentguard.identity.assertion import Assertion, Claimed, peek_assertion, sign_assertion, verify_assertion
from agentguard.identity.jwk import KeySet, read_key_set
from agentguard.lifecycle.keys import PrivateKey, read_signing_key
from agentguard.model import Reason
from tests.lifecycle.service import PLANNER_KEY, make_assertion
from tests.tokens import ABSENT, ISSUER, NOW, make_keys

ENDPOINT = f"{ISSUER}/token"
KEYS = make_keys(PLANNER_KEY, "planner")


def proved(assertion: str, *, keys: KeySet = KEYS, now: float = NOW) -> Assertion:
    """Verify an assertion as the planner's."""
    return verify_assertion(assertion, client_id="planner", keys=keys, audiences={ISSUER, ENDPOINT}, now=now)


def test_assertion_of_the_client_proves_it_until_it_is_over() -> None:
    """Leeway counts for as long as it may be used."""
    assertion = make_assertion(jti="a-1")

    assert peek_assertion(assertion) == Claimed(client_id="planner", key_id="planner")
    assert proved(assertion) == Assertion(client_id="planner", token_id="a-1", until=NOW + 90)
    assert proved(assertion, now=NOW + 89.9).until == NOW + 90


@pytest.mark.parametrize("key", [generate_private_key(SECP256R1()), Ed25519PrivateKey.generate()])
def test_assertion_that_is_made_here_proves_who_made_it(key: PrivateKey) -> None:
    """With either kind of key, for one issuer, until its own end."""
    signing = read_signing_key(key)
    keys, _ = read_key_set({"keys": [signing.public]})

    assertion = sign_assertion(
        client_id="planner",
        audience=ISSUER,
        private=signing.private,
        algorithm=signing.algorithm,
        key_id=signing.key_id,
        token_id="a-1",
        now=NOW,
        seconds=60,
    )

    assert peek_assertion(assertion) == Claimed(client_id="planner", key_id=signing.key_id)
    assert proved(assertion, keys=keys) == Assertion(client_id="planner", token_id="a-1", until=NOW + 90)
    with pytest.raises(Refusal):
        proved(assertion, keys=keys, now=NOW + 90)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ENDPOINT},
        {"aud": [ISSUER]},
        {"iat": ABSENT},
        {"iat": NOW + 30, "nbf": NOW + 30},
        {"exp": NOW + 330},
        {"exp": NOW - 29},
        {"header": {"typ": ABSENT}},
        {"header": {"typ": "client-authentication+jwt"}},
        {"header": {"typ": "jwt"}},
        {"scope": "ignored"},
    ],
)
def test_assertion_as_other_clients_write_it_is_accepted(changes: dict[str, Any]) -> None:
    """Within what the RFC leaves open."""
    assert proved(make_assertion(**changes)).client_id == "planner"


@pytest.mark.parametrize("kind", ["RS256", "PS256", "EdDSA"])
def test_other_asymmetric_keys_prove_a_client_too(kind: str) -> None:
    """Whatever the key is for."""
    key: Any
    if kind == "EdDSA":
        key = Ed25519PrivateKey.generate()
        jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        key = generate_rsa_key(65537, 2048)
        jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    keys, _ = read_key_set({"keys": [{**jwk, "kid": "planner"}]})

    assert proved(make_assertion(key=key, algorithm=kind), keys=keys).client_id == "planner"


def test_key_that_is_for_one_algorithm_proves_nothing_by_another() -> None:
    """The client says what its key is for, not whoever sends."""
    key: Any = generate_rsa_key(65537, 2048)
    jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    keys, _ = read_key_set({"keys": [{**jwk, "kid": "planner", "alg": "RS256"}]})

    assert proved(make_assertion(key=key, algorithm="RS256"), keys=keys).client_id == "planner"
    with pytest.raises(Refusal):
        proved(make_assertion(key=key, algorithm="PS256"), keys=keys)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "reader"},
        {"sub": "reader"},
        {"iss": "reader", "sub": "reader"},
        {"iss": ABSENT},
        {"sub": ""},
        {"aud": ABSENT},
        {"aud": []},
        {"aud": "https://other.example"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": [[ISSUER]]},
        {"aud": {"iss": ISSUER}},
        {"exp": ABSENT},
        {"exp": str(NOW + 60)},
        {"exp": NOW - 30},
        {"exp": NOW + 331},
        {"exp": float("inf")},
        {"iat": NOW + 31},
        {"nbf": NOW + 31},
        {"iat": "now"},
        {"jti": ABSENT},
        {"jti": ""},
        {"jti": 7},
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": 7}},
        {"header": {"kid": ABSENT}},
        {"header": {"kid": "other"}},
        {"header": {"alg": ABSENT}},
        {"header": {"alg": "ES384"}},
        {"header": {"alg": "none"}},
        {"header": {"jwk": {}}},
        {"header": {"crit": ["exp"]}},
        {"key": generate_private_key(SECP256R1())},
    ],
)
def test_assertion_that_proves_nothing_is_refused(changes: dict[str, Any]) -> None:
    """One place that is wrong is enough."""
    with pytest.raises(Refusal) as refused:
        proved(make_assertion(**changes))

    assert refused.value.reason is Reason.INVALID_TOKEN


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", "e30.e30.AA", "x" * (16 * 1024 + 1)])
def test_text_that_is_no_assertion_names_nobody(text: str) -> None:
    """And proves nothing."""
    for read in (peek_assertion, proved):
        with pytest.raises(Refusal) as refused:
            read(text)
        assert refused.value.reason is Reason.INVALID_TOKEN


def test_what_a_library_stumbles_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises."""
    keys = {"planner": KEYS["planner"]}

    class Broken(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise MemoryError

    with pytest.raises(Refusal, match="refused") as refused:
        proved(make_assertion(), keys=Broken(keys))
    assert refused.value.detail == "verification stopped with MemoryError"
