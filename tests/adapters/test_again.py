"""What goes on for hours is judged again when other policies come into force."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client, MCPError
from mcp.client.subscriptions import ResourcesListChanged, ResourceUpdated, SubscriptionLost

from agentguard.adapters.again import Bell, while_allowed
from agentguard.live.inforce import InForce
from tests.publishing import move
from tests.world import World, connected, make_world

READS = '@id("note") permit (principal in Agent::"reader", action == Action::"resources/read/note", resource)'
POLICIES = f"{READS};"
FEWER = f'{READS} unless {{ context.input.note_id == "2" }};'
URIS = ["notes://1", "notes://2"]


def extend(world: World) -> None:
    """Add resources."""

    @world.server.resource("notes://{note_id}")
    @world.guard.resource
    async def note(note_id: str) -> str:
        raise AssertionError(note_id)


def world_of(folder: Path) -> World:
    """Return the world of this module."""
    return make_world(folder, policies=POLICIES, types=None, extend=extend)


async def change(world: World, policies: str) -> None:
    """Put other policies into force."""
    move(world.folder, {"policies.cedar": policies})
    assert (await world.guard.reload()).loaded


async def until_lost(events: Any) -> list[object]:
    """Return what comes on a stream until it is ended from the other side."""
    told: list[object] = []
    with anyio.fail_after(10), suppress(SubscriptionLost):
        while True:
            told.append(await anext(events))
    return told


@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_stream_ends_when_its_run_may_no_longer_listen(transport: Any, tmp_path: Path) -> None:
    """The client is told that lists changed, and then nothing; the record says why."""
    world = world_of(tmp_path / "policies")
    async with (
        connected(world, transport, "2026-07-28") as client,
        client.listen(resource_subscriptions=URIS, resources_list_changed=True) as events,
    ):
        await change(world, FEWER)
        told = await until_lost(events)
        with pytest.raises(MCPError, match="Denied by policy"):
            async with client.listen(resource_subscriptions=URIS):
                raise AssertionError

    assert set(map(type, told)) == {ResourcesListChanged}
    first, second, third, fourth, *_ = world.records()
    effects = [one["agentguard.decision.effect"] for one in (first, second, third, fourth)]
    assert effects == ["allow", "allow", "allow", "deny"]
    assert first["agentguard.policy.version"] == second["agentguard.policy.version"]
    assert third["agentguard.policy.version"] == fourth["agentguard.policy.version"]
    assert second["agentguard.policy.version"] != third["agentguard.policy.version"]
    assert fourth["mcp.method.name"] == "subscriptions/listen"


async def test_stream_that_may_go_on_goes_on(tmp_path: Path) -> None:
    """After one change and another; each judged it."""
    world = world_of(tmp_path / "policies")
    async with (
        connected(world, "memory", "2026-07-28") as client,
        client.listen(resource_subscriptions=["notes://1"]) as events,
    ):
        for policies in (FEWER, POLICIES, FEWER):
            await change(world, policies)
            await anyio.wait_all_tasks_blocked()
        await world.server._subscriptions.publish(ResourceUpdated(uri="notes://1"))
        with anyio.fail_after(10):
            assert await anext(events) == ResourceUpdated(uri="notes://1")

    assert [one["agentguard.decision.effect"] for one in world.records()] == ["allow"] * 4
    assert world.guard._enforcer is not None
    assert len(world.guard._enforcer.in_force._tells) == 1


async def test_stream_of_lists_alone_is_told_and_goes_on(tmp_path: Path) -> None:
    """Nothing was decided in it, so nothing is decided again."""
    world = world_of(tmp_path / "policies")
    async with (
        connected(world, "memory", "2026-07-28") as client,
        client.listen(resources_list_changed=True) as events,
    ):
        await change(world, FEWER)
        with anyio.fail_after(10):
            assert await anext(events) == ResourcesListChanged()

    assert world.records() == []


async def test_list_after_a_reload_shows_what_may_be_used_then(tmp_path: Path) -> None:
    """And a client that keeps lists was told that this one is old."""
    world = make_world(tmp_path / "policies")
    async with Client(world.server, mode="2026-07-28") as client:
        before = await client.list_tools()
        move(world.folder, {"policies.cedar": '@id("a") permit (principal, action == Action::"read", resource);',
                            "types/a.cedarschema": "entity Record in [Tool] = { sensitivity: String };"})  # fmt: skip
        assert (await world.guard.reload()).loaded
        after = await client.list_tools(cache_mode="bypass")

    assert [tool.name for tool in before.tools] == ["read", "export"]
    assert [tool.name for tool in after.tools] == ["read"]


def in_force() -> InForce:
    """Return policies in force, as far as counts here."""
    unused: Any = SimpleNamespace(version="sha256:1", label=None, keep=lambda *_: None)
    return InForce(unused, trail=unused, clock=lambda: 0.0)


async def test_change_while_it_is_judged_first_has_it_judged_again() -> None:
    """Nothing is overlooked between the two."""
    policies, judged = in_force(), 0

    async def judge() -> None:
        nonlocal judged
        judged += 1
        if judged == 1:
            policies.adopt(policies.policies)
        if judged == 2:
            raise LookupError

    with pytest.raises(LookupError):
        await while_allowed(policies, judge, anyio.sleep_forever)

    assert judged == 2


async def test_what_ends_by_itself_gives_what_it_gives() -> None:
    """A result or an error, and nobody is told of changes any more."""
    policies = in_force()

    async def body() -> int:
        await anyio.lowlevel.checkpoint()
        return 7

    async def fails() -> int:
        raise KeyError

    assert await while_allowed(policies, anyio.lowlevel.checkpoint, body) == 7
    with pytest.raises(KeyError):
        await while_allowed(policies, anyio.lowlevel.checkpoint, fails)
    with pytest.raises(KeyError):
        await while_allowed(policies, fails, body)  # type: ignore[arg-type]
    assert policies._tells == {}


async def test_cancellation_passes() -> None:
    """The client has gone."""
    with anyio.move_on_after(0) as scope:
        await while_allowed(in_force(), anyio.lowlevel.checkpoint, anyio.sleep_forever)

    assert scope.cancelled_caught


def test_bell_of_a_loop_that_is_gone_wakes_nobody() -> None:
    """And is no trouble to whoever rings it."""
    bells: list[Bell] = []

    async def main() -> None:
        bells.append(Bell())

    anyio.run(main)

    bells[0].ring()


def test_bell_of_another_loop_wakes_nobody() -> None:
    """What serves does not run there."""

    async def main() -> None:
        bell = Bell()
        bell._loop = None
        bell.ring()
        assert not bell._rung.is_set()

    anyio.run(main)
