from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from agentguard.errors import ConfigurationError
from agentguard.identity.jwk import read_key_set
from agentguard.lifecycle.keys import KeyRing, KeySource, PrivateKey, read_signing_key
from tests.tokens import NOW, Clock

EC = generate_private_key(SECP256R1())
ED = Ed25519PrivateKey.generate()
RSA = generate_rsa_key(public_exponent=65537, key_size=2048)


def pem(key: PrivateKey, encryption: KeySerializationEncryption | None = None) -> bytes:
    """Return a private key's PEM text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def jwk(key: PrivateKey, **changes: object) -> dict[str, object]:
    """Return a private key's JWK as another library writes it, with changes."""
    found: Mapping[str, object] = (
        ECAlgorithm.to_jwk(key, as_dict=True)
        if isinstance(key, EllipticCurvePrivateKey)
        else OKPAlgorithm.to_jwk(key, as_dict=True)
    )
    changed = {**found, **changes}
    return {name: value for name, value in changed.items() if value is not None and name != "key_ops"}


@pytest.mark.parametrize("key", [EC, ED])
def test_a_key_is_the_same_in_every_form(key: PrivateKey) -> None:
    """As an object, as PEM in text or bytes, as a JWK in text or read."""
    forms: list[KeySource] = [key, pem(key), pem(key).decode(), jwk(key), json.dumps(jwk(key)), jwk(key, use="sig")]

    read = [read_signing_key(form) for form in forms]

    assert len({one.key_id for one in read}) == 1
    assert all(one.public == read[0].public for one in read)
    assert {one.algorithm for one in read} == {"ES256" if key is EC else "EdDSA"}


@pytest.mark.parametrize("key", [EC, ED])
def test_what_is_published_is_the_public_half_alone(key: PrivateKey) -> None:
    """A server can read it, and nobody can sign with it."""
    read = read_signing_key(key)

    keys, problems = read_key_set({"keys": [dict(read.public)]})

    assert problems == ()
    assert keys[read.key_id].algorithms == {read.algorithm}
    assert "d" not in read.public
    assert "private" not in repr(read)


@pytest.mark.parametrize(
    "source",
    [
        "issuer.pem",
        "",
        b"\xff",
        "\ud800",
        "{",
        "[]",
        "{" + '"a":' * 200_000,
        pem(EC, BestAvailableEncryption(b"secret")),
        EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        jwk(EC, d=None),
        jwk(EC, d=7),
        jwk(EC, d="!"),
        jwk(EC, use="enc"),
        jwk(EC, y=jwk(EC)["x"]),
        jwk(EC, d=jwk(generate_private_key(SECP256R1()))["d"]),
        jwk(ED, d=jwk(Ed25519PrivateKey.generate())["d"]),
        jwk(EC, crv="P-384"),
        {"kty": "oct", "k": "c2VjcmV0"},
    ],
)
def test_text_that_is_no_signing_key_is_refused_without_being_quoted(source: KeySource) -> None:
    """It may be a private key with a fault, and the message ends up in a log."""
    with pytest.raises(ConfigurationError) as refused:
        read_signing_key(source)

    assert str(refused.value) == (
        "`key` wants a private key on P-256 or Ed25519, as PEM, JWK or object, got something that cannot be read as "
        "one: pass the text of its file"
    )
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (generate_private_key(SECP384R1()), "secp384r1"),
        (pem(generate_private_key(SECP384R1())), "secp384r1"),
        (RSA, "RSAPrivateKey"),
        (7, "int"),
    ],
)
def test_key_of_a_kind_that_signs_no_tokens_is_refused(source: KeySource, named: str) -> None:
    """ES256 and EdDSA, and nothing else."""
    with pytest.raises(ConfigurationError, match=f"got `{named}`: generate one on P-256"):
        read_signing_key(source)


def ids(ring: KeyRing) -> list[object]:
    """Return the ids of what is published."""
    return [key["kid"] for key in ring.published()]


def test_rotated_key_stays_until_the_last_token_that_it_signed_is_over() -> None:
    """Until then its tokens are valid, and afterwards nobody needs it."""
    clock = Clock()
    ring = KeyRing(None, lingers=930, clock=clock)
    first = ring.use(NOW + 330, run_until=NOW + 330).key_id
    ring.use(NOW + 100, run_until=NOW + 100)

    ring.rotate(EC)

    second = ring.use(NOW + 400, run_until=NOW + 400).key_id
    assert second == read_signing_key(EC).key_id
    assert ids(ring) == [second, first]
    clock.now = NOW + 329.9
    assert ids(ring) == [second, first]
    clock.now = NOW + 330
    assert ids(ring) == [second]
    clock.now = NOW
    assert ids(ring) == [second]


def test_key_that_was_there_before_stays_as_long_as_any_token_may() -> None:
    """What it signed before this process began is not known."""
    clock = Clock()
    ring = KeyRing(EC, lingers=930, clock=clock)

    ring.rotate(None)

    clock.now = NOW + 929
    assert len(ids(ring)) == 2
    clock.now = NOW + 930
    assert len(ids(ring)) == 1


def test_generated_key_that_signed_nothing_goes_at_once() -> None:
    """There is no token that it could verify."""
    ring = KeyRing(None, lingers=930, clock=Clock())

    ring.rotate(EC)

    assert ids(ring) == [read_signing_key(EC).key_id]


def test_key_that_comes_back_is_published_once_and_keeps_its_tokens() -> None:
    """Going back to an earlier key loses none of what it signed."""
    clock = Clock()
    ring = KeyRing(EC, lingers=10, clock=clock)
    ring.use(NOW + 500, run_until=NOW + 500)
    ring.rotate(ED)

    ring.rotate(EC)
    ring.rotate(ED)

    assert ids(ring) == [read_signing_key(key).key_id for key in (ED, EC)]
    clock.now = NOW + 499
    assert len(ids(ring)) == 2


def test_key_can_be_published_before_it_signs() -> None:
    """So that servers know it by the time its first token comes."""
    clock = Clock()
    ring = KeyRing(None, lingers=930, clock=clock)
    old, new = ring.use(NOW + 330, run_until=NOW + 330).key_id, read_signing_key(EC).key_id

    ring.rotate(EC, after=30)

    assert ids(ring) == [old, new]
    assert ring.use(NOW + 340, run_until=NOW + 340).key_id == old
    clock.now = NOW + 30
    assert ring.use(NOW + 360, run_until=NOW + 360).key_id == new
    assert ids(ring) == [new, old]
    clock.now = NOW
    assert ring.use(NOW + 330, run_until=NOW + 330).key_id == new
    clock.now = NOW + 340
    assert ids(ring) == [new]


def test_key_that_is_to_come_back_is_published_once() -> None:
    """A set in which an id occurs twice is one that nobody believes."""
    ring = KeyRing(EC, lingers=10, clock=Clock())
    ring.rotate(ED)

    ring.rotate(EC, after=5)

    assert ids(ring) == [read_signing_key(key).key_id for key in (ED, EC)]


def test_rotating_to_the_same_key_is_refused() -> None:
    """Whoever rotates believes that the old key is gone."""
    ring = KeyRing(EC, lingers=10, clock=Clock())

    with pytest.raises(ConfigurationError, match="got the same: generate a new one"):
        ring.rotate(pem(EC))
