"""What a tool sends while it runs, and what a framework makes of its answer: all that reaches the caller.

The result that a function returns is not all that goes out. A tool tells of its progress, logs
to the client, asks a person or a model; and what is sent in the end is made from the result by
a framework, after it was looked at, or by code that no decorator is on.
"""

import asyncio
import base64
import errno
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import pytest
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from mcp import Client, MCPError
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context
from mcp_types import (
    CallToolResult,
    CompleteResult,
    Completion,
    CreateMessageResult,
    ElicitResult,
    ListToolsResult,
    PromptReference,
    SamplingMessage,
    TextContent,
    Tool,
)
from pydantic import BaseModel, field_serializer

from agentguard import AccessDenied, Credential, Guard, Issuer, UnsafeMemoryState
from agentguard.identity.sources import stdio_audience
from tests.credentials.lending import Office, until
from tests.fast import ALL, Fast
from tests.test_credentials import LENT, leases_of
from tests.world import (
    AUDIENCE,
    ERAS,
    EVERYTHING,
    ISSUER,
    SERVER,
    Era,
    World,
    connected,
    make_guard,
    make_world,
    meta,
    text,
    write_policies,
)

OLD, NEW = ERAS


class Empty(BaseModel):
    """What a person is asked for: a yes."""

    ok: bool = True


@asynccontextmanager
async def client_of(server: Any, era: Era, got: list[str]) -> AsyncIterator[Client]:
    """Connect a client that keeps whatever it is sent, and answers what it is asked."""

    async def heard(message: Any) -> None:
        got.append(str(message))

    async def elicited(_: object, params: object) -> ElicitResult:
        got.append(str(params))
        return ElicitResult(action="accept", content={"ok": True})

    async def sampled(_: Any, params: Any) -> Any:
        got.append(str(params))
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="hello"), model="m")

    async def logged(params: Any) -> None:
        got.append(str(params))

    answering: dict[str, Any] = {"elicitation_callback": elicited, "sampling_callback": sampled}
    async with Client(
        server,
        mode="legacy" if era == OLD else era,
        message_handler=heard,
        logging_callback=logged,
        **answering,
    ) as client:
        yield client


def close(guard: Guard) -> None:
    """End the leases of a guard."""
    lender = guard._gate.lender
    assert lender is not None
    lender.leases.close()


def places(state: Any) -> list[str]:
    """Return where something was stopped, oldest first."""
    kept = [entry.record for entry in state.ledger if entry.record["kind"] == "credential_leak"]
    return [one["attributes"]["agentguard.credential.place"] for one in kept]


def lending(folder: Path, extend: Callable[[World], None]) -> tuple[World, Office]:
    """Return a server, and the broker of its credentials."""
    office = Office(time.time)
    return make_world(folder, policies=LENT, extend=extend, broker=office), office


async def info(ctx: Any, secret: str) -> None:
    """Log it to the client."""
    await ctx.info(f"Authorization: Bearer {secret}")


async def info_deep(ctx: Any, secret: str) -> None:
    """Log it to the client, within a value and encoded."""
    await ctx.warning({"headers": [{"basic": base64.b64encode(f"user:{secret}".encode()).decode()}]})


async def progress(ctx: Any, secret: str) -> None:
    """Tell it as progress."""
    await ctx.report_progress(1, 2, f"with {secret}")


async def progressed(ctx: Any, secret: str) -> None:
    """Tell it as progress, by the session."""
    await ctx.session.send_progress_notification("1", 1, 2, secret)


async def updated(ctx: Any, secret: str) -> None:
    """Tell it as the URI of a resource."""
    await ctx.session.send_resource_updated(f"https://crm.example/?token={secret}")


async def iterator(ctx: Any, secret: str) -> None:
    """Log what can be looked at only once."""
    await ctx.info(iter([secret]))


async def elicit(ctx: Any, secret: str) -> None:
    """Ask a person."""
    await ctx.elicit(f"May I use {secret}?", Empty)


async def elicit_url(ctx: Any, secret: str) -> None:
    """Send a person somewhere."""
    await ctx.elicit_url("Log in", f"https://crm.example/?token={secret}", "e-1")


async def sample(ctx: Any, secret: str) -> None:
    """Ask the client's model."""
    await ctx.session.create_message(
        [SamplingMessage(role="user", content=TextContent(type="text", text=secret))], max_tokens=5
    )


