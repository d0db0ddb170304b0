"""The page on a server that is live: its commands print what it shows, and its policies come into force."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Final

import anyio
import pytest
from mcp import Client

from agentguard import Guard
from agentguard.adapters.lowlevel import tools_of
from agentguard.testing import acting_as
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, without_ids, write_files

PAGE: Final = "docs/pages/how-to/start-on-a-live-server.md"


async def use(place: Path) -> list[bool]:
    """Let two agents work on the server, guarded as `agentguard wrap` guards it; return which calls failed."""
    server = run_path(str(place / "records.py"))["server"]
    guard = Guard(
        place / "policies",
        issuer="https://issuer.example",
        audience="https://records.example/mcp",
        state=place / "state",
        shadow=place / "policies" / "next",
    )
    guard.attach(server, tools=await tools_of(server), unguarded="guard")
    async with Client(server) as client:

        async def fails(tool: str, **arguments: object) -> bool:
            return (await client.call_tool(tool, arguments)).is_error

        with acting_as("billing-agent", task="invoice-42"):
            failed = [await fails("export_records", max_rows=rows) for rows in (200, 800, 200)]
            failed.append(await fails("search_records", text="a"))
        with acting_as("support-agent", user="alice"):
            failed.append(await fails("read_record", record_id="r1"))
            failed.append(await fails("delete_record", record_id="r2"))
    guard.state.close()
    return failed


def plain(text: str) -> list[str]:
    """Return what is printed without what is another each time."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", without_ids(text))
    text = re.sub(r"[0-9]+ (s|min) ago {1,2}", "ago  ", text)
    day = re.compile(
        r"\b(of|from|on) [0-9-]{10}( to [0-9-]{10})?|^[0-9]{2} [A-Z][a-z]{2} *$|[0-9:]{8}(?=  )", re.MULTILINE
    )
    text = day.sub("…", text)
    text = re.sub(r"(?<=  )[0-9a-f]{8}  test-[0-9a-f]{3}", "…", text)
    return [re.sub(" {2,}", "  ", line).strip() for line in text.splitlines() if line.strip()]


def printed(command: str) -> str:
    """Return what a command of the page prints."""
    ours, _, rest = command.partition(" | ")
    ran = agentguard(*shlex.split(ours)[1:]).stdout
    if not rest:
        return ran
    done = subprocess.run(["bash", "-c", rest], input=ran, capture_output=True, text=True, check=True)
    return done.stdout


def test_way_of_the_page_ends_with_policies_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command prints what is shown, in the order of the page, on the evidence of calls that all are allowed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.delenv("COLUMNS", raising=False)
    shutil.copy(ROOT / "examples/records/plain.py", tmp_path / "records.py")
    begin, *others = (block.text for block in blocks(PAGE, "console"))

    assert agentguard(*shlex.split(begin.partition("\n")[0])[2:]).stdout == begin.partition("\n")[2]
    write_files(PAGE, tmp_path)
    assert anyio.run(use, tmp_path) == [False] * 6
    for text in others:
        if "| jq" in text and shutil.which("jq") is None:
            continue
        output = "".join(map(printed, re.findall(r"^\$ (.*)$", text, re.MULTILINE)))
        assert plain(output) == plain(re.sub(r"^\$ .*\n", "", text, flags=re.MULTILINE))

    *moves, _ = blocks(PAGE, "sh")[1].text.splitlines()
    subprocess.run(["bash", "-e", "-c", "\n".join(moves)], check=True)
    ran = [agentguard(*words) for words in (("check", "policies"), ("test", "policies"), ("lock", "policies"))]
    assert [one.status for one in ran] == [0, 0, 0], ran
    assert anyio.run(use, tmp_path) == [False, True, False, False, False, True]
