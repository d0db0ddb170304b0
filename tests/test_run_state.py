"""`context.run`: what a run has done, as its next call is judged by it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard import ConfigurationError, Guard, MemoryStore, Spend, State, open_state
from agentguard.evidence.ledger import MemoryLedger
from agentguard.model import Invocation
from agentguard.testing import acting_as, unsafe_invocation
from tests.world import EVERYTHING, write_policies

PERMIT: Final = '@id("all") permit (principal, action, resource);\n'
NOW: Final = 1_800_000_000.0


class Batch(TypedDict):
    """What a batch comes to."""

    total: Annotated[Decimal, Spend("payments")]


def batch(amounts: list[Decimal]) -> Batch:
    """Return the sum."""
    return {"total": sum(amounts, Decimal(0))}


class Served:
    """A guarded server with run state in its policies, and what ran there."""

    def __init__(
        self, folder: Path, policies: str, state: State | None = None, clock: Callable[[], float] = lambda: NOW
    ) -> None:
        self.ran: list[str] = []
        self.state = state or State(store=MemoryStore(clock=lambda: NOW), ledger=MemoryLedger(), key=b"k" * 32)
        write_policies(folder / "policies", PERMIT + policies, types=None)
        self.guard = Guard(
            folder / "policies",
            issuer="https://issuer.example",
            audience="https://inbox.example/mcp",
            state=self.state,
            clock=clock,
        )
        self.server = MCPServer("inbox")
        guard, ran = self.guard, self.ran

        @self.server.tool()
        @guard.tool
        async def look() -> str:
            ran.append("look")
            return "seen"

        @self.server.tool()
        @guard.tool(labels={"untrusted"})
        async def read_mail() -> str:
            ran.append("read_mail")
            return "pay this account"

        @self.server.tool()
        @guard.tool
        async def pay(amount: Annotated[Decimal, Spend("payments")] | None = None) -> str:
            ran.append("pay")
            return "paid"

        @self.server.tool()
        @guard.tool(facts=batch)
        async def pay_all(amounts: list[Decimal]) -> str:
            ran.append("pay_all")
            return "paid"

        @self.server.tool()
        @guard.tool(spends={"tokens"})
        def think(tokens: int) -> str:
            ran.append("think")
            guard.spend("tokens", tokens)
            guard.label("thoughtful")
            return "thought"

        @self.server.tool()
        @guard.tool
        async def nested() -> str:
            ran.append("nested")
            await look()
            return "done"

        guard.attach(self.server)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Give a client of it."""
        async with Client(self.server) as client:
            yield client

    def decisions(self) -> list[dict[str, Any]]:
        """Return what is on record of each decision."""
        return [e.record["attributes"] for e in self.state.ledger if e.record["kind"] == "decision"]  # type: ignore[attr-defined]


async def call(client: Client, tool: str, **arguments: Any) -> bool:
    """Return whether a call was let through."""
    return not (await client.call_tool(tool, arguments)).is_error


def acting(run: str = "run-1", *ancestors: Invocation, **facts: Any) -> Any:
    """Act as an agent in a run."""
    return acting_as("agent", at=NOW, run_id=run, ancestors=ancestors, **facts)


def ancestor(run: str, *above: Invocation) -> Invocation:
    """Return a run that delegates everything."""
    return unsafe_invocation("agent", at=NOW, run_id=run, ancestors=above, grant=EVERYTHING)


async def test_calls_that_come_at_once_run_up_to_the_limit(tmp_path: Path) -> None:
    """A hundred under a limit of ten: exactly ten."""
    served = Served(tmp_path, '@id("cap") forbid (principal, action, resource) when { context.run.calls >= 10 };')
    allowed: list[bool] = []
    async with served.client() as client:

        async def one() -> None:
            allowed.append(await call(client, "look"))

        with acting():
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(one)
    assert allowed.count(True) == len(served.ran) == 10
    assert [one["agentguard.decision.effect"] for one in served.decisions()].count("allow") == 10


