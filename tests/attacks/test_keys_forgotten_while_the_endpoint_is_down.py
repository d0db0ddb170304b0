"""The trap: pyjwt's key client forgets good keys when they grow old and the endpoint is down."""

from __future__ import annotations

import pytest

from agentguard.errors import Refusal
from agentguard.identity.keys import JWKS
from agentguard.model import Reason
from tests.key_server import KeyServer, Reply
from tests.tokens import KEY_ID, Clock, make_jwks


async def test_keys_serve_on_while_the_endpoint_is_down() -> None:
    """An outage of the issuer is not an outage of the server."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=clock)
        await keys.get(KEY_ID)
        server.replies["/keys"] = Reply(b"", status=503)

        for _ in range(11):
            clock.now += 300
            assert list(await keys.get(KEY_ID)) == [KEY_ID]
        assert len(server.asked) == 12


async def test_keys_that_are_too_old_are_refused() -> None:
    """Serving on is bounded: a withdrawn key must not live as long as an outage can be kept up."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=clock)
        await keys.get(KEY_ID)
        server.replies["/keys"] = Reply(b"", status=503)

        clock.now += 3600
        for _ in range(2):
            with pytest.raises(Refusal) as caught:
                await keys.get(KEY_ID)
            assert caught.value.reason is Reason.UNAUTHENTICATED
