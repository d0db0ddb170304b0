"""A person who is asked, and a client that asks by hand, for tests of approvals."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from mcp import Client
from mcp.server.request_state import RequestStateBoundary
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult

from agentguard.adapters.elicitation import KEY
from tests.world import Era, World

ASKS: Final = """
@id("all") permit (principal, action, resource);

@id("ask") @obligation("approval") @approval_prompt("May it leave the house?")
forbid (principal, action == Action::"export", resource)
unless { context has approval };

@id("cap") forbid (principal, action == Action::"export", resource)
when { context.input.max_rows > 500 };
"""
YES: Final = ElicitResult(action="accept", content={"approve": True})
NO: Final = ElicitResult(action="decline")


@dataclass
class Person:
    """Someone at the caller's own client.

    Attributes:
        answer: What they answer.
        meanwhile: What happens while they think it over; may be async.
        seen: What they were shown.
    """

    answer: ElicitResult = field(default_factory=lambda: YES)
    meanwhile: Callable[[], Any] | None = None
    seen: list[str] = field(default_factory=list)

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        """Answer one question."""
        self.seen.append(params.message)
        if self.meanwhile is not None:
            happened = self.meanwhile()
            if inspect.isawaitable(happened):
                await happened
        return self.answer


@asynccontextmanager
async def at(world: World, era: Era, person: Person | None) -> AsyncIterator[Client]:
    """Connect in memory, with a person at the client."""
    mode: Any = "legacy" if era == "2025-11-25" else era
    async with Client(world.server, mode=mode, elicitation_callback=person) as client:
        yield client


async def call(world: World, era: Era, person: Person | None, tool: str = "export", **arguments: Any) -> CallToolResult:
    """Call a tool once, with a person at the client."""
    async with at(world, era, person) as client:
        result = await client.call_tool(tool, arguments or {"max_rows": 5})
    assert isinstance(result, CallToolResult)
    return result


async def first(client: Client, tool: str = "export", **options: Any) -> InputRequiredResult:
    """Make the first round of a call by hand, and return the question."""
    arguments = options.pop("arguments", {"max_rows": 5})
    asked = await client.session.call_tool(tool, arguments, allow_input_required=True, **options)
    assert isinstance(asked, InputRequiredResult)
    return asked


async def again(
    client: Client, state: str | None, answer: ElicitResult | None = YES, tool: str = "export", **options: Any
) -> CallToolResult | InputRequiredResult:
    """Make a later round of a call by hand."""
    result: CallToolResult | InputRequiredResult = await client.session.call_tool(
        tool,
        options.pop("arguments", {"max_rows": 5}),
        request_state=state,
        input_responses={**options.pop("answers", {}), **({} if answer is None else {KEY: answer})} or None,
        allow_input_required=True,
        **options,
    )
    return result


def without_the_sdks_seal(world: World) -> World:
    """Let a client see and send the guard's own states: the SDK's seal is not what protects them."""
    middleware = world.server.middleware
    middleware[:] = [one for one in middleware if not isinstance(one, RequestStateBoundary)]
    return world


def reasons(world: World) -> list[str]:
    """Return the reason of every decision, oldest first."""
    return [record["agentguard.decision.reason"] for record in world.records()]
