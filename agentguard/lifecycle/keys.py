"""The keys that an issuer signs with: reading one, and passing from one to the next.

A key's id is its own thumbprint (RFC 7638), so that an id never names two keys. No
message here quotes what it was given: it may be a private key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agentguard.errors import ConfigurationError
from agentguard.identity.form import read_object
from agentguard.model import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
"""A key that can sign tokens: ES256 on P-256, or EdDSA with Ed25519."""

KeySource = PrivateKey | str | bytes | Mapping[str, object]
"""A private key, its PEM text, or its JWK as JSON text or as read."""

_WANTED: Final = "a private key on P-256 or Ed25519, as PEM, JWK or object"
_COORDINATE: Final = 32

# How long a run may last that a key signed for before this process began, as far as we care.
_UNKNOWN_RUNS_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """One private key, and what is published of it.

    Attributes:
        private: The key.
        algorithm: The JWS algorithm that it signs with.
        key_id: ``kid``.
        public: The public half as a JWK.
    """

    private: PrivateKey = field(repr=False)
    algorithm: str
    key_id: str
    public: Mapping[str, object]


def read_signing_key(source: KeySource) -> SigningKey:
    """Read a private key from PEM text, from a JWK (RFC 7517), or as it is.

    Raises:
        ConfigurationError: It is none, or of a kind that no token is signed with.
    """
    try:
        private = _private(source)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, RecursionError):
        # What the libraries say may quote the key.
        message = f"`key` wants {_WANTED}, got something that cannot be read as one: pass the text of its file"
        raise ConfigurationError(message) from None
    if isinstance(private, Ed25519PrivateKey):
        point = private.public_key().public_bytes_raw()
        return _signing_key(private, "EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": _text(point)})
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        numbers = private.public_key().public_numbers()
        x, y = (_text(part.to_bytes(_COORDINATE, "big")) for part in (numbers.x, numbers.y))
        return _signing_key(private, "ES256", {"kty": "EC", "crv": "P-256", "x": x, "y": y})
    kind = private.curve.name if isinstance(private, EllipticCurvePrivateKey) else type(private).__name__
    message = f"`key` wants {_WANTED}, got `{kind}`: generate one on P-256"
    raise ConfigurationError(message)


def _signing_key(private: PrivateKey, algorithm: str, thumbprint: Mapping[str, object]) -> SigningKey:
    key_id = hashlib.sha256(canonical_json(thumbprint).encode()).hexdigest()
    return SigningKey(private, algorithm, key_id, {**thumbprint, "kid": key_id, "alg": algorithm, "use": "sig"})


def _private(source: object) -> object:
    if isinstance(source, str):
        source = source.encode()
    if isinstance(source, bytes):
        if not source.lstrip().startswith(b"{"):
            return load_pem_private_key(source, password=None)
        source = read_object(source)
    return _from_jwk(source) if isinstance(source, Mapping) else source


def _from_jwk(jwk: Mapping[str, object]) -> PrivateKey:
    kind = (jwk["kty"], jwk["crv"], jwk.get("use", "sig"))
    secret, x = _bytes(jwk["d"]), _bytes(jwk["x"])
    private: PrivateKey
    if kind == ("OKP", "Ed25519", "sig"):
        private = Ed25519PrivateKey.from_private_bytes(secret)
        matches = private.public_key().public_bytes_raw() == x
    elif kind == ("EC", "P-256", "sig"):
        private = derive_private_key(int.from_bytes(secret, "big"), SECP256R1())
        numbers = private.public_key().public_numbers()
        wanted = (x, _bytes(jwk["y"]))
        matches = tuple(part.to_bytes(_COORDINATE, "big") for part in (numbers.x, numbers.y)) == wanted
    else:
        message = "no kind of key that signs tokens"
        raise ValueError(message)
    # One that was put together from two keys would publish a half that verifies nothing.
    if not matches:
        message = "the halves do not belong together"
        raise ValueError(message)
    return private


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        message = "not base64url text"
        raise TypeError(message)
    return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(slots=True, eq=False)
class _Used:
    """A key, with the moments until which it is needed, unix seconds.

    Attributes:
        key: The key.
        tokens: Until when a token of it may be accepted.
        runs: Until when a run may last that one of its tokens names.
    """

    key: SigningKey
    tokens: float
    runs: float


class KeyRing:
    """The key that signs now, and the earlier ones whose tokens may still be valid.

    Safe to share between threads.

    Args:
        key: What signs first; without one, a key that lives as long as this object.
        lingers: How long a token may be accepted after it was signed, seconds, leeway
            included.
        clock: Gives unix seconds.
    """

    __slots__ = ("_clock", "_coming", "_current", "_lingers", "_lock", "_retired")

    def __init__(self, key: KeySource | None, *, lingers: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lingers = lingers
        self._lock = Lock()
        self._coming: tuple[_Used, float] | None = None
        self._retired: dict[str, _Used] = {}
        self._current = self._begin(key)

    def _begin(self, key: KeySource | None) -> _Used:
        if key is None:
            return _Used(read_signing_key(generate_private_key(SECP256R1())), float("-inf"), float("-inf"))
        # A key that was there before us has signed what we know nothing of.
        now = self._clock()
        return _Used(read_signing_key(key), now + self._lingers, now + _UNKNOWN_RUNS_SECONDS)

    def use(self, until: float, *, run_until: float) -> SigningKey:
        """Return the key that signs now, for a token that is accepted until then.

        Args:
            until: Unix seconds, leeway included.
            run_until: The end of the token's run, likewise.
        """
        with self._lock:
            self._settle()
            self._current.tokens = max(self._current.tokens, until)
            self._current.runs = max(self._current.runs, run_until)
            return self._current.key

    def rotate(self, key: KeySource | None, *, after: float = 0) -> None:
        """Sign with another key; the present one stays published while a token of it is valid.

        Args:
            key: As for `KeyRing`.
            after: How long the key is published before it signs, seconds.

        Raises:
            ConfigurationError: It cannot sign, or is the one that signs now.
        """
        coming = self._begin(key)
        with self._lock:
            self._settle()
            if coming.key.key_id == self._current.key.key_id:
                message = "`rotate` wants another key than the one that signs now, got the same: generate a new one"
                raise ConfigurationError(message)
            self._coming = (coming, self._clock() + after)
            self._settle()

    def published(self) -> list[dict[str, object]]:
        """Return the public halves as JWKs, the one that signs now first."""
        return self._public(lambda used, now: now < used.tokens)

    def remembered(self) -> list[dict[str, object]]:
        """Return those, and the ones whose tokens are over while a run that they name may last.

        Good for ending such a run, and for nothing else.
        """
        return self._public(lambda used, now: now < max(used.tokens, used.runs))

    def _public(self, needed: Callable[[_Used, float], bool]) -> list[dict[str, object]]:
        with self._lock:
            self._settle()
            now = self._clock()
            coming = [self._coming[0]] if self._coming else []
            retired = [used for used in self._retired.values() if needed(used, now)]
            # By id: one that is to come may have been here before.
            keys = {used.key.key_id: dict(used.key.public) for used in (self._current, *coming, *retired)}
            return list(keys.values())

    def _settle(self) -> None:
        """Take the next key when its time has come; forget those that nothing needs any more."""
        now = self._clock()
        if self._coming is not None and not now < self._coming[1]:
            coming, _ = self._coming
            self._coming = None
            self._retired[self._current.key.key_id] = self._current
            earlier = self._retired.pop(coming.key.key_id, coming)
            self._current = _Used(coming.key, max(coming.tokens, earlier.tokens), max(coming.runs, earlier.runs))
        for used in [used for used in self._retired.values() if not now < max(used.tokens, used.runs)]:
            del self._retired[used.key.key_id]
