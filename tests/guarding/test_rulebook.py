"""What a guard learns of its server: at the start, while it runs, and of code that nobody can touch."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import Mock

import pytest
from mcp import Client, MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Resolve

from agentguard import Issuer
from agentguard.errors import Refusal
from agentguard.evidence.trail import Trail
from agentguard.identity.sources import stdio_audience
from agentguard.model import Reason
from tests.world import (
    AUDIENCE,
    EVERYTHING,
    ISSUER,
    SERVER,
    World,
    connected,
    make_guard,
    make_world,
    meta,
    text,
    write_policies,
)

ALL = '@id("all") permit (principal, action, resource);'


def late(world: World, name: str = "late", *, guarded: bool = True) -> None:
    """Add a tool to a server that is guarded already."""

    async def tool(count: int) -> str:
        world.ran.append(f"{name} {count!r}")
        return "ran"

    world.server.add_tool(world.guard.tool(tool) if guarded else tool, name=name)


async def test_tool_added_at_run_time_is_judged_like_any_other(tmp_path: Path) -> None:
    """The policies are compiled anew for it, and the change of version is on record."""
    world = make_world(tmp_path, policies=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        before = await client.call_tool("late", {"count": 1})
        late(world)
        after = await client.call_tool("late", {"count": 1})

    assert meta(before)["reason"] == "denied"
    assert text(after) == "ran"
    assert world.ran == ["late 1"]
    (change,) = world.records("policy")
    assert change["agentguard.policy.version"] != change["agentguard.policy.previous"]
    assert world.records()[-1]["agentguard.policy.version"] == change["agentguard.policy.version"]


async def test_tool_added_at_run_time_without_a_decorator_is_denied(tmp_path: Path) -> None:
    """It is like any other that nobody guards."""
    world = make_world(tmp_path, policies=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        late(world, guarded=False)
        result = await client.call_tool("late", {"count": 1})

    assert meta(result)["reason"] == "denied"
    assert world.ran == []


async def test_tool_that_the_policies_do_not_fit_stays_denied_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad tool neither stops the server nor keeps a good one out."""
    world = make_world(tmp_path, policies=ALL)

    async def bad(name: str) -> str:
        world.ran.append("bad")
        return name

    async def worse(name: object) -> str:
        world.ran.append("worse")
        return str(name)

    async with connected(world, "memory", "2026-07-28") as client:
        world.server.add_tool(world.guard.tool(bad), name="destructive")
        world.server.add_tool(world.guard.tool(worse))
        late(world)
        results = [await client.call_tool(name, {"name": "x", "count": 3}) for name in ("destructive", "worse", "late")]

    assert [result.is_error for result in results] == [True, True, False]
    assert world.ran == ["late 3"]
    assert "`destructive` stays without a rule" in caplog.text
    assert "`worse` stays without a rule" in caplog.text


