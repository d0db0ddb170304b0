"""Amounts that would add to no total, or make room for others: a budget that is stepped over, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NewType

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resolve import Resolve
from pydantic import BaseModel
from typing_extensions import TypeAliasType, TypedDict

from agentguard import ConfigurationError, Guard, Spend, UnsafeMemoryState
from agentguard.testing import acting_as
from tests.world import write_policies

BUDGET = """
@id("all") permit (principal, action, resource);
@id("budget") forbid (principal, action, resource)
when { context.run.spent.payments.greaterThan(decimal("100.0")) };
"""
EVERYTHING_ALLOWED = '@id("all") permit (principal, action, resource);'
Amount = Annotated[Decimal, Spend("payments")]
Named = NewType("Named", Amount)
Alias = TypeAliasType("Alias", Amount | None)


class Order(BaseModel):
    """What is paid, inside of a model."""

    lines: list[Amount]


@dataclass
class Line:
    """What is paid, inside of a dataclass."""

    amount: Amount


@dataclass
class Unread:
    """What nobody can read, and no caller has to."""

    amount: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037  that is the point


class Sums(TypedDict):
    """Two facts that add to one total."""

    net: Amount
    fee: Amount


def sums(net: Decimal, fee: Decimal) -> Sums:
    """Return both."""
    return {"net": net, "fee": fee}


async def amount() -> Decimal:
    """Return what nobody has judged."""
    return Decimal(1_000)


def make(folder: Path, policies: str = BUDGET) -> tuple[Guard, MCPServer[Any]]:
    """Return a guard with a budget of 100, and its server."""
    write_policies(folder, policies, types=None)
    guard = Guard(folder, issuer="https://issuer.example", audience="https://x.example/mcp", state=UnsafeMemoryState())
    return guard, MCPServer("payments")


@pytest.mark.parametrize("less", ["-1000", "-0.0001"])
async def test_amount_below_zero_makes_no_room_for_another(less: str, tmp_path: Path) -> None:
    """Of one total and one call: each is refused, whatever both come to."""
    guard, server = make(tmp_path)
    ran: list[str] = []

    @server.tool()
    @guard.tool
    async def pay(amount: Amount, fee: Amount) -> None:
        ran.append(f"{amount} {fee}")

    @server.tool()
    @guard.tool(facts=sums)
    async def settle(net: Decimal, fee: Decimal) -> None:
        ran.append(f"{net} {fee}")

    guard.attach(server)
    async with Client(server) as client:
        with acting_as("agent", run_id="run-1"):
            for one, other in ((less, "1000"), ("1000", less), (less, "50")):
                assert (await client.call_tool("pay", {"amount": one, "fee": other})).is_error
                assert (await client.call_tool("settle", {"net": one, "fee": other})).is_error
            assert not (await client.call_tool("pay", {"amount": "40", "fee": "0"})).is_error
            assert not (await client.call_tool("settle", {"net": "-0", "fee": "60"})).is_error
            assert (await client.call_tool("pay", {"amount": "0", "fee": "0.0001"})).is_error
    assert len(ran) == 2


@pytest.mark.parametrize(
    "annotation",
    [
        *(Amount, Amount | None, Named, Alias, dict[str, Amount], tuple[Amount, ...]),
        *(Order, Order | None, list[Order], Line, Sums),
    ],
)
def test_what_is_excluded_cannot_be_spent(annotation: Any, tmp_path: Path) -> None:
    """No policy sees it, so nobody counts it: not inside of anything either."""
    guard, server = make(tmp_path)

    async def pay(amount: str, reason: str) -> None: ...

    pay.__annotations__["amount"] = annotation
    server.tool()(guard.tool(exclude={"amount"})(pay))
    with pytest.raises(ConfigurationError, match=r"tool `pay` spends `amount`.*out of exclude="):
        guard.attach(server)


class Tree(BaseModel):
    """A type that contains itself."""

    children: list[Tree]


async def unread() -> Unread:
    """Return one."""
    raise NotImplementedError


@pytest.mark.parametrize("annotation", [Tree, Any, Annotated[Unread, Resolve(unread)]])
def test_what_spends_nothing_can_be_kept_from_policies(annotation: Any, tmp_path: Path) -> None:
    """Whatever its type is."""
    guard, server = make(tmp_path)

    async def plant(tree: Any, amount: Any) -> None: ...

    plant.__annotations__.update(tree=annotation, amount=Amount)
    exclude = () if "Resolve" in str(annotation) else {"tree"}
    server.tool()(guard.tool(exclude=exclude)(plant))
    guard.attach(server)


def of_class() -> Callable[..., Any]:
    """Name no total."""

    async def pay(amount: Annotated[Decimal, Spend]) -> None: ...

    pay.__annotations__["amount"] = Annotated[Decimal, Spend]
    return pay


def of_default() -> Callable[..., Any]:
    """Write it where other libraries have such things."""
    spend: Any = Spend("payments")

    async def pay(amount: Decimal = spend) -> None: ...

    pay.__annotations__["amount"] = Decimal
    return pay


def of_resolver() -> Callable[..., Any]:
    """Spend what is known only once the call was judged."""

    async def pay(account: str, amount: Decimal) -> None: ...

    pay.__annotations__["amount"] = Annotated[Decimal, Resolve(amount), Spend("payments")]
    return pay


def test_what_is_spent_inside_of_another_argument_is_refused(tmp_path: Path) -> None:
    """How much it comes to is for the facts to say."""
    guard, server = make(tmp_path)

    @server.tool()
    @guard.tool
    async def pay(orders: list[Order]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"`payments` is spent inside of `orders`.*let facts= return the sum"):
        guard.attach(server)


@pytest.mark.parametrize(
    ("made", "fix"),
    [
        (of_class, 'write `Annotated[Decimal, Spend("payments")]`'),
        (of_default, 'write `Annotated[Decimal, Spend("payments")]`'),
        (of_resolver, "which no caller gives: let the tool add it with guard.spend"),
    ],
)
def test_spend_in_the_wrong_place_is_refused(made: Callable[[], Callable[..., Any]], fix: str, tmp_path: Path) -> None:
    """It would say nothing to anybody, and whoever wrote it relies on it."""
    guard, server = make(tmp_path)
    server.tool()(guard.tool(made()))
    with pytest.raises(ConfigurationError) as refused:
        guard.attach(server)
    assert fix in str(refused.value)


async def test_tool_that_was_replaced_while_it_ran_still_spends(tmp_path: Path) -> None:
    """What is there in its place adds to nothing, and it was let run as it was."""
    guard, server = make(tmp_path, EVERYTHING_ALLOWED)
    began, ended = anyio.Event(), anyio.Event()

    @server.tool()
    @guard.tool(spends={"tokens"})
    async def think() -> str:
        began.set()
        await ended.wait()
        guard.spend("tokens", 5)
        return "thought"

    guard.attach(server)

    @guard.tool
    async def another() -> str:
        return "another"

    async with Client(server) as client, anyio.create_task_group() as tasks:
        with acting_as("agent", run_id="run-1"):
            tasks.start_soon(client.call_tool, "think")
            await began.wait()
            server.remove_tool("think")
            server.add_tool(another, name="think")
            assert "another" in str(await client.call_tool("think", {}))
            ended.set()
    (tally,) = (tally for tally, _ in guard.state.store._tallies.values())  # type: ignore[attr-defined]
    assert tally.spent == {"tokens": 50_000}
