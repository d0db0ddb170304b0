"""Policies that change while a call is judged, while a person is asked, and while a tool runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastmcp import Client as FastClient
from fastmcp import FastMCP
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from mcp import Client
from mcp.server.mcpserver import Context
from pydantic import AfterValidator

from agentguard import Approval, ApprovalRequest, Issuer
from agentguard.testing import acting_as
from tests.publishing import move
from tests.tokens import Clock
from tests.world import AUDIENCE, ISSUER, World, connected, make_guard, make_world, meta, text

ALL = '@id("all") permit (principal, action, resource);'
NONE = '@id("none") permit (principal in Agent::"nobody", action, resource);'
ASKS = f"""{ALL}
@id("asks") @obligation("approval") forbid (principal, action == Action::"export", resource)
unless {{ context has approval }};"""


MEANWHILE: list[Callable[[], None]] = []


def validated(value: str) -> str:
    """Do what is to be done between the guard's preflight and its decision, where frameworks validate."""
    while MEANWHILE:
        MEANWHILE.pop()()
    return value


async def change(world: World, policies: str) -> str:
    """Put other policies into force, and return their version."""
    move(world.folder, {"policies.cedar": policies})
    done = await world.guard.reload()
    assert done.loaded, done
    return done.version


def versions(world: World) -> list[str]:
    """Return by which version each decision was made."""
    return [one["agentguard.policy.version"] for one in world.records()]


async def test_call_is_judged_by_the_version_of_its_preflight(tmp_path: Path) -> None:
    """What comes into force between the two judges the next one."""
    changed: list[str] = []

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def slow(value: Annotated[str, AfterValidator(validated)]) -> str:
            return value

    world = make_world(tmp_path / "policies", policies=ALL, types=None, extend=extend)

    def reload_now() -> None:
        move(world.folder, {"policies.cedar": NONE})
        changed.append(world.guard._reloading.check().version)

    MEANWHILE.append(reload_now)
    async with connected(world, "memory", "2026-07-28") as client:
        first = await client.call_tool("slow", {"value": "x"})
        second = await client.call_tool("slow", {"value": "x"})

    assert (text(first), second.is_error) == ("x", True)
    one, other = versions(world)
    assert other == changed[0]
    assert one != other


async def test_tool_that_runs_goes_on_and_what_it_calls_in_turn_is_judged_anew(tmp_path: Path) -> None:
    """It may run for hours: what is forbidden by then is forbidden to it too."""
    go_on, runs = anyio.Event(), anyio.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def outer(ctx: Context[Any, Any]) -> str:
            runs.set()
            await go_on.wait()
            nested = await ctx.mcp_server.call_tool("export", {"max_rows": 1})
            return f"nested {getattr(nested, 'is_error', None)}"

    world = make_world(tmp_path / "policies", policies=ALL, types=None, extend=extend)
    answers: list[Any] = []

    async def call(client: Client) -> None:
        answers.append(await client.call_tool("outer", {}))

    async with connected(world, "memory", "2026-07-28") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(call, client)
        await runs.wait()
        await change(world, ALL.replace("resource)", 'resource) when { action != Action::"export" }'))
        go_on.set()

    assert meta(answers[0])["reason"] == "denied"
    assert world.ran == []
    outer, nested = world.records()
    assert (outer["agentguard.decision.effect"], nested["agentguard.decision.effect"]) == ("allow", "deny")
    assert outer["agentguard.policy.version"] != nested["agentguard.policy.version"]
    (outcome,) = world.records("outcome")
    assert outcome["agentguard.execution.outcome"] == "failed"


@pytest.mark.parametrize("policies", [NONE, f"// the same, in other words\n{ASKS}"], ids=["stricter", "the same"])
async def test_yes_to_what_other_policies_asked_is_for_nothing(policies: str, tmp_path: Path) -> None:
    """The person saw what the old ones asked; the call is judged by the new ones, and not by both."""
    worlds: list[World] = []

    async def approver(_: ApprovalRequest) -> Approval:
        await change(worlds[0], policies)
        return Approval()

    world = make_world(tmp_path / "policies", policies=ASKS, types=None, approver=approver)
    worlds.append(world)
    async with connected(world, "memory", "2026-07-28") as client:
        denied = await client.call_tool("export", {"max_rows": 1})

    assert denied.is_error
    assert world.ran == []
    (record,) = world.records()
    assert record["agentguard.policy.version"] == world.records("policy")[0]["agentguard.policy.version"]
    assert record["agentguard.decision.reason"] in {"approval_invalid", "no_permit"}