async def test_names_of_tools_do_not_steer_the_terminal_that_shows_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor begin a line of their own: a proxied tool has the name that another server gave it."""
    world = make_world(tmp_path, policies=ALL)

    async def worse(name: object) -> str:
        return str(name)

    async with connected(world, "memory", "2026-07-28") as client:
        late(world, "\x1b[2J\nunguarded", guarded=False)
        world.server.add_tool(world.guard.tool(worse), name="\x1b[2J\nguarded")
        for name in ("\x1b[2J\nunguarded", "\x1b[2J\nguarded"):
            assert (await client.call_tool(name, {"count": 1})).is_error

    said = [entry.getMessage() for entry in caplog.records if entry.name == "agentguard"]
    assert len(said) > 2
    assert all(line.isprintable() for line in said)


async def test_tool_is_learned_when_its_change_of_version_can_be_kept_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk denies it, and not for good."""
    world = make_world(tmp_path, policies=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        late(world)
        with monkeypatch.context() as full:
            full.setattr(Trail, "keep", Mock(side_effect=Refusal(Reason.EVIDENCE_UNAVAILABLE)))
            before = await refused(client.call_tool("late", {"count": 1}))
        after = await client.call_tool("late", {"count": 2})

    assert before
    assert text(after) == "ran"
    assert world.ran == ["late 2"]


async def refused(answer: Awaitable[Any]) -> bool:
    """Return whether the SDK answers with an error."""
    try:
        await answer
    except MCPError:
        return True
    return False


async def test_tool_that_was_removed_is_denied(tmp_path: Path) -> None:
    """Its rule outlives it, and nothing else."""
    world = make_world(tmp_path, policies=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        world.server.remove_tool("export")
        result = await client.call_tool("export", {})

    assert meta(result)["reason"] == "denied"


class Counter:
    """Something that can be called and is no function."""

    __name__ = "object"

    def __call__(self, count: int) -> str:
        """Never run."""
        raise AssertionError


def untouched(ran: list[str]) -> MCPServer[Any]:
    """Return a server of somebody else's, with tools of every kind."""
    server: MCPServer[Any] = MCPServer(SERVER)

    async def resolved() -> str:
        ran.append("resolver")
        return "resolved"

    @server.tool()
    def plain(count: int, note: Any = None) -> str:
        ran.append(f"plain {count!r} {note!r}")
        return "plain"

    async def asking(name: str, value: Annotated[str, Resolve(resolved)]) -> str:
        ran.append(f"asking {name} {value}")
        return value

    server.add_tool(asking)

    @server.tool()
    async def with_context(name: str, ctx: Context[Any, Any]) -> str:
        ran.append(f"with_context {name} {ctx.request_id}")
        return (await ctx.mcp_server.call_tool("plain", {"count": 7})).content[0].text  # type: ignore[union-attr]

    def stream(name: str) -> Any:
        ran.append("stream")
        yield name

    server.add_tool(stream)
    server.add_tool(Counter(), name="object")
    server.add_tool(stream, name="destructive")
    server.add_tool(with_context, name="prompts/get")
    return server


@pytest.fixture
def wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[MCPServer[Any], list[str]]]:
    """Return what guards such a server without touching its code."""

    def wrap(policies: str) -> tuple[MCPServer[Any], list[str]]:
        ran: list[str] = []
        issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
        guard, _ = make_guard(write_policies(tmp_path, policies, types=None), issuer)
        server = untouched(ran)
        monkeypatch.setenv(
            "AGENTGUARD_TOKEN", issuer.mint(agent="reader", audience=stdio_audience(SERVER), grant=EVERYTHING)
        )
        guard.attach(server, unguarded="guard")
        return server, ran

    return wrap


Wrapped = Callable[[str], tuple[MCPServer[Any], list[str]]]


async def test_tools_of_a_server_that_nobody_can_touch_are_judged(wrapped: Wrapped) -> None:
    """As `Tool::"name"`, on the values that they get, nested calls and resolvers included."""
    server, ran = wrapped(
        ALL
        + '@id("few") forbid (principal, action == Action::"plain", resource == Tool::"plain")'
        + "when { context.input.count > 9 };"
        + '@id("ask") forbid (principal, action == Action::"asking", resource) when { context.input.name == "no" };'
    )
    async with Client(server) as client:
        schemas = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        allowed = await client.call_tool("plain", {"count": 9})
        denied = await client.call_tool("plain", {"count": 10})
        asked = await client.call_tool("asking", {"name": "yes"})
        refused = await client.call_tool("asking", {"name": "no"})
        nested = await client.call_tool("with_context", {"name": "x"})

    assert list(schemas["asking"]["properties"]) == ["name"]
    assert [one.is_error for one in (allowed, denied, asked, refused, nested)] == [False, True, False, True, False]
    assert ran[:3] == ["plain 9 None", "resolver", "asking yes resolved"]
    assert ran[4:] == ["plain 7 None"]


async def test_what_cedar_cannot_hold_is_hidden_from_policies_and_said(
    wrapped: Wrapped, caplog: pytest.LogCaptureFixture
) -> None:
    """A server of somebody else's is not refused for one argument; a tool that cannot be judged is denied."""
    server, ran = wrapped(ALL)
    async with Client(server) as client:
        hidden = await client.call_tool("plain", {"count": 1, "note": {"free": ["form"]}})
        stream = await client.call_tool("stream", {"name": "x"})
        instance = await client.call_tool("object", {"count": 1})
        groups = [await client.call_tool(name, {"name": "x"}) for name in ("destructive", "prompts/get")]

    assert text(hidden) == "plain"
    assert ran == ["plain 1 {'free': ['form']}"]
    assert (meta(stream)["reason"], meta(instance)["reason"]) == ("denied", "denied")
    assert [meta(one)["reason"] for one in groups] == ["denied", "denied"]
    assert "tool `prompts/get` cannot be guarded, every call to it is denied: it has the name of a group" in caplog.text
    assert "policies do not see argument `note` of tool `plain`" in caplog.text
    assert "tool `stream` cannot be guarded, every call to it is denied" in caplog.text
    assert "tool `object` cannot be guarded, every call to it is denied" in caplog.text


async def test_tool_that_such_a_server_adds_later_is_judged(wrapped: Wrapped) -> None:
    """Without a decorator too."""
    server, ran = wrapped(ALL + '@id("few") forbid (principal, action, resource == Tool::"plain");')

    async def late(count: int) -> str:
        ran.append(f"late {count!r}")
        return "ran"

    async with Client(server) as client:
        server.add_tool(late)
        result = await client.call_tool("late", {"count": 2})

    assert text(result) == "ran"
    assert ran == ["late 2"]
