"""Claim sets as real issuers write them, with ids that are made up, and what each earns.

One file of `golden` is one flow: the preset with its options, header and claims, the
invocation they earn, and what makes the same token one to refuse (null: left out).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from agentguard import FixedKeys, Invocation, InvocationVerifier, TrustedIssuer
from tests.tokens import KEY_ID, NOW, sign

KEY: Final = generate_private_key(65537, 2048)

_TYPES: Final[dict[str, type]] = {"str": str, "int": int, "bool": bool, "frozenset": frozenset}


@dataclass(frozen=True)
class Golden:
    """One flow of one issuer.

    Attributes:
        name: The file's name.
        trusted: What its preset makes.
        audience: Whom its token is for.
        header: The token's header, without ``alg`` and ``kid``.
        claims: The token's claims.
        earns: What the invocation must be.
        refused: Changes that make it a token to refuse, by what they are.
    """

    name: str
    trusted: TrustedIssuer
    audience: str
    header: dict[str, object]
    claims: dict[str, Any]
    earns: dict[str, Any]
    refused: dict[str, dict[str, Any]]

    def token(self, *, key: RSAPrivateKey = KEY, header: dict[str, object] | None = None, **changes: object) -> str:
        """Sign the claims, with changes; None leaves one out."""
        claims = {name: value for name, value in {**self.claims, **changes}.items() if value is not None}
        merged = {"alg": "RS256", "kid": KEY_ID, **self.header, **(header or {})}
        text = json.dumps({name: value for name, value in merged.items() if value is not None})
        return sign(claims, header=text.encode(), key=key, algorithm="RS256")

    def verifier(self, audience: str | None = None) -> InvocationVerifier:
        """Return a verifier that trusts the issuer and its key alone."""
        return InvocationVerifier(
            self.trusted,
            audience=audience or self.audience,
            keys={self.trusted.issuer: FixedKeys({"keys": [public_jwk(KEY)]})},
            clock=lambda: float(NOW),
        )

    async def verified(self, token: str) -> Invocation:
        """Verify a token of the issuer for the audience."""
        return await self.verifier().verify(token)


def public_jwk(key: RSAPrivateKey) -> dict[str, object]:
    """Return the public key as issuers publish it: without ``alg``."""
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"kty": public["kty"], "n": public["n"], "e": public["e"], "kid": KEY_ID, "use": "sig"}


def read_golden(path: Path) -> Golden:
    """Read one file."""
    text = json.loads(path.read_text("utf-8"))
    options = text["options"]
    if "claims" in options:
        options["claims"] = {name: _TYPES[kind] for name, kind in options["claims"].items()}
    trusted = getattr(TrustedIssuer, text["preset"])(**options)
    return Golden(path.stem, trusted, text["audience"], text["header"], text["claims"], text["earns"], text["refused"])


GOLDENS: Final = {path.stem: read_golden(path) for path in sorted((Path(__file__).parent / "golden").glob("*.json"))}
