"""Awaiting something that was cancelled raises what being cancelled raises: it must not end the session."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypedDict

from mcp import Client

from agentguard import Entity
from agentguard.host.cancelled import is_stray
from tests.world import World, make_world, meta

ALL = '@id("all") permit (principal, action, resource);'


async def cancelled() -> None:
    """Await a task that was cancelled."""
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


class Facts(TypedDict):
    """What facts add."""

    number: int


def extend(world: World) -> None:
    """Add a loader, facts and a tool that let such an exception through."""

    @world.guard.entity("File")
    async def file(_: str) -> Entity:
        await cancelled()
        return Entity()

    @world.server.tool()
    @world.guard.tool(resource="File::{name}")
    async def open_file(name: str) -> None:
        world.ran.append("open_file")

    def facts(number: int) -> Facts:
        raise asyncio.CancelledError

    @world.server.tool()
    @world.guard.tool(facts=facts)
    async def count(number: int) -> None:
        world.ran.append("count")

    @world.server.tool()
    @world.guard.tool
    async def wait() -> None:
        await cancelled()


async def test_stray_cancellation_is_an_ordinary_failure(tmp_path: Path) -> None:
    """A loader's or facts' denies, a tool's is a failure, and the session goes on."""
    world = make_world(tmp_path, policies=ALL, extend=extend)

    async with Client(world.server, mode="legacy") as client:
        loader = await client.call_tool("open_file", {"name": "x"})
        facts = await client.call_tool("count", {"number": 1})
        tool = await client.call_tool("wait", {})
        after = await client.call_tool("read", {"record_id": "r1"})

    assert meta(loader)["reason"] == "denied"
    assert meta(facts)["reason"] == "unavailable"
    assert tool.is_error
    assert not after.is_error
    assert world.ran == ["read r1"]
    assert world.records("outcome")[0]["agentguard.execution.outcome"] == "failed"


def test_only_a_cancellation_can_be_stray() -> None:
    """Other exceptions are what they are, and outside of any task nothing was cancelled."""
    assert not is_stray(KeyboardInterrupt())


async def test_cancellation_of_the_running_task_is_not_stray() -> None:
    """A task that really is being cancelled has to end."""
    seen: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen.append(is_stray(error))
            raise

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert seen == [False]