async def test_each_tool_is_counted_by_itself(tmp_path: Path) -> None:
    """One tool's calls do not use up another's."""
    served = Served(
        tmp_path,
        '@id("cap") forbid (principal, action == Action::"pay", resource) '
        "when { context.run.calls_of_this_tool >= 1 };",
    )
    async with served.client() as client:
        with acting():
            assert await call(client, "look")
            assert await call(client, "pay")
            assert not await call(client, "pay")
        with acting("run-2"):
            assert await call(client, "pay")


async def test_what_is_declared_counts_before_the_call(tmp_path: Path) -> None:
    """A total of exactly the limit passes; a ten-thousandth more does not, and is not spent."""
    served = Served(
        tmp_path,
        '@id("budget") forbid (principal, action, resource) when '
        '{ context.run.spent.payments.greaterThan(decimal("100.0")) };',
    )
    async with served.client() as client:
        with acting():
            assert await call(client, "pay", amount="60")
            assert not await call(client, "pay", amount="40.0001")
            assert await call(client, "pay_all", amounts=["30", "10"])
            assert not await call(client, "pay", amount="0.0001")
            assert await call(client, "pay")
            assert await call(client, "look")
    assert served.decisions()[-1]["agentguard.run_state.spent"] == ["payments=100.0000", "tokens=0.0000"]


async def test_which_run_of_a_chain_stopped_a_call_is_on_record_with_what_it_had_done(tmp_path: Path) -> None:
    """The run that called had done nothing itself, so its own state would not tell."""
    cap = '@id("cap") forbid (principal, action, resource) when { context.run.calls >= 2 };'
    served = Served(tmp_path, cap)
    async with served.client() as client:
        with acting("top"):
            assert await call(client, "look")
        with acting("child", ancestor("top")):
            assert await call(client, "look")
            assert not await call(client, "look")
        with acting("other", ancestor("top")):
            assert not await call(client, "look")
    alone, let, stopped, other = served.decisions()

    assert "agentguard.run_state.above" not in alone
    assert [one.get("agentguard.decision.link") for one in (alone, let, stopped, other)] == [None, None, 0, 0]
    assert other["agentguard.run_state.calls"] == 0
    above = [json.loads(one["agentguard.run_state.above"]) for one in (let, stopped, other)]
    assert [[run["calls"] for run in one] for one in above] == [[1], [2], [2]]
    assert above[2][0]["denied"] == 1


@pytest.mark.parametrize("amount", ["-1", "-0.0001", "922337203685477.5807"])
async def test_total_never_goes_down_nor_over(tmp_path: Path, amount: str) -> None:
    """Whoever spends less than nothing would have more to spend."""
    served = Served(tmp_path, "")
    async with served.client() as client:
        with acting():
            assert await call(client, "pay", amount="1")
            assert not await call(client, "pay", amount=amount)
    assert served.decisions()[-1]["agentguard.decision.reason"] == "invalid_argument"


async def test_label_holds_from_the_call_on_that_gives_it(tmp_path: Path) -> None:
    """For its own run alone."""
    served = Served(
        tmp_path,
        '@id("egress") @advice("This run has read mail.") forbid (principal, action == Action::"pay", resource) '
        'when { context.run.labels.contains("untrusted") };',
    )
    async with served.client() as client:
        with acting():
            assert await call(client, "pay", amount="1")
            assert await call(client, "read_mail")
            assert not await call(client, "pay", amount="1")
        with acting("run-2"):
            assert await call(client, "pay", amount="1")
    assert served.ran == ["pay", "read_mail", "pay"]


async def test_tool_says_itself_what_it_spent_and_read(tmp_path: Path) -> None:
    """What it knows only while it runs counts for the next call."""
    served = Served(
        tmp_path,
        '@id("tokens") forbid (principal, action == Action::"think", resource) when '
        '{ context.run.spent.tokens.greaterThanOrEqual(decimal("5.0")) };',
    )
    async with served.client() as client:
        with acting():
            assert await call(client, "think", tokens=4)
            assert await call(client, "think", tokens=4)
            assert not await call(client, "think", tokens=4)
    last = served.decisions()[-1]
    assert last["agentguard.run_state.labels"] == ["thoughtful"]
    assert last["agentguard.run_state.spent"] == ["payments=0.0000", "tokens=8.0000"]


