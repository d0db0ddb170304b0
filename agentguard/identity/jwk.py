"""Public keys, and the reading of a JSON Web Key Set (RFC 7517)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from agentguard.identity.form import ID_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[tuple[object, object], frozenset[str]]] = MappingProxyType(
    {
        ("EC", "P-256"): frozenset({"ES256"}),
        ("EC", "P-384"): frozenset({"ES384"}),
        ("EC", "P-521"): frozenset({"ES512"}),
        ("OKP", "Ed25519"): frozenset({"EdDSA"}),
        ("RSA", None): _RSA,
    }
)

ASYMMETRIC: Final = frozenset[str]().union(*_CURVES.values())
"""The JWS algorithms that an issuer may be allowed; none of them has a shared secret."""

# NIST SP 800-131A asks for 2048; verifying with a much longer key is a way to spend our time.
_RSA_BITS: Final = range(2048, 8192 + 1)

Key = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public key of an issuer.

    Attributes:
        key_id: ``kid``.
        algorithms: The JWS algorithms that it may verify.
        key: The key itself.
    """

    key_id: str
    algorithms: frozenset[str]
    key: Key


KeySet = Mapping[str, PublicKey]
"""An issuer's public keys by key id."""


def read_key_set(jwks: Mapping[str, object]) -> tuple[KeySet, tuple[str, ...]]:
    """Read a JWK set, leaving out the keys that may not verify a token.

    Args:
        jwks: The set as JSON, ``{"keys": [...]}``.

    Returns:
        The usable keys, and one line for each that was left out.

    Raises:
        ValueError: Not a JWK set.
    """
    entries = jwks.get("keys")
    if not isinstance(entries, list):
        message = "not a JWK set: `keys` wants a list"
        raise ValueError(message)  # noqa: TRY004  what is wrong is the text that was read
    keys: dict[str, PublicKey] = {}
    problems: list[str] = []
    seen: set[str] = set()
    for position, (entry, problem) in enumerate(_read_each(entries)):
        if entry is None:
            problems.append(f"key {position}: {problem}")
        elif entry.key_id in seen:
            # Which of two keys with one id is meant would be a guess: neither is believed.
            keys.pop(entry.key_id, None)
            problems.append(f"key {position}: its `kid` occurs twice")
        else:
            seen.add(entry.key_id)
            keys[entry.key_id] = entry
    return MappingProxyType(keys), tuple(problems)


def _read_each(entries: list[object]) -> Iterator[tuple[PublicKey | None, str]]:
    for entry in entries:
        try:
            yield _read_key(entry), ""
        # The libraries below raise what they like on a malformed key: pyjwt's own errors,
        # TypeError, ValueError. A key that cannot be read is a key that nobody may use.
        except Exception as error:  # noqa: BLE001
            yield None, str(error)


def _read_key(jwk: object) -> PublicKey:
    if not isinstance(jwk, dict):
        message = "not a JSON object"
        raise TypeError(message)
    key_id = jwk.get("kid")
    if type(key_id) is not str or not 0 < len(key_id) <= ID_CHARACTERS:
        message = f"`kid` wants a string of 1 to {ID_CHARACTERS} characters"
        raise ValueError(message)
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        message = "not for verifying signatures"
        raise ValueError(message)
    kind, curve = jwk.get("kty"), jwk.get("crv")
    possible = _CURVES.get((kind, curve), frozenset())
    algorithms = possible & {jwk["alg"]} if "alg" in jwk else possible
    if not algorithms:
        message = "no supported algorithm fits it"
        raise ValueError(message)
    return PublicKey(key_id, algorithms, _public(kind, jwk))


def _public(kind: object, jwk: dict[str, object]) -> Key:
    key: object
    if kind == "EC":
        key = ECAlgorithm.from_jwk(jwk)
    elif kind == "OKP":
        key = OKPAlgorithm.from_jwk(jwk)
    else:
        key = RSAAlgorithm.from_jwk(jwk)
    # Whoever reads the set could sign with it.
    if not isinstance(key, Key):
        message = "a private key was published"
        raise TypeError(message)
    if isinstance(key, RSAPublicKey) and key.key_size not in _RSA_BITS:
        message = f"RSA keys have {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits, this one {key.key_size}"
        raise ValueError(message)
    return key
