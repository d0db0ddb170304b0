"""The page on what a run has done: its programs print, and its policies decide, as it says."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from pydantic import create_model

from agentguard import Guard, Spend, UnsafeMemoryState
from agentguard.policy.schemas.schema import CONTEXT
from agentguard.testing import acting_as
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python

PAGE: Final = "docs/pages/how-to/run-state.md"
POLICIES: Final = """
@id("all") permit (principal, action, resource);
@id("three") forbid (principal, action, resource) when { context.run.calls >= 3 };
@id("ten") forbid (principal, action, resource) when { context.run.spent.payments.greaterThan(decimal("10.0")) };
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the page's programs ran, with what they printed."""
    folder = tmp_path_factory.mktemp("run-state")
    with redirect_stdout(StringIO()) as output:
        run_python(PAGE, folder)
    (folder / "printed.txt").write_text(output.getvalue())
    return folder


def test_programs_print_what_the_page_says(place: Path) -> None:
    """As two runs, and then as two children of a third."""
    (shown,) = (block.text for block in blocks(PAGE, "text"))
    (delegated,) = re.findall(r"This prints (.*)\.$", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)

    said = shown.splitlines() + re.findall(r"`([^`]+)`", delegated)

    assert (place / "printed.txt").read_text().splitlines() == said


def test_scenarios_of_the_page_hold_its_policies(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to find, and no small change passes unnoticed."""
    monkeypatch.chdir(place)
    assert agentguard("schema", "server.py", "--write", "policies").status == 0

    checked, tested = agentguard("check", "policies"), agentguard("test", "policies", "--mutate")

    assert "no errors\n" in checked.stdout
    assert tested.status == 0
    assert re.search(r"4 covered both ways · (\d+) mutants, \1 noticed", tested.stdout)


def test_schema_says_which_amounts_are_judged(tmp_path: Path) -> None:
    """By what the page puts beside `Spend`, so that whoever is sent there finds it."""
    with redirect_stdout(StringIO()):
        amount = run_python(PAGE, tmp_path)["Amount"]

    shown = create_model("Arguments", amount=(amount, ...)).model_json_schema()["properties"]["amount"]

    assert "four decimal places" in shown["description"]
    assert {"minimum": 0.0, "type": "number"} in shown["anyOf"]


def test_table_has_what_policies_see() -> None:
    """Every member, with its type."""
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`|a record) \|", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)

    declared = re.findall(r"(\w+): (?:\{\}|([\w<>]+))", CONTEXT["run"])

    assert rows == declared


def served(folder: Path) -> tuple[MCPServer, list[str]]:
    """Return a server with tools that fail, that call each other, and that pay; and what ran."""
    (folder / "policies").mkdir()
    (folder / "policies" / "a.cedar").write_text(POLICIES)
    ran: list[str] = []
    guard = Guard(
        folder / "policies",
        issuer="https://issuer.example",
        audience="https://desk.example/mcp",
        state=UnsafeMemoryState(),
    )
    server = MCPServer("desk")

    @server.tool()
    @guard.tool
    async def fail(amount: Annotated[Decimal, Spend("payments")]) -> str:
        ran.append("fail")
        raise ValueError

    @server.tool()
    @guard.tool
    async def look() -> str:
        ran.append("look")
        return "seen"

    @server.tool()
    @guard.tool
    async def outer() -> str:
        ran.append("outer")
        return await look()

    guard.attach(server)
    return server, ran


async def ran_of(folder: Path, *calls: tuple[str, dict[str, Any]]) -> list[str]:
    """Return which tools ran."""
    server, ran = served(folder)
    async with Client(server) as client:
        with acting_as("agent", run_id="one"):
            await client.list_tools()
            for tool, arguments in calls:
                await client.call_tool(tool, arguments)
    return ran


async def test_a_call_that_fails_counts_and_gives_nothing_back(tmp_path: Path) -> None:
    """It was let run."""
    pay: dict[str, Any] = {"amount": "6.00"}

    assert await ran_of(tmp_path, ("fail", pay), ("fail", pay), ("look", {}), ("look", {}), ("look", {})) == [
        "fail",
        "look",
        "look",
    ]


async def test_what_a_tool_calls_counts_and_lists_do_not(tmp_path: Path) -> None:
    """Two for one call of a tool that calls another."""
    assert await ran_of(tmp_path, ("outer", {}), ("look", {}), ("look", {})) == ["outer", "look", "look"]
