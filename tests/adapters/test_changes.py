"""Clients are told when what they listed may have changed, and no others are."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.subscriptions import ResourcesListChanged, SubscriptionLost, ToolsListChanged
from mcp.server.connection import Connection
from mcp_types import (
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    ToolListChangedNotification,
)

from agentguard import Entity
from agentguard.adapters.changes import Changes
from agentguard.lifecycle.store import Kind, MemoryStore
from agentguard.model import Invocation
from agentguard.testing import unsafe_invocation
from tests.adapters.test_listing import POLICY, extend
from tests.world import ERAS, TYPES, World, http_client, make_world, served

FORMER, LATTER = ERAS


class Heard:
    """What a client was told."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self._more = anyio.Event()

    async def __call__(self, message: Any) -> None:
        """Take one message."""
        self.methods.append(getattr(message, "method", type(message).__name__))
        self._more.set()

    async def wait_for(self, number: int) -> list[str]:
        """Wait until there were so many, and return them."""
        with anyio.fail_after(20):
            while len(self.methods) < number:
                self._more = anyio.Event()
                await self._more.wait()
        return self.methods


@asynccontextmanager
async def listening(url: str, token: str, era: Any = FORMER) -> AsyncIterator[tuple[Client, Heard]]:
    """Connect over HTTP, and note what is told there."""
    heard, opened = Heard(), anyio.Event()

    async def answered(response: httpx2.Response) -> None:
        if response.request.method == "GET":
            opened.set()

    hooks = {"response": [answered]}
    async with http_client(url, token, era, hooks=hooks, message_handler=heard) as client:
        if era == FORMER:
            # What is told before the client has its stream is lost.
            await opened.wait()
        yield client, heard


async def add_tool(world: World, name: str) -> None:
    """Add a guarded tool while the server runs; the guard learns of it with the next message."""

    @world.server.tool(name=name)
    @world.guard.tool
    def added() -> str:
        return name


async def test_end_of_a_run_is_told_to_the_connections_that_listed_for_it(tmp_path: Path) -> None:
    """For each kind of what they listed, once; who listed for another run, or nothing, is not told."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    async with (
        served(world) as url,
        listening(url, world.token(run="mine")) as (mine, heard),
        listening(url, world.token(run="other")) as (other, unheard),
        listening(url, world.token(run="mine")) as (_, silent),
    ):
        for client in (mine, other):
            await client.list_tools()
            await client.list_tools()
            await client.list_resource_templates()
        world.guard.revoke("mine")
        told = list(await heard.wait_for(2))
        with pytest.raises(MCPError):
            await mine.list_tools()
        world.guard.revoke("other")
        await unheard.wait_for(2)

    assert told == ["notifications/tools/list_changed", "notifications/resources/list_changed"]
    assert silent.methods == []


async def test_change_of_policies_is_told_to_everybody_who_listed(tmp_path: Path) -> None:
    """A tool that comes while the server runs brings other policies with it."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    async with served(world) as url, listening(url, world.token()) as (client, heard):
        await client.list_prompts()
        await add_tool(world, "late")
        await client.list_prompts()
        told = await heard.wait_for(1)

    assert told == ["notifications/prompts/list_changed"]


async def test_change_while_a_list_is_made_is_told_too(tmp_path: Path) -> None:
    """That list does not have it, and no other would be asked for."""
    known = anyio.Event()
    waits = anyio.Event()

    def slow(world: World) -> None:
        @world.guard.entity("Agent")
        async def agent(_: str) -> Entity:
            waits.set()
            await known.wait()
            return Entity({})

    types = f"{TYPES} entity Agent in [Group]; entity Group;"
    world = make_world(tmp_path, policies='@id("a") permit (principal, action, resource);', types=types, extend=slow)

    async with (
        served(world) as url,
        listening(url, world.token()) as (client, heard),
        listening(url, world.token()) as (other, _),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.list_tools)
        await waits.wait()
        await add_tool(world, "late")
        tasks.start_soon(other.list_tools)
        await heard.wait_for(1)
        known.set()

    assert heard.methods[0] == "notifications/tools/list_changed"


async def test_stream_is_told_of_a_change_of_policies_in_its_own_words(tmp_path: Path) -> None:
    """Only what the client asked for, and on that stream alone."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    async with (
        served(world) as url,
        listening(url, world.token(), LATTER) as (client, heard),
        client.listen(tools_list_changed=True) as stream,
    ):
        await client.list_prompts()
        await add_tool(world, "late")
        await client.list_prompts(cache_mode="bypass")
        with anyio.fail_after(20):
            event = await anext(aiter(stream))

    assert event == ToolsListChanged()
    assert heard.methods == ["notifications/tools/list_changed"]


async def test_stream_of_a_run_ends_with_it_and_that_is_the_last_thing_said(tmp_path: Path) -> None:
    """So that the client lists again, and is refused."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    async with (
        served(world) as url,
        listening(url, world.token(run="mine"), LATTER) as (client, _),
        client.listen(
            tools_list_changed=True, resources_list_changed=True, resource_subscriptions=["notes://all"]
        ) as stream,
    ):
        world.guard.revoke("mine")
        with anyio.fail_after(20):
            events = [await anext(aiter(stream)), await anext(aiter(stream))]
            with pytest.raises(SubscriptionLost):
                await anext(aiter(stream))

    assert events == [ToolsListChanged(), ResourcesListChanged()]


