"""The page on baseline policies: it shows what the command writes, for the server that it shows."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from runpy import run_path
from typing import Final

import anyio
import pytest
from mcp import Client

from agentguard.policy.baselines import NAMES
from agentguard.testing import acting_as
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, without_ids

PAGE: Final = "docs/pages/how-to/baseline-policies.md"
# Monday, 2026-01-05 12:00 UTC: in office hours.
NOON: Final = 1_767_614_400.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the page's server."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (server,) = (block.text for block in blocks(PAGE) if block.title == "server.py")
    (tmp_path / "server.py").write_text(server, "utf-8")
    return tmp_path


def test_page_shows_the_files_that_the_command_writes(place: Path) -> None:
    """Policies and scenarios, each in full; and nothing is wrong with them."""
    shown = {block.title: block.text for block in blocks(PAGE) if block.title.startswith("policies/")}

    ran = agentguard("init", "policies", "--server", "server.py", "--baseline", "all")

    assert (ran.status, ran.stderr) == (0, "")
    assert shown == {
        name: (place / name).read_text("utf-8")
        for baseline in NAMES
        for name in (f"policies/30-{baseline}.cedar", f"policies/scenarios/{baseline}.test.yaml")
    }
    assert agentguard("check", "policies").status == 0
    assert agentguard("test", "policies").status == 0


def test_commands_print_what_the_page_shows(place: Path) -> None:
    """In the order of the page."""
    for block in blocks(PAGE, "console"):
        line, _, output = block.text.partition("\n")
        ran = agentguard(*shlex.split(line.removeprefix("$ agentguard ")))
        assert (ran.status, ran.stderr) == (0, "")
        # Of one, only that it works is of interest.
        assert output in {"", ran.stdout}


def test_every_baseline_has_its_section() -> None:
    """And a row in the table that leads to it."""
    text = (ROOT / PAGE).read_text("utf-8")

    assert all(f"\n## {name}\n" in text and f"[`{name}`](#{name})" in text for name in NAMES)


def test_callers_are_told_what_the_page_shows(place: Path) -> None:
    """By a real server under the page's policies, whose client can ask nobody."""
    agentguard("init", "policies", "--server", "server.py", "--baseline", "budget", "--baseline", "untrusted-to-egress")
    shutil.rmtree(place / "policies" / "scenarios")
    server = run_path(str(place / "server.py"))["server"]

    async def told() -> list[str]:
        answers = []
        async with Client(server) as client:
            with acting_as("example-agent", user="alice", run_id="one"):
                for tool, arguments in (
                    ("pay", {"account": "A", "amount": "100.01"}),
                    ("read_mail", {"message_id": "m1"}),
                    ("pay", {"account": "A", "amount": "1.00"}),
                ):
                    answer = await client.call_tool(tool, arguments)
                    answers += [block.text for block in answer.content if answer.is_error and block.type == "text"]
        return answers

    (shown,) = (block.text for block in blocks(PAGE, "text"))
    assert [without_ids(text) for text in anyio.run(told)] == shown.splitlines()
