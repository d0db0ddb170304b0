"""The page on approvals: its policies ask, its question reads as shown, its desk decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard import Guard, UnsafeMemoryState
from agentguard.testing import acting_as
from tests.approvals import NO, Person
from tests.docs.pages import blocks, run_python
from tests.world import ERAS, Era, meta, text

PAGE: Final = "docs/pages/how-to/approvals.md"


@pytest.mark.parametrize("era", ERAS)
async def test_question_of_the_page_is_asked(era: Era, tmp_path: Path) -> None:
    """Word for word, and with a yes the record is gone."""
    names = run_python(PAGE, tmp_path)
    person = Person()
    mode: Any = "legacy" if era == "2025-11-25" else era

    with acting_as("support", user="alice"):
        async with Client(names["server"], mode=mode, elicitation_callback=person) as client:
            deleted = await client.call_tool("delete_record", {"record_id": "r7"})
            person.answer = NO
            kept = await client.call_tool("delete_record", {"record_id": "r7"})
            large = await client.call_tool("export_records", {"rows": 101})
            small = await client.call_tool("export_records", {"rows": 100})

    (shown,) = blocks(PAGE, "text")
    assert person.seen == [shown.text.strip()] * 2
    assert [deleted.is_error, kept.is_error, large.is_error, small.is_error] == [False, True, True, False]
    assert meta(large)["reason"] == "approval"


async def test_desk_of_the_page_decides(tmp_path: Path) -> None:
    """What the client may not approve, somebody else does; the largest exports at the desk alone."""
    names = run_python(PAGE, tmp_path)
    guard = Guard(
        tmp_path / "policies",
        issuer="https://issuer.example",
        audience="https://records.example/mcp",
        state=UnsafeMemoryState(),
        approver=names["Desk"](),
    )
    server = MCPServer("records", **guard.http_auth())

    @server.tool()
    @guard.tool
    async def delete_record(record_id: str) -> str:
        """Delete one record."""
        return f"deleted {record_id}"

    @server.tool()
    @guard.tool
    async def export_records(rows: int) -> str:
        """Export some records."""
        return f"{rows} rows"

    guard.attach(server)

    results = []
    for user in ("alice", "carol"):
        with acting_as("support", user=user):
            async with Client(server) as client:
                results.append(await client.call_tool("export_records", {"rows": 20_000}))

    assert text(results[0]) == "20000 rows"
    assert meta(results[1])["reason"] == "approval"
    assert names["approver"].channel == "url"