@pytest.mark.parametrize("stateless", [False, True])
async def test_lists_are_announced_as_changing_where_that_can_be_told(stateless: bool, tmp_path: Path) -> None:
    """A server without sessions has no way to a client that asks nothing."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    async with served(world, stateless=stateless) as url, http_client(url, world.token(), FORMER) as client:
        capabilities = client.server_capabilities

    assert capabilities is not None
    assert capabilities.tools is not None
    assert capabilities.prompts is not None
    assert capabilities.resources is not None
    told = {capabilities.tools.list_changed, capabilities.prompts.list_changed, capabilities.resources.list_changed}
    assert told == {not stateless}


class Channel:
    """Where a connection's notifications go; they wait while it is closed."""

    def __init__(self, *, broken: bool = False) -> None:
        self.sent: list[str] = []
        self.open = anyio.Event()
        self.waiting = anyio.Event()
        self._more = anyio.Event()
        self._broken = broken

    async def wait_for(self, number: int) -> None:
        """Wait until so many were sent."""
        with anyio.fail_after(20):
            while len(self.sent) < number:
                self._more = anyio.Event()
                await self._more.wait()

    async def notify(self, method: str, params: object, opts: object = None) -> None:
        """Send one."""
        self.waiting.set()
        await self.open.wait()
        self.sent.append(method)
        self._more.set()
        if self._broken:
            raise OSError

    async def send_raw_request(self, *_: object) -> dict[str, Any]:
        """Refuse: nothing here asks."""
        raise NotImplementedError


def ctx(connection: Connection, method: str = "tools/list", version: str = FORMER) -> Any:
    """Return as much of a request as counts here."""
    return SimpleNamespace(
        session=SimpleNamespace(_connection=connection), method=method, protocol_version=version, request_id=1
    )


@dataclass
class Request:
    """As much of a request for a stream."""

    session: Any
    request_id: int = 1


def connection(channel: Channel) -> Connection:
    """Return a connection over a channel."""
    return Connection(channel, protocol_version=FORMER)


@pytest.fixture
def store() -> MemoryStore:
    """Return a store."""
    return MemoryStore(clock=lambda: 0.0)


def end(store: MemoryStore, invocation: Invocation) -> None:
    """End a run."""
    store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)


def end_all(store: MemoryStore, runs: list[Invocation]) -> None:
    """End several runs, one after the other."""
    for run in runs:
        end(store, run)


async def test_client_that_does_not_read_is_told_once_for_many_changes(store: MemoryStore) -> None:
    """What waits for it does not grow, from whichever thread the ends come."""
    changes, channel = Changes(store), Channel()
    there = connection(channel)
    runs = [unsafe_invocation("a") for _ in range(20)]
    for run in runs:
        changes.listed(ctx(there), run)

    end(store, runs[0])
    await channel.waiting.wait()
    await anyio.to_thread.run_sync(end_all, store, runs[1:])
    await anyio.lowlevel.checkpoint()
    channel.open.set()
    await channel.wait_for(2)
    await anyio.wait_all_tasks_blocked()

    assert channel.sent == ["notifications/tools/list_changed"] * 2


async def test_client_that_is_told_of_changes_as_they_come_is_not_remembered(store: MemoryStore) -> None:
    """From 2026-07-28 on nothing may be said where no stream was opened for it."""
    changes, channel, run = Changes(store), Channel(), unsafe_invocation("a")
    there = connection(channel)

    changes.listed(ctx(there, version=LATTER), run)

    assert len(changes._connections) == 0


def test_loop_that_is_gone_has_nobody_to_tell(store: MemoryStore) -> None:
    """And is no trouble for whoever ends the run."""
    run, channel = unsafe_invocation("a"), Channel()
    there = connection(channel)

    async def main() -> None:
        Changes(store).listed(ctx(there), run)

    anyio.run(main)
    end(store, run)

    assert channel.sent == []
    assert store.ended(run)


def test_loop_of_another_kind_has_nobody_to_tell(store: MemoryStore) -> None:
    """Lists are answered all the same."""
    changes, run, channel = Changes(store), unsafe_invocation("a"), Channel()
    there = connection(channel)

    changes.listed(ctx(there), run)
    end(store, run)

    assert channel.sent == []


