"""The page on guarding a server: its server runs, its clients reach it, its evidence leads to the cause."""

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import anyio
import anyio.lowlevel
import pytest
from mcp import Client

from agentguard import Issuer, grant_text, stdio_audience
from agentguard.testing import acting_as
from examples.records.issuer import issuer_app
from tests.docs.pages import blocks, changed, run_python, without_ids, write_files
from tests.ports import free_port
from tests.world import free_socket, listening

PAGE: Final = "docs/pages/how-to/guard-a-server.md"


@asynccontextmanager
async def loopback_issuer() -> AsyncIterator[Issuer]:
    """Serve an issuer's two documents, where a server looks for them."""
    bound = free_socket()
    issuer = Issuer(issuer=f"http://127.0.0.1:{bound.getsockname()[1]}")
    async with listening(issuer_app(issuer), bound):
        yield issuer


@contextmanager
def started(folder: Path) -> Iterator[None]:
    """Run `python server.py` for as long as the block lasts, from when it serves."""
    with subprocess.Popen(
        [sys.executable, "server.py"], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "running on" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield
        finally:
            process.terminate()


async def test_clients_of_the_page_reach_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by the page's own lines, over HTTP and over stdio, each with the token that is meant for it."""
    monkeypatch.chdir(tmp_path)
    write_files(PAGE, tmp_path)
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    async with loopback_issuer() as issuer:
        changes = {
            "https://issuer.example": issuer.issuer,
            "https://records.example/mcp": url,
            "port=8000": f"port={port}",
        }
        server = "\n\n".join(changed(block.text, changes) for block in blocks(PAGE, "python") if not block.title)
        (tmp_path / "server.py").write_text(server, "utf-8")
        grant = grant_text(tools=["search_records"])
        client: dict[str, Any] = {}
        exec((tmp_path / "call.py").read_text("utf-8"), client)  # noqa: S102  this is our own page

        def token(audience: str) -> str:
            return issuer.mint(agent="support-agent", grant=grant, audience=audience)

        with anyio.fail_after(60):
            over_stdio = await client["search_over_stdio"](token(stdio_audience("records")))
            other = await client["search_over_stdio"](token(url))
            with started(tmp_path):
                over_http = await client["search_over_http"](url, token(url))

    assert over_stdio == over_http == "Meier 0"
    assert "no identity that can be verified" in other


async def test_denials_are_found_as_the_page_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the log's lines, word for word but for the ids, and by the records in the ledger."""
    (shown,) = (block for block in blocks(PAGE, "text") if "denied" in block.text)
    listed = [{"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": []}]
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "cedarentities.json").write_text(json.dumps(listed))
    sunday = datetime(2027, 2, 28, 12, tzinfo=ZoneInfo("Europe/Zurich")).timestamp()
    zone = 'time_zone="Europe/Zurich",'
    names = run_python(PAGE, tmp_path, {zone: f"{zone} clock=lambda: {sunday},"})
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "alice": ("send_mail", {"to": ["a@clinic.example"], "text": "", "layout": {}}),
        "bob": ("read_record", {"record_id": "r1"}),
    }

    reasons = []
    with caplog.at_level(logging.INFO, "agentguard"):
        caplog.clear()
        for user, (tool, arguments) in calls.items():
            with acting_as("support-agent", user=user, at=sunday, run_id="5d0c7f3a1b2c"):
                async with Client(names["server"]) as client:
                    result = await client.call_tool(tool, arguments)
            assert result.meta is not None
            id_ = result.meta["agentguard/decision"]["id"]
            kept = [entry.record["attributes"] for entry in names["guard"].state.ledger]
            reasons += [one["agentguard.decision.reason"] for one in kept if one.get("agentguard.decision.id") == id_]

    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("denied")]
    assert [without_ids(line) for line in said] == without_ids(shown.text).splitlines()
    assert reasons == ["policy", "missing_entity"]
