"""An assertion that nobody signed, or that was signed with what everybody knows.

`alg` is the sender's choice. With ``none`` there is no signature to check; with HS256 a
careless verifier takes the client's *public* key for a secret.
"""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.lifecycle.service import PLANNER_KEY, Service, make_assertion, refusal
from tests.tokens import base64url, make_jwks, sign


def secrets() -> list[bytes]:
    """Return what is public of a client's key, as a verifier might hold it."""
    public = PLANNER_KEY.public_key()
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        json.dumps(make_jwks(PLANNER_KEY, "planner")).encode(),
        b"",
    ]


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
async def test_unsigned_assertion_proves_nothing(algorithm: str) -> None:
    """With any signature, or with an empty one."""
    service = Service()
    claims = make_assertion().split(".")[1]
    header = base64url(json.dumps({"alg": algorithm, "kid": "planner", "typ": "JWT"}).encode())

    for signature in ("", "AA", make_assertion().split(".")[2]):
        response = await service.exchange(client_assertion=f"{header}.{claims}.{signature}")
        assert refusal(response) == (401, "invalid_client")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", secrets(), ids=("pem", "der", "point", "jwks", "empty"))
async def test_public_key_is_no_secret(algorithm: str, secret: bytes) -> None:
    """Nothing symmetric is accepted, whatever it was signed with."""
    service = Service()
    claims = make_assertion().split(".")[1]
    raw = json.dumps(_decoded(claims)).encode()
    forged = sign(raw, header={"kid": "planner", "typ": "JWT"}, key=secret, algorithm=algorithm)

    assert refusal(await service.exchange(client_assertion=forged)) == (401, "invalid_client")


def _decoded(segment: str) -> object:
    import base64

    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