async def test_client_that_is_gone_is_no_trouble_and_is_forgotten(store: MemoryStore) -> None:
    """Neither an error on its channel nor the connection itself is kept."""
    changes, channel, run = Changes(store), Channel(broken=True), unsafe_invocation("a")
    channel.open.set()
    there = connection(channel)
    changes.listed(ctx(there), run)

    end(store, run)
    await channel.wait_for(1)
    await anyio.wait_all_tasks_blocked()
    changes.policies()
    del there
    gc.collect()
    await anyio.wait_all_tasks_blocked()

    assert len(changes._connections) == 0
    assert channel.sent == ["notifications/tools/list_changed"]


async def test_ended_agent_or_parent_is_told_like_an_ended_run(store: MemoryStore) -> None:
    """Any link of the chain; of a connection whose messages name many runs, the newest count."""
    changes, channel = Changes(store), Channel()
    channel.open.set()
    there = connection(channel)
    parent = unsafe_invocation("planner")
    changes.listed(ctx(there), child := unsafe_invocation("a", ancestors=(parent,)))
    for number in range(62):
        changes.listed(ctx(there), unsafe_invocation("b", run_id=f"b{number}"))

    end(store, parent)
    await channel.wait_for(1)
    for agent in ("b", "c"):
        changes.listed(ctx(there), unsafe_invocation(agent))
    end(store, child)
    store.revoke_all(issuer=child.issuer, kind=Kind.AGENT, name="c")
    await channel.wait_for(2)
    await anyio.wait_all_tasks_blocked()

    assert len(channel.sent) == 2


async def test_nothing_is_said_on_a_stream_before_it_was_acknowledged() -> None:
    """What changes before that is said right after it."""
    sent: list[str] = []
    opening = anyio.Event()

    class Session:
        async def send_notification(self, notification: Any, related_request_id: object = None) -> None:
            await opening.wait()
            sent.append(notification.method)

        known = "to whoever asks for more"

    changes = Changes(MemoryStore(clock=lambda: 0.0))
    request = Request(session=Session())

    async def handler(own: Any, _: object, call_next: Any) -> Any:
        return await call_next(own)

    async def listen(own: Any) -> dict[str, object]:
        assert own.session.known == "to whoever asks for more"
        changes.policies()
        await anyio.wait_all_tasks_blocked()
        asked = SubscriptionFilter(tools_list_changed=True)
        params = SubscriptionsAcknowledgedNotificationParams(notifications=asked)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(own.session.send_notification, SubscriptionsAcknowledgedNotification(params=params), 1)
            await anyio.wait_all_tasks_blocked()
            opening.set()
        await anyio.wait_all_tasks_blocked()
        changes.policies()
        await anyio.wait_all_tasks_blocked()
        await own.session.send_notification(ToolListChangedNotification(), 1)
        return {}

    assert await changes.listening(handler)(request, None, listen) == {}  # type: ignore[arg-type]

    assert sent == ["notifications/subscriptions/acknowledged"] + ["notifications/tools/list_changed"] * 3
    changes.policies()
    await anyio.wait_all_tasks_blocked()
    assert len(sent) == 4


async def test_stream_that_cannot_be_written_to_still_ends_with_the_refusal() -> None:
    """The client is gone, and what is left is for the log."""

    class Session:
        async def send_notification(self, notification: Any, related_request_id: object = None) -> None:
            if isinstance(notification, ToolListChangedNotification):
                raise OSError

    async def handler(own: Any, _: object, call_next: Any) -> Any:
        await call_next(own)
        raise MCPError(code=1, message="refused")

    async def listen(own: Any) -> None:
        asked = SubscriptionFilter(tools_list_changed=True)
        params = SubscriptionsAcknowledgedNotificationParams(notifications=asked)
        await own.session.send_notification(SubscriptionsAcknowledgedNotification(params=params))

    changes = Changes(MemoryStore(clock=lambda: 0.0))
    with pytest.raises(MCPError, match="refused"):
        await changes.listening(handler)(Request(session=Session()), None, listen)  # type: ignore[arg-type]


async def test_stream_that_never_began_has_no_last_word() -> None:
    """It is refused, and that is all."""
    request = Request(session=None)

    async def handler(*_: object) -> Any:
        raise MCPError(code=1, message="refused")

    with pytest.raises(MCPError):
        await Changes(MemoryStore(clock=lambda: 0.0)).listening(handler)(request, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("result", [None, {}, {"capabilities": None}])
def test_answer_without_capabilities_is_left_as_it_is(result: Any, store: MemoryStore) -> None:
    """There is nothing to announce in it."""
    assert Changes(store).announced(ctx(connection(Channel())), result) is result
