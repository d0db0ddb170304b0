"""Resources and prompts that are used from inside the process, where no message passes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server.context import CallNext, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resources import FunctionResource
from mcp.shared.exceptions import MCPError as SharedError

from agentguard import AccessDenied
from tests.world import World, make_world, text

POLICIES = """
@id("nested") permit (principal, action == Action::"nested", resource);
@id("note") permit (principal, action == Action::"resources/read/note", resource)
unless { context.input.note_id == "secret" };
@id("open") permit (principal, action == Action::"resources/read", resource) when { context.input.uri == "open://x" };
@id("hello") permit (principal, action == Action::"prompts/get", resource) when { context.input.name == "hello" };
"""


def extend(world: World) -> None:
    """Add a tool that uses whatever it is told to."""
    server = world.server

    @server.resource("notes://{note_id}")
    @world.guard.resource
    async def note(note_id: str) -> str:
        world.ran.append(f"note {note_id}")
        return note_id

    for scheme in ("open", "shut"):

        @server.resource(f"{scheme}://x", name=scheme)
        async def plain() -> str:
            world.ran.append("plain")
            return "x"

    for name in ("hello", "bye"):

        @server.prompt(name=name)
        async def prompt() -> str:
            world.ran.append("prompt")
            return "x"

    @server.tool()
    @world.guard.tool
    async def nested(way: str, name: str, ctx: Context) -> str:
        try:
            if way == "context":
                await ctx.read_resource(name)
            elif way == "server":
                await server.read_resource(name, ctx)
            else:
                await server.get_prompt(name, None, ctx)
        except AccessDenied as denied:
            return f"inside: {denied.decision.reason}"
        return "used"


@pytest.mark.parametrize(
    ("way", "name", "told"),
    [
        ("context", "notes://1", "used"),
        ("context", "notes://secret", "inside: no_permit"),
        ("context", "notes://%73ecret", "inside: no_permit"),
        ("context", "open://x", "used"),
        ("context", "shut://x", "inside: no_permit"),
        ("server", "notes://secret", "inside: no_permit"),
        ("server", "shut://x", "inside: no_permit"),
        ("prompt", "hello", "used"),
        ("prompt", "bye", "inside: no_permit"),
    ],
)
async def test_what_a_tool_reads_is_judged(way: str, name: str, told: str, tmp_path: Path) -> None:
    """For the run that called the tool, by the very rules that its own request would meet."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async with Client(world.server) as client:
        assert text(await client.call_tool("nested", {"way": way, "name": name})) == told

    assert len(world.ran) == (told == "used")
    assert world.records()[-1]["agentguard.agent.id"] == "reader"


async def test_nothing_is_read_outside_of_any_request(tmp_path: Path) -> None:
    """Without a request there is nobody to ask for, and it is on record."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    with pytest.raises(AccessDenied):
        await world.server.read_resource("open://x")
    with pytest.raises(AccessDenied):
        await world.server.get_prompt("hello")
    # This one is told so by its own function.
    with pytest.raises(Exception, match="notes://1"):
        await world.server.read_resource("notes://1")

    assert world.ran == []
    assert [one["agentguard.decision.reason"] for one in world.records()] == ["unauthenticated"] * 2


async def test_task_that_outlives_its_request_reads_nothing(tmp_path: Path) -> None:
    """Not even what the request itself was for: its identity is over."""
    over = anyio.Event()
    told: list[str] = []

    async with anyio.create_task_group() as tasks:

        async def later() -> None:
            await over.wait()
            for uri in ("late://x", "notes://1"):
                try:
                    await world.server.read_resource(uri)
                except AccessDenied as denied:
                    told.append(denied.decision.reason)

        def more(world: World) -> None:
            extend(world)

            @world.server.resource("late://{name}")
            async def late(name: str) -> str:
                world.ran.append("late")
                if not over.is_set():
                    # In the context of this request.
                    tasks.start_soon(later)
                return name

        permit = '@id("late") permit (principal, action == Action::"resources/read", resource);'
        world = make_world(tmp_path, policies=POLICIES + permit, extend=more)
        async with Client(world.server) as client:
            await client.read_resource("late://x")
        over.set()

    assert world.ran == ["late"]
    assert told == ["unauthenticated"] * 2


@pytest.mark.parametrize("asked", ["open://x", "notes://1"])
@pytest.mark.parametrize("got", ["shut://x", "notes://secret"])
async def test_middleware_that_renames_a_read_does_not_reach_another_resource(
    asked: str, got: str, tmp_path: Path
) -> None:
    """What was judged under one name is judged again under the other."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async def rename(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        if ctx.method == "resources/read":
            ctx = dataclasses.replace(ctx, params={"uri": got})
        return await call_next(ctx)

    world.server.middleware.append(rename)
    async with Client(world.server) as client:
        with pytest.raises(MCPError):
            await client.read_resource(asked)

    assert world.ran == []


