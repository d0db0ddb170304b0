"""Mint the tokens that name a run."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from jwt.algorithms import ECAlgorithm

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.jwk import read_key_set
from agentguard.identity.token import GRANT_TYPE, TrustedIssuer, verify
from agentguard.model import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agentguard.model import Claim

_ALGORITHM: Final = "ES256"
_JWS: Final = jwt.PyJWS(algorithms=[_ALGORITHM])


class Issuer:
    """Signs tokens for runs, with one ES256 key.

    Attributes:
        issuer: The ``iss`` of its tokens.
        audience: The ``aud`` of its tokens where `mint` names none.
    """

    __slots__ = ("_clock", "_key", "_key_id", "audience", "issuer")

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | None = None,
        key: EllipticCurvePrivateKey | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set up an issuer.

        Args:
            issuer: The ``iss`` of its tokens, a URL as a rule.
            audience: The server that its tokens are for, where `mint` names none.
            key: A key on P-256; without one, a key that lives as long as this object.
            clock: Gives unix seconds.

        Raises:
            ConfigurationError: The key is on another curve.
        """
        key = key or generate_private_key(SECP256R1())
        if not isinstance(key.curve, SECP256R1):
            message = f"`key` wants a key on P-256, got `{key.curve.name}`: generate one with `SECP256R1()`"
            raise ConfigurationError(message)
        self.issuer = issuer
        self.audience = audience
        self._key = key
        self._clock = clock
        # RFC 7638: the key's own thumbprint, so that a key id never names two keys.
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        thumbprint = {name: public[name] for name in ("crv", "kty", "x", "y")}
        self._key_id = hashlib.sha256(canonical_json(thumbprint).encode()).hexdigest()

    def jwks(self) -> dict[str, object]:
        """Return the public key as a JWK set (RFC 7517)."""
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": self._key_id, "alg": _ALGORITHM, "use": "sig"}]}

    def mint(
        self,
        *,
        agent: str,
        grant: str,
        user: str | None = None,
        task: str | None = None,
        purpose: str | None = None,
        scopes: Iterable[str] = (),
        run: str | None = None,
        ends_in: int = 300,
        token_lifetime: int = 300,
        audience: str | None = None,
        ancestors: Sequence[Mapping[str, object]] = (),
        claims: Mapping[str, Claim] | None = None,
    ) -> str:
        """Mint the token of a run that begins now.

        Args:
            agent: The workload that acts.
            grant: Cedar text that bounds the run.
            user: On whose behalf, when somebody.
            task: The task.
            purpose: The purpose.
            scopes: OAuth scopes.
            run: The run's id, unique for each run; a random one if left out.
            ends_in: Seconds to the run's absolute end.
            token_lifetime: Seconds to the token's own end, which is never past the run's.
            audience: Another server than the issuer's usual one.
            ancestors: The complete facts of each delegator, root first.
            claims: Further claims, for policies that read them.

        Raises:
            ConfigurationError: No server would accept the token.
        """
        now = int(self._clock())
        audience = audience or self.audience
        if not audience:
            message = "a token is for one server: pass audience= to `mint`, or to the issuer"
            raise ConfigurationError(message)
        optional = {
            "task": task,
            "purp": purpose,
            "scope": " ".join(sorted(scopes)) or None,
            "ancestors": list(ancestors) or None,
        }
        own: dict[str, object] = {
            "iss": self.issuer,
            "aud": audience,
            "sub": user or agent,
            "client_id": agent,
            "iat": now,
            "exp": now + min(token_lifetime, ends_in),
            "jti": uuid.uuid4().hex,
            "run": run or uuid.uuid4().hex,
            "run_iat": now,
            "run_exp": now + ends_in,
            "authorization_details": [{"type": GRANT_TYPE, "cedar": grant}],
            **{name: value for name, value in optional.items() if value is not None},
        }
        further = {
            name: sorted(value) if isinstance(value, frozenset) else value for name, value in (claims or {}).items()
        }
        for name in sorted(own.keys() & further.keys()):
            message = f"`claims` wants claims that mint does not write itself, got `{name}`: leave it out"
            raise ConfigurationError(message)
        header = {"alg": _ALGORITHM, "kid": self._key_id, "typ": "at+jwt"}
        payload = json.dumps({**own, **further}, separators=(",", ":"), allow_nan=False).encode()
        token = _JWS.encode(payload, self._key, algorithm=_ALGORITHM, headers=header)
        self._check(token, audience, now, {name: type(value) for name, value in (claims or {}).items()})
        return token

    def _check(self, token: str, audience: str, now: int, claims: Mapping[str, type]) -> None:
        """Verify the token as a server will: whoever mints it learns of a mistake first."""
        trusted = TrustedIssuer(issuer=self.issuer, claims=claims)
        keys, _ = read_key_set(self.jwks())
        try:
            verify(token, {self.issuer: trusted}, {self.issuer: keys}, audience, now)
        except Refusal as refusal:
            message = f"no server would accept this token: {refusal.detail}"
            raise ConfigurationError(message) from refusal