TELLING: Final[dict[str, Callable[[Any, str], Any]]] = {
    "info": info,
    "info deep": info_deep,
    "progress": progress,
    "progress by the session": progressed,
    "resource updated": updated,
    "iterator": iterator,
}
ASKING: Final[dict[str, Callable[[Any, str], Any]]] = {"elicit": elicit, "elicit url": elicit_url, "sample": sample}
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


@pytest.mark.parametrize("way", TELLING)
async def test_no_message_tells_a_secret(tmp_path: Path, way: str) -> None:
    """It is not sent, and is on record; the call goes on, and so does every other message."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def tell(ctx: Context, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Tell something."""
            await TELLING[way](ctx, crm.reveal())
            await ctx.info("all is well")
            return "done"

    world, office = lending(tmp_path, extend)
    got: list[str] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        got.append(f"{progress} {total} {message}")

    async with client_of(world.server, OLD, got) as client:
        answer = await client.call_tool("tell", {}, progress_callback=heard)
    leases_of(world).close()

    assert text(answer) == "done"
    assert any("all is well" in one for one in got)
    assert not any(office.secret(1) in one or "dXNlcjp" in one for one in got)
    leaks = [(leak["agentguard.credential.place"], leak["agentguard.credential.name"]) for leak in leaks_of(world)]
    assert leaks == [("message", "unreadable" if way == "iterator" else "crm")]


def leaks_of(world: Any) -> list[dict[str, Any]]:
    """Return the records of what was stopped."""
    found: list[dict[str, Any]] = world.records("credential_leak")
    return found


@pytest.mark.parametrize("way", ASKING)
async def test_no_question_tells_a_secret(tmp_path: Path, way: str) -> None:
    """Nobody is asked; the tool, which cannot go on without an answer, is denied it, and so is the call."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def ask(ctx: Context, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Ask something."""
            await ctx.elicit("May I?", Empty)
            await ASKING[way](ctx, crm.reveal())
            return "done"

    world, office = lending(tmp_path, extend)
    got: list[str] = []
    async with client_of(world.server, OLD, got) as client:
        answer = await client.call_tool("ask", {})
    leases_of(world).close()

    assert (meta(answer)["reason"], meta(answer)["retry"]) == ("denied", "never")
    assert any("May I?" in one for one in got)
    assert not any(office.secret(1) in one for one in got)
    assert [leak["agentguard.credential.place"] for leak in leaks_of(world)] == ["message"]
    assert world.records()[-1]["agentguard.decision.reason"] == "credential_leak"


async def test_tool_that_does_without_an_answer_goes_on(tmp_path: Path) -> None:
    """The denial of a question is one that a tool can catch."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def ask(ctx: Context, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Ask something."""
            try:
                await ctx.elicit(crm.reveal(), Empty)
            except AccessDenied as denied:
                return str(denied)
            return "asked"

    world, _ = lending(tmp_path, extend)
    async with client_of(world.server, OLD, []) as client:
        assert text(await client.call_tool("ask", {})) == "access denied"
    leases_of(world).close()


async def test_progress_of_the_later_protocol(tmp_path: Path) -> None:
    """There too, where nothing but notifications can be sent in the midst of a call."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def tell(ctx: Context, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Tell something."""
            await ctx.report_progress(1, 2, f"with {crm.reveal()}")
            await ctx.report_progress(2, 2, "all is well")
            return "done"

    world, office = lending(tmp_path, extend)
    got: list[str] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        got.append(f"{progress} {total} {message}")

    async with client_of(world.server, NEW, got) as client:
        assert text(await client.call_tool("tell", {}, progress_callback=heard)) == "done"
    leases_of(world).close()

    assert len(got) == 1
    assert office.secret(1) not in got[0]
    assert [leak["agentguard.credential.place"] for leak in leaks_of(world)] == ["message"]