async def test_child_counts_against_its_parent(tmp_path: Path) -> None:
    """Delegating does not make a budget larger, however many children there are."""
    served = Served(
        tmp_path,
        '@id("budget") forbid (principal, action, resource) when '
        '{ context.run.spent.payments.greaterThan(decimal("100.0")) };',
    )
    parent = ancestor("parent")
    async with served.client() as client:
        for child in ("a", "b"):
            with acting(child, parent, grant=EVERYTHING):
                assert await call(client, "pay", amount="50")
        with acting("c", parent, grant=EVERYTHING):
            assert not await call(client, "pay", amount="1")
        with acting("parent"):
            assert not await call(client, "pay", amount="1")
    assert served.decisions()[-2]["agentguard.run_state.spent"] == ["payments=1.0000", "tokens=0.0000"]


async def test_child_cannot_launder_what_its_parent_reads(tmp_path: Path) -> None:
    """The child reads, and the parent gets what it read: both carry the label, and so do later children."""
    served = Served(
        tmp_path,
        '@id("egress") forbid (principal, action == Action::"pay", resource) '
        'when { context.run.labels.contains("untrusted") };',
    )
    parent = ancestor("parent")
    async with served.client() as client:
        with acting("reader", parent, grant=EVERYTHING):
            assert await call(client, "read_mail")
        with acting("parent"):
            assert not await call(client, "pay", amount="1")
        with acting("payer", parent, grant=EVERYTHING):
            assert not await call(client, "pay", amount="1")
    assert served.decisions()[-1]["agentguard.run_state.labels"] == ["untrusted"]


async def test_denials_are_counted(tmp_path: Path) -> None:
    """A run that keeps trying can be stopped."""
    served = Served(
        tmp_path,
        '@id("no-pay") forbid (principal, action == Action::"pay", resource) unless { context.input has amount };'
        '@id("enough") forbid (principal, action, resource) when { context.run.denied >= 3 };',
    )
    async with served.client() as client:
        with acting():
            for _ in range(3):
                assert await call(client, "look")
                assert not await call(client, "pay")
            assert not await call(client, "look")


async def test_nested_calls_count(tmp_path: Path) -> None:
    """What a tool calls in turn is a call of its own."""
    served = Served(tmp_path, '@id("cap") forbid (principal, action, resource) when { context.run.calls >= 3 };')
    async with served.client() as client:
        with acting():
            assert await call(client, "nested")
            assert not await call(client, "nested")
    assert served.ran == ["nested", "look", "nested"]


async def test_store_keeps_what_a_run_did_through_a_restart(tmp_path: Path) -> None:
    """A new process does not begin anew."""
    policies = '@id("cap") forbid (principal, action, resource) when { context.run.calls >= 2 };'
    for expected in ([True], [True], [False]):
        state = open_state(tmp_path / "state")
        # A store in a file goes by the system's clock.
        served = Served(tmp_path, policies, state, clock=time.time)
        async with served.client() as client:
            with acting_as("agent", run_id="run-1"):
                assert [await call(client, "look")] == expected
        state.close()


def test_outside_of_a_tool_nothing_is_spent(tmp_path: Path) -> None:
    """There is no run that it could count for."""
    guard = Served(tmp_path, "").guard
    with pytest.raises(LookupError):
        guard.spend("payments", 1)
    with pytest.raises(LookupError):
        guard.label("untrusted")
    with pytest.raises(ConfigurationError):
        guard.label("not a label")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"labels": {"not a label"}}, "wants labels of 1 to 64 of"),
        ({"labels": {5}}, "wants labels of 1 to 64 of"),
        ({"spends": {"two words"}}, "spends `two words`, which policies cannot write after a dot"),
        ({"labels": "untrusted"}, "labels= wants several names"),
    ],
)
def test_names_that_policies_cannot_ask_about_are_refused(tmp_path: Path, options: Any, told: str) -> None:
    """When the tool is decorated."""
    guard = Served(tmp_path, "").guard

    with pytest.raises(ConfigurationError, match=told):

        @guard.tool(**options)
        def tool() -> None:
            """Do nothing."""
