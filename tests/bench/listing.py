"""What a list costs: 500 tools under 1,000 policies, scoped and conditioned in the ways that people do it.

The floor is the same server's list without a guard, through the same in-memory client. A
run's first list asks Cedar; the next ones remember. Beside them stand the policies alone,
and what they would cost if each tool was asked about by itself, as before a call.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard.model import Invocation
from agentguard.policy.deciding.engine import PolicySet, never
from agentguard.policy.deciding.listing import possible
from agentguard.testing import acting_as, unsafe_invocation
from tests.bench.timing import Way, medians, table
from tests.world import World, make_world

TOOLS = 500
POLICIES = 1_000
ROUNDS = 3
CALLS = 2
GRANT = "permit (principal, action, resource);"
# By head and condition; `{n}` is the policy, `{t}` a tool, `{a}` an agent that half of them name.
WAYS = {
    "each names a tool, and looks at its arguments": (
        'principal, action == Action::"tool-{t}", resource',
        'context.input.record_id like "{n}*"',
    ),
    "each names an agent and a tool": (
        'principal in Agent::"{a}", action == Action::"tool-{t}", resource',
        'context.environment == "e{n}"',
    ),
    "each names a tool, and looks at the run": (
        'principal, action == Action::"tool-{t}", resource',
        'principal.scopes.contains("s{n}") && context.input.record_id like "{n}*"',
    ),
    "each is for all tools, and looks at the run": (
        "principal, action, resource",
        'principal.scopes.contains("s{n}") && context.environment == "e{n}"',
    ),
    "each names a tool as what is acted on, too": (
        'principal, action == Action::"tool-{t}", resource == Tool::"tool-{t}"',
        'context.input.record_id like "{n}*"',
    ),
}


def tool(name: str) -> Callable[..., str]:
    """Return a tool's function."""

    def read(record_id: str, max_rows: int = 10) -> str:
        """Read one record, and so many rows of it."""
        return record_id

    read.__name__ = name
    return read


def extend(world: World) -> None:
    """Add the tools."""
    for number in range(TOOLS):
        world.server.tool()(world.guard.tool(tool(f"tool-{number}")))


def listing(client: Client, invocation: Callable[[], Invocation]) -> Way:
    """Return one list, on behalf of whoever *invocation* gives."""

    async def one() -> object:
        caller = invocation()
        with acting_as("reader", run_id=caller.run_id, grant=GRANT):
            return await client.list_tools(cache_mode="bypass")

    return one


def alone(ask: Callable[[Invocation], object]) -> Way:
    """Return the policies' part of it, for a run that is new."""

    async def one() -> object:
        return ask(unsafe_invocation("reader", grant=GRANT))

    return one


def each(invocation: Invocation, policies: PolicySet) -> list[object]:
    """Ask about each tool by itself."""
    return [never(invocation, f"tool-{number}", policies) for number in range(TOOLS)]


async def measure() -> None:
    """Print medians and what they are to the bare server's list."""
    bare = MCPServer("records")
    for number in range(TOOLS):
        bare.add_tool(tool(f"tool-{number}"))
    for how, (head, condition) in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            text = "\n".join(
                f'@id("p{n}") permit ({head.format(t=n % TOOLS, a=agent)}) when {{ {condition.format(n=n)} }};'
                for n, agent in enumerate(["reader"] * TOOLS + ["other"] * (POLICIES - TOOLS))
            )
            world = make_world(Path(folder), policies=text, extend=extend)
            assert world.guard._enforcer is not None
            policies = world.guard._enforcer.in_force.policies
            async with Client(bare) as plain, Client(world.server) as client:

                async def floor(client: Client = plain) -> object:
                    return await client.list_tools(cache_mode="bypass")

                with acting_as("reader", grant=GRANT):

                    async def again(client: Client = client) -> object:
                        return await client.list_tools(cache_mode="bypass")

                    taken = await medians(
                        {
                            "bare server": floor,
                            "guarded, a run's first list": listing(client, lambda: unsafe_invocation("reader")),
                            "guarded, again": again,
                            "the policies alone, first": alone(lambda run, known=policies: possible(run, known)),  # type: ignore[misc]
                        },
                        rounds=ROUNDS,
                        calls=CALLS,
                    )
                    # Once: where each policy is for all tools, it parses half a million of them.
                    began = time.perf_counter()
                    each(unsafe_invocation("reader", grant=GRANT), policies)
                    taken["the same, tool by tool"] = (time.perf_counter() - began) * 1e6
        ratio = {name: f"{value / taken['bare server']:.2f} x bare" for name, value in taken.items()}
        table(f"{TOOLS} tools, {POLICIES:,} policies: {how}", taken, ratio)