async def test_resource_that_takes_the_place_of_a_guarded_one_is_judged_as_what_it_is(tmp_path: Path) -> None:
    """By the function that would run: neither by the name, nor by the template that also matches."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    @world.server.resource("notes://2", name="note")
    async def impostor() -> str:
        world.ran.append("impostor")
        return "x"

    async with Client(world.server) as client:
        await client.read_resource("notes://1")
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource("notes://2")

        @world.server.resource("notes://{note_id}")
        async def note(note_id: str) -> str:
            world.ran.append(f"impostor of {note_id}")
            return "x"

        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource("notes://1")

    assert world.ran == ["note 1"]


async def test_resource_that_holds_a_guarded_function_and_runs_another_is_not_guarded(tmp_path: Path) -> None:
    """What it is of its own class is what nobody guards."""

    class Impostor(FunctionResource):
        async def read(self) -> str:
            world.ran.append("impostor")
            return "x"

    def more(world: World) -> None:
        extend(world)

        @world.guard.resource
        async def held() -> str:
            raise AssertionError

        world.server.add_resource(Impostor(uri="held://x", name="note", fn=held))

    world = make_world(tmp_path, policies=POLICIES, extend=more)
    world.ran.clear()

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource("held://x")

    assert world.ran == []
    assert world.records()[-1]["agentguard.action.id"] == "resources/read"


async def test_answer_that_no_guarded_resource_gave_is_not_handed_out(tmp_path: Path) -> None:
    """A handler that answers in a resource's place would answer without a decision."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async def answer(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        if ctx.method == "resources/read":
            return {"contents": [{"uri": "notes://1", "text": "from a cache"}]}
        return await call_next(ctx)

    world.server.middleware.append(answer)
    async with Client(world.server) as client:
        with pytest.raises(MCPError) as denied:
            await client.read_resource("notes://1")

    assert "cache" not in str(denied.value.data)
    assert world.records()[-1]["agentguard.decision.reason"] == "invalid_argument"


async def test_denial_that_a_framework_makes_into_something_else_stays_a_denial(tmp_path: Path) -> None:
    """What was decided counts, and not what became of it on its way."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async def swallow(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        try:
            return await call_next(ctx)
        except SharedError:
            if ctx.params and ctx.params.get("uri") == "notes://secret":
                return {"contents": []}
            raise

    world.server.middleware.append(swallow)
    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource("notes://secret")


@pytest.mark.parametrize("uri", [None, 7, ["open://x"]])
async def test_uri_that_is_no_text_is_denied(uri: object, tmp_path: Path) -> None:
    """It names nothing, and is judged as such."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async def rename(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        if ctx.method == "resources/read":
            ctx = dataclasses.replace(ctx, params={"uri": uri})
        return await call_next(ctx)

    world.server.middleware.insert(0, rename)
    async with Client(world.server) as client:
        with pytest.raises(MCPError):
            await client.read_resource("open://x")

    assert world.records()[-1]["agentguard.decision.reason"] == "invalid_argument"