async def test_reloads_at_once_take_turns(tmp_path: Path) -> None:
    """Each change comes into force once, whoever asked for it."""
    world = make_world(tmp_path / "policies", policies=ALL, types=None)
    done: list[Any] = []

    async def reload() -> None:
        done.append(await world.guard.reload())

    for number in range(3):
        move(world.folder, {"policies.cedar": f"// {number}\n{ALL}"})
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(reload)

    assert [one.loaded for one in done].count(True) == 3
    assert len(world.records("policy")) == 3
    previous = [one["agentguard.policy.previous"] for one in world.records("policy")]
    assert previous[1:] == [one["agentguard.policy.version"] for one in world.records("policy")][:-1]


async def test_reload_that_nobody_waits_for_any_more_is_whole_all_the_same(tmp_path: Path) -> None:
    """Whoever asked for it may be cancelled at any moment."""
    world = make_world(tmp_path / "policies", policies=ALL, types=None)
    move(world.folder, {"policies.cedar": NONE})
    with anyio.CancelScope() as scope:
        scope.cancel()
        await world.guard.reload()
    await world.guard.reload()

    async with connected(world, "memory", "2026-07-28") as client:
        assert (await client.call_tool("export", {"max_rows": 1})).is_error
    assert len(world.records("policy")) == 1


async def test_answers_that_a_framework_keeps_are_not_given_under_other_policies(tmp_path: Path) -> None:
    """Its cache knows neither who asks nor what changed."""
    world = cached_world(tmp_path / "policies")
    with acting_as("reader"):
        async with FastClient(world.server) as client:
            listed = [tool.name for tool in await client.list_tools()]
            first = await client.call_tool("export", {"max_rows": 1}, raise_on_error=False)
            move(world.folder, {"policies.cedar": NONE})
            assert (await world.guard.reload()).loaded
            later = [tool.name for tool in await client.list_tools()]
            second = await client.call_tool("export", {"max_rows": 1}, raise_on_error=False)

    assert (listed, later) == (["export"], [])
    assert second.is_error
    assert not first.is_error or world.ran == []
    assert world.records()[-1]["agentguard.decision.effect"] == "deny"


def cached_world(folder: Path) -> World:
    """Return a FastMCP server that keeps answers."""
    folder.mkdir(parents=True)
    (folder / "policies.cedar").write_text(ALL)
    guard, exporter = make_guard(folder, issuer := Issuer(issuer=ISSUER, audience=AUDIENCE))
    server: Any = FastMCP("records", middleware=[ResponseCachingMiddleware()])
    world = World(guard, server, guard.state, exporter, issuer, folder)

    @server.tool  # type: ignore[untyped-decorator]
    @guard.tool
    async def export(max_rows: int) -> str:
        world.ran.append(f"export {max_rows}")
        return "ran"

    guard.attach(server)
    return world


async def test_policies_that_grew_too_old_stop_what_is_judged_and_not_what_runs(tmp_path: Path) -> None:
    """A call that is running was judged in time."""
    clock = Clock()
    worlds: list[World] = []

    def extend(world: World) -> None:
        worlds.append(world)

        @world.server.tool()
        @world.guard.tool
        async def ages() -> str:
            clock.now += 100
            return "ran"

    world = make_world(tmp_path / "policies", policies=ALL, types=None, extend=extend, clock=clock, max_policy_age=60)
    with acting_as("reader", at=clock.now):
        async with Client(world.server, mode="2026-07-28") as client:
            first = await client.call_tool("ages", {})
            second = await client.call_tool("ages", {})

    assert (text(first), second.is_error) == ("ran", True)
    assert world.records()[-1]["agentguard.decision.reason"] == "policy_error"
