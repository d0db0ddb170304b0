"""The page on step-up: its server answers as it shows, and its table of answers is true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2

from agentguard import Issuer, grant_text
from tests.challenges import Caller
from tests.docs.pages import blocks, run_python, without_ids
from tests.docs.test_guard_a_server import loopback_issuer
from tests.world import serving

PAGE: Final = "docs/pages/how-to/step-up.md"
TOOLS: Final = ["read_record", "update_record"]


def started(folder: Path, issuer: Issuer) -> Mapping[str, Any]:
    """Run the page's server with a real issuer in the place of its own."""
    return run_python(PAGE, folder, {"https://issuer.example": issuer.issuer})


def token(issuer: Issuer, *scopes: str, tools: list[str] = TOOLS) -> str:
    """Return a token with *scopes*."""
    return issuer.mint(agent="a", audience="https://records.example/mcp", grant=grant_text(tools=tools), scopes=scopes)


async def test_the_page_shows_what_the_client_sees(tmp_path: Path) -> None:
    """To the last character, but for the decision's id; and the table's lines, one after the other."""
    async with loopback_issuer() as issuer:
        server = started(tmp_path, issuer)["server"]
        async with serving(server, stateless=True) as url, httpx2.AsyncClient() as http:
            few = Caller(http, url, token(issuer), "2026-07-28", number=0)
            challenged = await few.call("update_record", record_id="r1", text="x")
            writer = Caller(http, url, token(issuer, "records:write"), "2026-07-28")
            written = await writer.call("update_record", record_id="r1", text="x")
            sealed = await writer.call("update_record", record_id="r9", text="x")
            narrow = Caller(http, url, token(issuer, tools=["read_record"]), "2026-07-28")
            outside = await narrow.call("update_record", record_id="r1", text="x")
            listed = await few.post("tools/list", {})

    (shown,) = blocks(PAGE, "http")
    head = [f"{name}: {challenged.headers[name]}" for name in ("content-type", "www-authenticate")]
    answer = "\n".join([f"HTTP/1.1 {challenged.status_code} Forbidden", *head, "", challenged.text])
    assert without_ids(answer) == without_ids(shown.text.rstrip())
    assert "record r1 is now x" in written.text
    assert [(reply.status_code, json.loads(reply.text)["result"]["isError"]) for reply in (sealed, outside)] == [
        (200, True),
        (200, True),
    ]
    assert {tool["name"] for tool in listed.json()["result"]["tools"]} == set(TOOLS)