async def test_task_that_outlives_its_call_tells_nothing(tmp_path: Path) -> None:
    """The session that it keeps is looked through for as long as it has it."""
    tasks: list[Any] = []
    after = anyio.Event()
    sent = anyio.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def tell(ctx: Context, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Leave something behind."""

            async def later() -> None:
                await after.wait()
                await ctx.session.send_log_message("info", crm.reveal())
                await ctx.session.send_log_message("info", "all is well")
                sent.set()

            tasks.append(asyncio.create_task(later()))
            return "done"

    world, office = lending(tmp_path, extend)
    got: list[str] = []
    async with client_of(world.server, OLD, got) as client:
        assert text(await client.call_tool("tell", {})) == "done"
        after.set()
        await sent.wait()
        await until(lambda: any("all is well" in one for one in got))
    leases_of(world).close()

    assert not any(office.secret(1) in one for one in got)
    assert [leak["agentguard.credential.place"] for leak in leaks_of(world)] == ["message"]


class Changing(BaseModel):
    """A model that writes something else each time."""

    secret: str = "nothing"

    @field_serializer("secret")
    def _late(self, _: str) -> str:
        _TIMES.append("once")
        return _SECRET[0] if len(_TIMES) > 1 else "nothing"


_TIMES: list[str] = []
_SECRET: list[str] = []


async def test_value_that_changes_after_it_was_looked_at(tmp_path: Path) -> None:
    """What is sent is looked at, whatever the function's own value was a moment before."""
    _TIMES.clear()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def change(crm: Annotated[Credential, world.guard.credential("crm")]) -> Changing:
            """Return what changes."""
            _SECRET[:] = [crm.reveal()]
            return Changing()

    world, office = lending(tmp_path, extend)
    async with connected(world, "memory", NEW) as client:
        answer = await client.call_tool("change", {})
    leases_of(world).close()

    assert office.secret(1) not in answer.model_dump_json()
    assert meta(answer)["retry"] == "never"
    assert [leak["agentguard.credential.place"] for leak in leaks_of(world)] == ["result"]


async def test_completions_tell_no_secret(tmp_path: Path) -> None:
    """No function under a decorator makes them, and they reach the caller like a result."""
    held: list[str] = []

    def extend(world: World) -> None:
        @world.server.prompt()
        @world.guard.prompt
        def greet(name: str) -> str:
            """Greet."""
            return name

        @world.server.tool()
        @world.guard.tool
        async def hold(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Keep it."""
            held.append(crm.reveal())
            return "done"

        @world.server.completion()  # type: ignore[no-untyped-call,untyped-decorator]
        async def complete(*_: object) -> Completion | None:
            return Completion(values=["ann", *held])

    policies = LENT + '@id("greets") permit (principal, action == Action::"prompts/get/greet", resource);'
    office = Office(time.time)
    world = make_world(tmp_path, policies=policies, extend=extend, broker=office)
    async with connected(world, "memory", NEW) as client:

        async def complete() -> CompleteResult:
            return await client.complete(
                PromptReference(type="ref/prompt", name="greet"), {"name": "name", "value": ""}
            )

        assert (await complete()).completion.values == ["ann"]
        await client.call_tool("hold", {})
        with pytest.raises(MCPError) as denied:
            await complete()
    leases_of(world).close()

    assert office.secret(1) not in json.dumps(denied.value.error.model_dump(mode="json"))
    assert denied.value.error.data["agentguard/decision"]["retry"] == "never"
    assert [leak["agentguard.credential.place"] for leak in leaks_of(world)] == ["result"]


def low_level(folder: Path, monkeypatch: pytest.MonkeyPatch, spill: Callable[[str], Any]) -> tuple[Any, Any, Office]:
    """Return a low-level server whose handler adds something to what a guarded function gave."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    state, office = UnsafeMemoryState(), Office(time.time)
    write_policies(folder, ALL, types=None)
    guard, _ = make_guard(folder, issuer, state=state, broker=office)
    held: list[str] = []

    @guard.tool
    async def hold(crm: Annotated[Credential, guard.credential("crm")]) -> str:
        """Keep it."""
        held.append(crm.reveal())
        return "done"

    async def on_call_tool(_: Any, params: Any) -> Any:
        answer = await guard.call(params.name, params.arguments)
        return spill(held[0]) or answer

    listed = Tool(name="hold", input_schema={"type": "object", "properties": {}})

    async def on_list_tools(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=[listed.model_copy(update={"description": "".join(held) or None})])

    server: Server[Any] = Server(SERVER, on_list_tools=on_list_tools, on_call_tool=on_call_tool)
    token = issuer.mint(agent="reader", audience=stdio_audience(SERVER), grant=EVERYTHING)
    monkeypatch.setenv("AGENTGUARD_TOKEN", token)
    guard.attach(server, tools=[listed])
    return guard, server, office


def in_meta(secret: str) -> Any:
    """Answer with it in what is for programs."""
    return CallToolResult(content=[TextContent(type="text", text="done")], _meta={"debug": {"url": f"?t={secret}"}})


def in_no_utf8(secret: str) -> Any:
    """Answer with it beside what JSON has no way to write."""
    return CallToolResult(content=[TextContent(type="text", text=f"\ud800 {secret}")])


def in_data(secret: str) -> Any:
    """Answer with it in an error's data."""
    raise MCPError(code=-32000, message="the CRM is down", data={"request": {"headers": [secret]}})


def in_error(secret: str) -> Any:
    """Answer with it in an error's text."""
    raise RuntimeError(secret)


@pytest.mark.parametrize("spill", [in_meta, in_no_utf8, in_data, in_error])
@pytest.mark.parametrize("era", ERAS)
async def test_handler_around_a_guarded_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spill: Callable[[str], Any], era: Era
) -> None:
    """It has no decorator, and what it makes of the result reaches the caller all the same."""
    guard, server, office = low_level(tmp_path, monkeypatch, spill)
    answer: Any = None
    async with client_of(server, era, []) as client:
        try:
            answer = await client.call_tool("hold", {})
            told = answer.model_dump_json()
        except MCPError as error:
            told = json.dumps(error.error.model_dump(mode="json"))
    close(guard)

    assert office.secret(1) not in told
    assert "agentguard/decision" in told
    assert places(guard.state) == ["result" if spill in {in_meta, in_no_utf8} else "exception"]


async def test_list_tells_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that puts what it knows into a description has no list for that run."""
    guard, server, office = low_level(tmp_path, monkeypatch, lambda _: None)
    async with client_of(server, NEW, []) as client:
        await client.list_tools()
        assert text(await client.call_tool("hold", {})) == "done"
        with pytest.raises(MCPError) as denied:
            await client.session.list_tools()
    close(guard)

    assert office.secret(1) not in json.dumps(denied.value.error.model_dump(mode="json"))


async def test_messages_of_fastmcp(tmp_path: Path) -> None:
    """Its own context sends by the same session."""
    office = Office(time.time)
    issuer, state = Issuer(issuer=ISSUER, audience=AUDIENCE), UnsafeMemoryState()
    write_policies(tmp_path, ALL, types=None)
    guard, _ = make_guard(tmp_path, issuer, state=state, broker=office)
    made = Fast(guard, FastMCP(SERVER, auth=guard.auth()), state, issuer, tmp_path)

    @made.server.tool
    @guard.tool
    async def tell(ctx: FastContext, crm: Annotated[Credential, guard.credential("crm")]) -> str:
        """Tell something."""
        await ctx.info(crm.reveal())
        await ctx.report_progress(1, 2, crm.reveal())
        await ctx.info("all is well")
        try:
            await ctx.elicit(crm.reveal(), Empty)
        except AccessDenied:
            return "done"
        return "asked"

    made.attach()
    got: list[str] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        got.append(f"{progress} {total} {message}")

    async with client_of(made.server._mcp_server, OLD, got) as client:
        answer = await client.call_tool("tell", {}, progress_callback=heard)
    close(guard)

    assert text(answer) == "done"
    assert any("all is well" in one for one in got)
    assert not any(office.secret(1) in one for one in got)
    # It puts what it sends into its own log, too.
    assert places(state) == ["log", "message"]


async def test_evidence_that_cannot_be_written_when_a_leak_is_found(tmp_path: Path) -> None:
    """It is withheld all the same, in the words of a denial."""
    trouble = threading.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def spill(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Let it out when the disk is full."""
            trouble.set()
            return crm.reveal()

    world, office = lending(tmp_path, extend)
    ledger: Any = world.state.ledger
    append = ledger.append

    def failing(record: Any) -> Any:
        if trouble.is_set():
            raise OSError(errno.ENOSPC, "no space left")
        return append(record)

    ledger.append = failing
    async with connected(world, "memory", NEW) as client:
        answer = await client.call_tool("spill", {})
    ledger.append = append
    leases_of(world).close()

    assert office.secret(1) not in answer.model_dump_json()
    assert meta(answer)["retry"] == "never"
