"""The page on FastMCP: its server runs, and does what the page says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastmcp import FastMCP
from mcp import Client

from agentguard.testing import acting_as
from tests.docs.pages import run_python
from tests.fast import structured
from tests.world import text

PAGE = "docs/pages/how-to/fastmcp.md"


async def test_server_of_the_page_is_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tools, the one that is mounted included, its resource and its prompt are judged by the page's policies."""
    monkeypatch.chdir(tmp_path)
    server = run_python(PAGE, tmp_path)["server"]
    assert isinstance(server, FastMCP)

    with acting_as(agent="support-agent"):
        async with Client(server._mcp_server) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            found = await client.call_tool("search_records", {"text": "Meier", "limit": 1})
            counted = await client.call_tool("count_records", {})
            restored = await client.call_tool("archive_restore", {"record_id": "r1"})
            denied = await client.call_tool("archive_restore", {"record_id": "r1", "copies": 2})
            read = await client.read_resource("records://r1/summary")
            prompt = await client.get_prompt("review", {"record_id": "r1"})

    assert tools == {"search_records", "count_records", "archive_restore"}
    assert structured(found) == ["Meier 0"]
    assert structured(counted) == "3 records in the database of records"
    assert structured(restored) == "1 of r1"
    assert text(denied).startswith("Denied by policy: Restore one copy at a time.")
    assert getattr(read.contents[0], "text", "") == "summary of r1"
    assert getattr(prompt.messages[0].content, "text", "") == "Review record r1."
