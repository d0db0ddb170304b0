"""The trap: pyjwt's key client fetches synchronously, under a lock that everybody needs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from agentguard.identity.keys import JWKS
from tests.key_server import KeyServer, Reply
from tests.tokens import KEY_ID, Clock, make_jwks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def fetching(keys: JWKS, key_id: str, server: KeyServer) -> AbstractAsyncContextManager[None]:
    """While this lasts, one caller fetches for *key_id* and the endpoint does not answer."""
    over: list[bool] = []

    async def fetch() -> None:
        await keys.get(key_id)
        over.append(True)

    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        server.gate.clear()
        server.arrived.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            await anyio.to_thread.run_sync(server.arrived.wait)
            try:
                yield
                # Whoever had to wait for it would have come back after it.
                assert not over
            finally:
                server.gate.set()

    return context()


async def test_known_key_is_given_while_a_fetch_for_an_unknown_one_hangs() -> None:
    """A caller that invents a key id delays nobody else."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=clock)
        await keys.get(KEY_ID)
        clock.now += 10

        async with fetching(keys, "invented", server):
            assert list(await keys.get(KEY_ID)) == [KEY_ID]


async def test_old_keys_serve_while_the_fetch_of_new_ones_hangs() -> None:
    """One caller waits for the refresh; the others go on."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of(make_jwks())
        keys = JWKS(url=f"{server.url}/keys", clock=clock)
        await keys.get(KEY_ID)
        clock.now += 300

        async with fetching(keys, KEY_ID, server):
            assert list(await keys.get(KEY_ID)) == [KEY_ID]

        assert server.asked == ["/keys"] * 2
