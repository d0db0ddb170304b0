"""The page on resources and prompts: its server runs, and its policies do what it says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, MCPError

from agentguard.testing import acting_as
from tests.docs.pages import blocks, run_python

PAGE: Final = "docs/pages/how-to/resources-and-prompts.md"


async def allowed(names: Mapping[str, Any], *, agent: str = "support-agent", **claims: Any) -> list[str]:
    """Return what a run may use of what the page tries out."""
    found = []
    with acting_as(agent, **claims):
        async with Client(names["server"]) as client:
            for uri in (
                "notes://alice/1", "notes://bob/1", "records://r1", "records://r9", "manual://opening-hours", "other://x",
            ):  # fmt: skip
                try:
                    await client.read_resource(uri)
                except MCPError:
                    continue
                found.append(uri)
            for words in ("100", "101"):
                try:
                    await client.get_prompt("summary", {"topic": "x", "words": words})
                except MCPError:
                    continue
                found.append(words)
    return found


async def test_policies_of_the_page_do_what_they_say(tmp_path: Path) -> None:
    """For an author, for the support agent, and for anybody."""
    names = run_python(PAGE, tmp_path)

    assert await allowed(names) == ["records://r1", "manual://opening-hours", "100"]
    assert await allowed(names, agent="other", user="alice") == ["notes://alice/1", "manual://opening-hours", "100"]


async def test_denial_that_the_page_shows_is_what_a_client_gets(tmp_path: Path) -> None:
    """But for the decision's id."""
    names = run_python(PAGE, tmp_path)
    (shown,) = blocks(PAGE, "json")

    with acting_as("support-agent"):
        async with Client(names["server"]) as client:
            with pytest.raises(MCPError) as denied:
                await client.read_resource("records://r9")

    told = denied.value.data["agentguard/decision"]
    assert denied.value.code == -32602
    assert json.loads(shown.text)["agentguard/decision"] == told | {"id": "01J9Z3K0V5Q8M4T7W2X6Y1B3CD"}
