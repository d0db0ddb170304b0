"""The trap: pyjwt's key client reads whatever the endpoint sends, to the end."""

from __future__ import annotations

import gzip
import json

import pytest

from agentguard.errors import Refusal
from agentguard.identity.keys import JWKS
from tests.key_server import KeyServer, Reply
from tests.tokens import KEY_ID, make_jwks

BIG = json.dumps({**make_jwks(), "filler": "x" * 512 * 1024}).encode()


async def test_key_set_above_the_bound_is_refused() -> None:
    """An endpoint that was taken over cannot fill our memory."""
    with KeyServer() as server:
        server.replies["/keys"] = Reply(BIG)

        with pytest.raises(Refusal):
            await JWKS(url=f"{server.url}/keys").get(KEY_ID)


async def test_key_set_that_unpacks_above_the_bound_is_refused() -> None:
    """Nothing is unpacked, so nothing small becomes large."""
    with KeyServer() as server:
        server.replies["/keys"] = Reply(gzip.compress(BIG), headers=((b"content-encoding", b"gzip"),))

        with pytest.raises(Refusal):
            await JWKS(url=f"{server.url}/keys").get(KEY_ID)


async def test_key_set_at_the_bound_is_accepted() -> None:
    """The bound is the last size that passes."""
    filler = 512 * 1024 - len(json.dumps({**make_jwks(), "filler": ""}))
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of({**make_jwks(), "filler": "x" * filler})

        assert list(await JWKS(url=f"{server.url}/keys").get(KEY_ID)) == [KEY_ID]
