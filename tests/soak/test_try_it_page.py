"""The pages on `agentguard dev` and `agentguard wrap`, as a host and a person follow them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from agentguard.cli.starter import NAME, STARTER
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import local_issuer
from tests.cli.commands import agentguard
from tests.cli.serving import on_http, on_stdio, written
from tests.docs.pages import blocks, changed, write_files
from tests.soak.test_tutorial import steps
from tests.world import ERAS, Era, http_client, meta, text

TRY: Final = "docs/pages/how-to/try-it.md"
WRAP: Final = "docs/pages/how-to/wrap.md"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget what was loaded from it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("server", None)


def entry(page: str, paths: dict[str, str]) -> dict[str, Any]:
    """Return how the page's host starts its server."""
    (configuration,) = blocks(page, "json")
    found: dict[str, Any] = json.loads(changed(configuration.text, paths))["mcpServers"]["records"]
    return found


async def test_host_starts_dev_as_the_page_says(place: Path) -> None:
    """From any folder: the policies are written beside the server, and two calls are decided by them."""
    write_files(TRY, place)
    (place / "policies" / NAME).unlink()
    paths = {"/home/you/records/.venv/bin": str(Path(sys.executable).parent), "/home/you/records": str(place)}
    started = entry(TRY, paths)
    # A host has no shell's path and no virtual environment.
    assert Path(started["command"]).is_absolute()

    async with Client(
        StdioServerParameters(command=started["command"], args=started["args"], env=dict(os.environ), cwd="/")
    ) as client:
        read = await client.call_tool("read_record", {"record_id": "r1"})
        deleted = await client.call_tool("delete_record", {"record_id": "r1"})

    assert text(read) == "record r1"
    assert meta(deleted)["reason"] == "approval"
    assert (place / "policies" / NAME).read_text() == STARTER
    (added,) = [block.text for block in blocks(TRY, "shell") if block.text.startswith("claude ")]
    assert shlex.split(changed(added, paths))[5:] == [
        started["command"],
        *started["args"],
    ]


def test_policies_of_the_page_are_those_that_dev_writes() -> None:
    """To the letter."""
    (block,) = blocks(TRY, "cedar")

    assert (block.title, block.text) == (f"policies/{NAME}", STARTER)


def test_dev_prints_what_the_page_shows(place: Path) -> None:
    """But for what is another one each time: the folder, the port, the secret, the time, the ids."""
    write_files(TRY, place)
    (place / "policies" / NAME).unlink()
    shown = [line for block in blocks(TRY, "console") for step, lines in steps(block.text)[:1] for line in lines]
    shown += blocks(TRY, "text")[0].text.splitlines()

    async def session(url: str) -> None:
        (secret,) = set(re.findall(r"dev-[\w-]+", written()))
        async with http_client(url, secret) as client:
            await client.call_tool("read_record", {"record_id": "r1"})
            await client.call_tool("delete_record", {"record_id": "r1"})

    with on_http(session):
        ran = agentguard("dev", "server.py", "--port", "0")

    def plain(line: str) -> str:
        line = re.sub(
            r"\bdev-[\w-]{10,}|dev-…", "SECRET", line.replace(" state/agentguard/", " ~/.local/state/agentguard/")
        )
        line = re.sub(r"127\.0\.0\.1:\d+|[0-9A-Z]{26}|\d\d:\d\d:\d\d|\b[0-9a-f]{8}\b", "…", line)
        return re.sub(r"/\S+/policies/10-s", "policies/10-s", line)

    assert [plain(line) for line in ran.stderr.splitlines()] == [plain(line) for line in shown]


@pytest.mark.parametrize("era", ERAS)
def test_host_starts_wrap_as_the_page_says(place: Path, monkeypatch: pytest.MonkeyPatch, era: Era) -> None:
    """With what `agentguard run` would give it: the grant, a permit and a forbid decide."""
    write_files(WRAP, place)
    started = entry(WRAP, {"/opt/records": str(place)})
    run, wrapped = " ".join(started["args"]).split(" -- ")
    audience = stdio_audience("records")
    assert run == "run --agent billing-agent --tool read_record --server records"
    monkeypatch.setenv(
        "AGENTGUARD_TOKEN",
        local_issuer(audience=audience).begin(agent="billing-agent", tools=["read_record"]).token(),
    )
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        for tool, id_ in (("read_record", "7"), ("read_record", "r-9"), ("delete_record", "7")):
            answers.append(await client.call_tool(tool, {"record_id": id_}))

    ran = on_stdio(session, era, *wrapped.split()[1:])

    assert (ran.status, text(answers[0])) == (0, "record 7")
    assert text(answers[1]).startswith("Denied by policy: Records of department r are restricted.")
    assert meta(answers[2])["reason"] == "denied"
    assert (place / "state" / "agentguard" / "servers" / "records" / "evidence").is_dir()


def test_wrap_prints_what_the_page_shows(place: Path) -> None:
    """Over HTTP, but for the port and the folder."""
    write_files(WRAP, place)
    (shown,) = [
        lines for block in blocks(WRAP, "console") for step, lines in steps(block.text) if step.endswith("--http 8000")
    ]

    async def session(url: str) -> None:
        """Nobody calls."""

    with on_http(session):
        ran = agentguard("wrap", "server.py", "--policies", "policies", "--http", "0")

    def plain(line: str) -> str:
        return re.sub(r"127\.0\.0\.1:\d+|`/\S+/policies`", "…", line)

    assert [plain(line) for line in ran.stderr.splitlines() if "WARNING" not in line] == [plain(line) for line in shown]
