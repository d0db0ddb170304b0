"""The trap: a remembered verification outlives the key that it rests on."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from agentguard.errors import Refusal
from agentguard.identity.keys import JWKS
from agentguard.identity.verifier import InvocationVerifier
from tests.key_server import KeyServer, Reply
from tests.tokens import AUDIENCE, ISSUER, KEY_ID, NOW, TRUSTED, Clock, make_jwks, make_token

OTHER_KEY = generate_private_key(SECP256R1())


@pytest.mark.parametrize(
    "later",
    [{"keys": []}, make_jwks(key_id="key-2"), make_jwks(OTHER_KEY, KEY_ID)],
    ids=["none", "another", "another under the same id"],
)
async def test_remembered_token_is_refused_once_its_key_is_withdrawn(later: dict[str, object]) -> None:
    """An issuer withdraws a key because somebody else has it."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", refresh_seconds=60, clock=clock)
        verifier = InvocationVerifier(TRUSTED, audience=AUDIENCE, keys={ISSUER: keys}, clock=lambda: float(NOW))
        token = make_token()
        await verifier.verify(token)
        server.replies["/keys"] = Reply.of(later)

        clock.now += 60

        with pytest.raises(Refusal):
            await verifier.verify(token)


async def test_remembered_token_is_kept_while_its_key_is_published() -> None:
    """A refresh that changes nothing verifies nothing again."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", refresh_seconds=60, clock=clock)
        verifier = InvocationVerifier(TRUSTED, audience=AUDIENCE, keys={ISSUER: keys}, clock=lambda: float(NOW))
        token = make_token()
        first = await verifier.verify(token)

        clock.now += 60

        assert await verifier.verify(token) is first
        assert server.asked == ["/keys"] * 2
