"""The guarded example, as the MCP Inspector's command line sees it."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from agentguard import Issuer
from agentguard.identity.sources import stdio_audience
from examples.records.issuer import billing_token
from examples.records.server import POLICIES
from examples.records.stage import loopback_issuer, records_server
from tests.clients.inspector import Answer, inspect, install

# There is `delete_record` too, which the billing agent may never call.
TOOLS = {"read_record", "search_records", "update_record", "export_records"}
ADVICE = "An export holds at most 500 rows. Ask for fewer."

Transport = Literal["stdio", "http"]
Era = Literal["legacy", "modern"]

# The other two are tried by tests/soak/test_inspector_other_ways.py: each invocation takes two seconds.
each_way = pytest.mark.parametrize(("transport", "era"), [("stdio", "legacy"), ("http", "modern")])


@pytest.fixture(scope="session")
def program() -> Path:
    """Return the Inspector's program."""
    return install()


def over_stdio(issuer: Issuer) -> Sequence[str]:
    """Return the options with which the Inspector starts the server itself."""
    token = billing_token(issuer, stdio_audience("records"))
    server = [sys.executable, "-m", "examples.records.server", "--stdio", "--issuer", issuer.issuer]
    return ["-e", f"AGENTGUARD_TOKEN={token}", "--", *server]


def over_http(issuer: Issuer, url: str) -> Sequence[str]:
    """Return the options with which the Inspector calls a running server."""
    token = billing_token(issuer, url)
    # Without --stored-auth-only a 401 would open a browser to sign in.
    return [
        "--transport",
        "http",
        "--server-url",
        url,
        "--header",
        f"Authorization: Bearer {token}",
        "--stored-auth-only",
    ]


@asynccontextmanager
async def guarded(transport: Transport, folder: Path) -> AsyncIterator[Sequence[str]]:
    """Serve the example and give the options that lead the Inspector to it."""
    async with loopback_issuer() as issuer:
        if transport == "stdio":
            yield over_stdio(issuer)
        else:
            async with records_server(issuer.issuer, policies=POLICIES, folder=folder) as url:
                yield over_http(issuer, url)


async def export(program: Path, folder: Path, era: Era, target: Sequence[str], max_rows: int) -> Answer:
    """Call `export_records` through the Inspector."""
    call = [
        "--method",
        "tools/call",
        "--tool-name",
        "export_records",
        "--tool-args-json",
        f'{{"max_rows": {max_rows}}}',
    ]
    return await inspect(program, folder, *call, "--protocol-era", era, *target)


@each_way
async def test_inspector_lists_the_tools_that_its_agent_could_use(
    program: Path, tmp_path: Path, transport: Transport, era: Era
) -> None:
    """Somebody else's client sees them as if nobody guarded them, and no other."""
    async with guarded(transport, tmp_path) as target:
        answer = await inspect(program, tmp_path, "--method", "tools/list", "--protocol-era", era, *target)

    assert answer.exit_code == 0, answer.errors
    assert {tool["name"] for tool in answer.result["tools"]} == TOOLS


@each_way
async def test_allowed_call_exits_0_with_its_result(
    program: Path, tmp_path: Path, transport: Transport, era: Era
) -> None:
    """An allow is an ordinary result."""
    async with guarded(transport, tmp_path) as target:
        answer = await export(program, tmp_path, era, target, 500)

    assert answer.exit_code == 0, answer.errors
    assert answer.result["isError"] is False
    assert answer.result["structuredContent"]["max_rows"] == 500


@each_way
async def test_denied_call_shows_the_error_and_the_decision(
    program: Path, tmp_path: Path, transport: Transport, era: Era
) -> None:
    """A denial is a tool's error with its decision in ``_meta``; the Inspector exits 5, its code for such errors."""
    async with guarded(transport, tmp_path) as target:
        answer = await export(program, tmp_path, era, target, 501)

    decision = answer.result["_meta"]["agentguard/decision"]
    assert answer.exit_code == 5
    assert answer.result["isError"] is True
    assert decision == {"id": decision["id"], "effect": "deny", "reason": "denied", "retry": "change"}
    assert answer.result["content"][0]["text"] == (
        f"Denied by policy: {ADVICE} Do not repeat this call unchanged. Decision {decision['id']}."
    )
