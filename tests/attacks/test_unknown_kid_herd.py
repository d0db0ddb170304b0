"""The trap: pyjwt's key client fetches for each unknown key id, again and again while the endpoint fails."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from agentguard.errors import Refusal
from agentguard.identity.keys import JWKS
from tests.key_server import KeyServer, Reply
from tests.tokens import KEY_ID, Clock, make_jwks

HERD = 50


async def ask(keys: JWKS, key_id: str) -> None:
    """Ask for a key, content with a refusal."""
    with suppress(Refusal):
        await keys.get(key_id)


async def test_herd_of_callers_is_one_fetch() -> None:
    """A server that starts under load asks its issuer once."""
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=Clock())

        async with anyio.create_task_group() as herd:
            for _ in range(HERD):
                herd.start_soon(keys.get, KEY_ID)

        assert server.asked == ["/keys"]


async def test_herd_of_invented_key_ids_is_one_fetch() -> None:
    """Whoever can send tokens cannot make us hammer the issuer."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=clock)
        await keys.get(KEY_ID)
        clock.now += 10

        async with anyio.create_task_group() as herd:
            for number in range(HERD):
                herd.start_soon(keys.get, f"invented-{number}")
        for number in range(HERD):
            await keys.get(f"later-{number}")

        assert server.asked == ["/keys"] * 2


async def test_endpoint_that_fails_is_asked_once_in_each_pause() -> None:
    """An endpoint in trouble is not pushed further down."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply(b"", status=503)
        keys = JWKS(url=f"{server.url}/keys", clock=clock)

        async with anyio.create_task_group() as herd:
            for _ in range(HERD):
                herd.start_soon(ask, keys, KEY_ID)
        clock.now += 9
        await ask(keys, KEY_ID)
        assert server.asked == ["/keys"]

        clock.now += 1
        server.replies["/keys"] = Reply.of(make_jwks())
        assert list(await keys.get(KEY_ID)) == [KEY_ID]


async def test_new_key_is_found_after_the_pause() -> None:
    """A key that the issuer has just begun to use is not unknown for long."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=clock)
        await keys.get(KEY_ID)
        server.replies["/keys"] = Reply.of(make_jwks(key_id="key-2"))

        assert "key-2" not in await keys.get("key-2")
        clock.now += 10
        assert "key-2" in await keys.get("key-2")


async def test_endpoint_that_fails_before_it_ever_answered_is_a_refusal() -> None:
    """Without keys nothing can be believed."""
    with KeyServer() as server, pytest.raises(Refusal):
        await JWKS(url=f"{server.url}/keys").get(KEY_ID)
