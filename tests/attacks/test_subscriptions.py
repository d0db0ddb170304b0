"""Subscribing to a resource needs what reading it needs, and nothing of it runs; a stream ends with its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.subscriptions import ResourceUpdated
from mcp_types import (
    EmptyResult,
    SubscribeRequest,
    SubscribeRequestParams,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)

from agentguard.testing import acting_as
from tests.tokens import Clock
from tests.world import World, connected, make_world

POLICIES = """
@id("note") permit (principal in Agent::"reader", action == Action::"resources/read/note", resource)
unless { context.input.note_id like "secret*" };
@id("record") permit (principal in Agent::"reader", action == Action::"resources/read/record", resource)
unless { resource.sensitivity == "restricted" };
@id("open") permit (principal, action == Action::"resources/read", resource) when { context.input.uri like "open:*" };
"""
TYPES = 'entity Record in [Tool, Resource] = { sensitivity: String, "patient"?: User };'


def extend(world: World) -> None:
    """Add resources that must not be read, and what answers those who subscribe up to 2025-11-25."""
    server = world.server

    @server.resource("notes://{note_id}")
    @world.guard.resource
    async def note(note_id: str) -> str:
        raise AssertionError(note_id)

    @server.resource("records://{record_id}")
    @world.guard.resource(resource="Record::{record_id}")
    async def record(record_id: str) -> str:
        raise AssertionError(record_id)

    @server.resource("open://{name}")
    async def plain(name: str) -> str:
        raise AssertionError(name)

    async def subscribe(_: object, params: SubscribeRequestParams) -> EmptyResult:
        world.ran.append(f"subscribe {params.uri}")
        return EmptyResult()

    async def unsubscribe(_: object, params: UnsubscribeRequestParams) -> EmptyResult:
        world.ran.append(f"unsubscribe {params.uri}")
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


def world_of(folder: Path, **options: Any) -> World:
    """Return the world of this module."""
    return make_world(folder, policies=POLICIES, types=TYPES, extend=extend, **options)


ALLOWED = ("notes://1", "records://r1", "open://x", "open:absent")
DENIED = ("notes://secret-1", "notes://%73ecret", "records://r9", "absent://x", "")


@pytest.mark.parametrize("uri", ALLOWED + DENIED)
async def test_subscribing_needs_what_reading_needs(uri: str, tmp_path: Path) -> None:
    """The decision is made and recorded under its own method; the resource's function does not run."""
    world = world_of(tmp_path)

    async with connected(world, "memory", "2025-11-25") as client:
        for request in (
            SubscribeRequest(params=SubscribeRequestParams(uri=uri)),
            UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri)),
        ):
            if uri in ALLOWED:
                await client.session.send_request(request, EmptyResult)
            else:
                with pytest.raises(MCPError, match="Denied by policy"):
                    await client.session.send_request(request, EmptyResult)

    assert world.ran == ([f"subscribe {uri}", f"unsubscribe {uri}"] if uri in ALLOWED else [])
    assert [one["mcp.method.name"] for one in world.records()] == ["resources/subscribe", "resources/unsubscribe"]
    assert {one["agentguard.decision.effect"] for one in world.records()} == {
        "allow" if uri in ALLOWED else "deny",
    }


@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_listening_for_a_resource_needs_what_reading_needs(transport: Any, tmp_path: Path) -> None:
    """For each that is named: one that may not be read refuses the whole."""
    world = world_of(tmp_path)

    async with connected(world, transport, "2026-07-28") as client:
        async with client.listen(resource_subscriptions=ALLOWED) as events:
            await world.server._subscriptions.publish(ResourceUpdated(uri="notes://1"))
            assert await anext(events) == ResourceUpdated(uri="notes://1")
        for uri in DENIED:
            with pytest.raises(MCPError, match="Denied by policy"):
                async with client.listen(resource_subscriptions=["notes://1", uri]):
                    raise AssertionError

    effects = [one["agentguard.decision.effect"] for one in world.records()]
    assert effects == ["allow"] * len(ALLOWED) + ["allow", "deny"] * len(DENIED)
    assert {one["mcp.method.name"] for one in world.records()} == {"subscriptions/listen"}


async def test_listening_for_lists_needs_an_identity_alone(tmp_path: Path) -> None:
    """Nothing is decided; without an identity there is no stream."""
    world = world_of(tmp_path)

    async with connected(world, "memory", "2026-07-28") as client, client.listen(tools_list_changed=True):
        assert world.records() == []

    nobody = make_world(tmp_path / "b", policies=POLICIES, types=TYPES, extend=extend, agent=None)
    async with Client(nobody.server, mode="2026-07-28") as client:
        with pytest.raises(MCPError, match="no identity that can be verified"):
            async with client.listen(tools_list_changed=True):
                raise AssertionError
    assert nobody.records()[0]["agentguard.decision.reason"] == "unauthenticated"


async def test_stream_ends_when_its_run_is_ended(tmp_path: Path) -> None:
    """It would otherwise tell a run that is over of every change."""
    world = world_of(tmp_path)

    with acting_as("reader", run_id="run-1") as invocation:
        async with (
            Client(world.server, mode="2026-07-28") as client,
            client.listen(resource_subscriptions=["notes://1"]) as events,
        ):
            world.state.store.revoke(issuer=invocation.issuer, run_id="run-1", reason="test")
            with pytest.raises(SubscriptionLost), anyio.fail_after(20):
                await anext(events)

    assert world.records()[-1]["agentguard.decision.reason"] == "revoked"


async def test_stream_does_not_begin_after_its_run(tmp_path: Path) -> None:
    """One that expired is as over as one that was ended."""
    clock = Clock()
    world = world_of(tmp_path, clock=clock)

    async with connected(world, "memory", "2026-07-28") as client:
        clock.now += 10**9
        with pytest.raises(MCPError, match="Start a new run"):
            async with client.listen(tools_list_changed=True):
                raise AssertionError


async def test_more_resources_than_the_limit_are_refused(tmp_path: Path) -> None:
    """Each costs a decision."""
    world = world_of(tmp_path)
    uris = [f"notes://{number}" for number in range(1_001)]

    async with connected(world, "memory", "2026-07-28") as client:
        with pytest.raises(MCPError, match="cannot be judged safely"):
            async with client.listen(resource_subscriptions=uris):
                raise AssertionError

    assert len(world.records()) == 1
