"""The page on one folder for several servers: its files fit, and its commands print what it shows."""

import re
import shlex
import sys
from pathlib import Path
from typing import Final

import pytest

from agentguard.policy.files.several import COMMON, SERVERS
from tests.cli.commands import agentguard
from tests.docs.pages import blocks, write_files

PAGE: Final = "docs/pages/how-to/several-servers.md"
FILES: Final = """
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("files")


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def read_file(path: str) -> str:
    return path


@server.tool(annotations=ToolAnnotations(open_world_hint=False))
def delete_file(path: str) -> str:
    return path
"""
EXPORTS: Final = """
@id("no-exports")
@owner("security@example.com")
forbid (principal, action == Action::"export_records", resource);
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the page's policies, and two servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "records.py").write_text("from examples.records.plain import server as server\n")
    (tmp_path / "files.py").write_text(FILES)
    write_files(PAGE, tmp_path)
    return tmp_path


def test_commands_print_what_the_page_shows_and_a_tool_in_common_is_refused(place: Path) -> None:
    """In the order of the page."""
    shown = [block.text for block in blocks(PAGE, "console")]
    tree, refused = (block.text for block in blocks(PAGE, "text"))

    for text in shown:
        printed = ""
        for line in re.findall(r"^\$ agentguard (.*)$", text, re.MULTILINE):
            printed += agentguard(*shlex.split(line)).stdout
        assert re.sub(r"sha256:[0-9a-f]+", "sha256:…", printed) == re.sub(r"^\$ .*\n", "", text, flags=re.MULTILINE)
    common = place / "policies/common/10-everywhere.cedar"
    common.write_text(common.read_text() + EXPORTS)
    ran = agentguard("check", "policies/servers/records")

    assert (ran.status, ran.stdout.splitlines()[0]) == (1, refused.strip()), ran.stdout
    assert (place / f"policies/{COMMON}").is_dir()
    assert {f"{COMMON}/", f"{SERVERS}/"} <= set(tree.split())
