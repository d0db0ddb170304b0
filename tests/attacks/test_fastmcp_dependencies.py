"""FastMCP resolves a tool's dependencies around the function that was registered: before any decision."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import pytest
from fastmcp import Context
from fastmcp.dependencies import CurrentContext, Depends
from fastmcp.exceptions import ToolError
from fastmcp.server.sessions import UserSession
from uncalled_for import CallArgument

from agentguard import ConfigurationError
from tests.fast import ALL, NOTHING, Fast, in_memory, make_fast, structured
from tests.world import ERAS, Era, meta

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Forget what ran before."""
    ran.clear()


def credential() -> str:
    """Exchange a credential, which nobody may do for a denied call."""
    ran.append("credential")
    return "credential"


@asynccontextmanager
async def connection(owner: str = "nobody") -> AsyncIterator[str]:
    """Hold a connection for as long as the tool runs."""
    ran.append(f"opened for {owner}")
    try:
        yield "connection"
    finally:
        ran.append("closed")


def with_dependencies(fast: Fast) -> None:
    """Give the server a tool with every kind of dependency."""

    @fast.server.tool
    @fast.guard.tool
    async def use(
        amount: int,
        context: Context,
        *,
        token: str = Depends(credential),
        held: str = Depends(connection),
        other: Annotated[str, Depends(credential)] = "",
        same: Context = CurrentContext(),  # noqa: B008  FastMCP's way
    ) -> str:
        """Use them."""
        ran.append(f"tool {amount}")
        assert same is context
        return f"{token} {held} {other} {context.fastmcp.name}"


@pytest.mark.parametrize("era", ERAS)
async def test_denied_call_has_run_no_dependency(era: Era, tmp_path: Path) -> None:
    """Neither a function, nor what holds something open."""
    fast = make_fast(
        tmp_path,
        ALL + '@id("much") forbid (principal, action == Action::"use", resource) when { context.input.amount > 5 };',
    )
    with_dependencies(fast)
    fast.attach()

    async with in_memory(fast, era) as client:
        denied = await client.call_tool("use", {"amount": 6})

    assert meta(denied)["reason"] == "denied"
    assert ran == []


@pytest.mark.parametrize("era", ERAS)
async def test_allowed_call_has_its_dependencies_for_as_long_as_it_runs(era: Era, tmp_path: Path) -> None:
    """Each is resolved once, before the function, and given up after it."""
    fast = make_fast(tmp_path)
    with_dependencies(fast)
    fast.attach()

    async with in_memory(fast, era) as client:
        result = await client.call_tool("use", {"amount": 5})
        (tool,) = (await client.list_tools()).tools

    assert structured(result) == f"credential connection credential {fast.server.name}"
    assert ran[-2:] == ["tool 5", "closed"]
    assert set(ran[:-2]) == {"credential", "opened for nobody"}
    assert list(tool.input_schema["properties"]) == ["amount"]


async def test_caller_cannot_give_a_dependency(tmp_path: Path) -> None:
    """An argument of a dependency's name is no argument of the tool."""
    fast = make_fast(tmp_path)
    with_dependencies(fast)
    fast.attach()

    async with in_memory(fast) as client:
        result = await client.call_tool("use", {"amount": 5, "token": "mine"})

    assert meta(result)["reason"] == "invalid_argument"
    assert ran == []


async def test_argument_of_a_dependency_alone_is_judged(tmp_path: Path) -> None:
    """What only a dependency takes from the caller is before the policies too, and reaches no function."""
    fast = make_fast(
        tmp_path,
        ALL
        + '@id("root") forbid (principal, action == Action::"use", resource) when { context.input.owner == "root" };',
    )

    def owned(owner: str = CallArgument("owner")) -> str:
        ran.append(f"opened for {owner}")
        return owner

    @fast.server.tool
    @fast.guard.tool
    async def use(amount: int, held: str = Depends(owned)) -> str:
        return f"{held} {amount}"

    fast.attach()

    async with in_memory(fast) as client:
        denied = await client.call_tool("use", {"amount": 5, "owner": "root"})
        assert ran == []
        allowed = await client.call_tool("use", {"amount": 5, "owner": "anna"})

    assert meta(denied)["reason"] == "denied"
    assert structured(allowed) == "anna 5"


async def test_plain_function_has_its_dependencies_too(tmp_path: Path) -> None:
    """A plain function runs in a thread, its dependencies do not."""
    fast = make_fast(tmp_path)

    @fast.server.tool
    @fast.guard.tool
    def use(context: Context, held: str = Depends(connection)) -> str:
        return f"{held} of {context.fastmcp.name}"

    fast.attach()

    async with in_memory(fast) as client:
        result = await client.call_tool("use", {})

    assert structured(result) == f"connection of {fast.server.name}"
    assert ran == ["opened for nobody", "closed"]


async def test_dependency_that_fails_is_the_tools_own_failure(tmp_path: Path) -> None:
    """It was allowed, so what it raises is not a denial."""
    fast = make_fast(tmp_path)

    def broken() -> str:
        message = "no connection today"
        raise ToolError(message)

    @fast.server.tool
    @fast.guard.tool
    async def use(held: str = Depends(broken)) -> None: ...

    fast.attach()

    async with in_memory(fast) as client:
        result = await client.call_tool("use", {})

    assert result.is_error
    assert "agentguard/decision" not in (result.meta or {})


async def test_session_of_a_user_is_hidden_like_a_context(tmp_path: Path) -> None:
    """FastMCP finds it by its type."""
    fast = make_fast(tmp_path, NOTHING)

    @fast.server.tool
    @fast.guard.tool
    async def use(amount: int, session: UserSession | None = None) -> None: ...

    fast.attach()

    tool = await fast.server.get_tool("use")
    assert tool is not None
    assert list(tool.parameters["properties"]) == ["amount"]


async def test_dependencies_of_resources_and_prompts_wait_as_well(tmp_path: Path) -> None:
    """A denied read, and a denied prompt, have run none."""
    fast = make_fast(
        tmp_path,
        ALL
        + """
        @id("read") forbid (principal, action == Action::"resources/read/data", resource)
        when { context.input.name == "x" };
        @id("get") forbid (principal, action == Action::"prompts/get/greet", resource)
        when { context.input.name == "x" };
        """,
    )

    @fast.server.resource("data://{name}")
    @fast.guard.resource
    async def data(name: str, token: str = Depends(credential)) -> None: ...

    @fast.server.prompt
    @fast.guard.prompt
    async def greet(name: str, token: str = Depends(credential)) -> None: ...

    fast.attach()

    async with in_memory(fast) as client:
        with pytest.raises(Exception, match="Denied"):
            await client.read_resource("data://x")
        with pytest.raises(Exception, match="Denied"):
            await client.get_prompt("greet", {"name": "x"})

    assert ran == []


def test_dependency_that_fastmcp_refuses_is_refused_here(tmp_path: Path) -> None:
    """Two for one parameter are a mistake at start-up."""
    fast = make_fast(tmp_path)

    with pytest.raises(ConfigurationError, match="`use` has a dependency that FastMCP refuses"):

        @fast.guard.tool
        async def use(token: Annotated[str, Depends(credential)] = Depends(credential)) -> None: ...


@pytest.mark.parametrize("loaded", [True, False])
def test_function_without_dependencies_has_none(loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether anybody has imported FastMCP or not."""
    fast = make_fast(tmp_path)
    if not loaded:
        monkeypatch.delitem(sys.modules, "fastmcp")

    @fast.guard.tool
    async def plain(amount: int) -> None: ...

    assert fast.guard._functions[-1].injected.dependencies is None
