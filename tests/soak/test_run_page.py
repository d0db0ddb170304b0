"""The page on `agentguard run`: its host starts its server, and its commands say what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from mcp import Client, StdioServerParameters

from agentguard import SQLiteStore
from agentguard.lifecycle import child
from agentguard.lifecycle.states import RunState
from tests.cli.supervised import supervisor
from tests.docs.pages import ROOT, blocks, changed, write_files
from tests.soak.test_tutorial import steps
from tests.world import meta, text

PAGE: Final = "docs/pages/how-to/run-a-command.md"


async def test_host_starts_the_server_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the configuration as it stands there, but for the paths; the run ends with the host's session."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write_files(PAGE, tmp_path)
    (configuration,) = blocks(PAGE, "json")
    here = {"/opt/records/.venv/bin": str(Path(sys.executable).parent), "/opt/records": str(tmp_path)}
    entry = json.loads(changed(configuration.text, here))["mcpServers"]["records"]

    async with Client(StdioServerParameters(**entry, env=dict(os.environ), cwd="/")) as client:
        read = await client.call_tool("read_record", {"record_id": "r1"})
        deleted = await client.call_tool("delete_record", {"record_id": "r1"})

    assert text(read) == "record r1"
    assert meta(deleted)["reason"] == "denied"
    with closing(SQLiteStore(tmp_path / "state" / "agentguard" / "store.db")) as store:
        (run,) = store.runs()
    assert (run.agent, run.user, run.state) == ("billing-agent", "alice", RunState.COMPLETED)


COMMANDS = [step for block in blocks(PAGE, "console") for step in steps(block.text)]


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=range(len(COMMANDS)))
def test_command_of_the_page_says_what_the_page_says(
    command: str, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status, or why it was not started."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    text, semicolon, _ = command.partition("; echo $?")
    program, *arguments = shlex.split(text)

    with supervisor(*arguments, folder=tmp_path) as started:
        said = (started.stdout.read() + started.stderr.read()).splitlines()
        status = started.wait()

    assert program == "agentguard"
    assert said + [str(status)] * bool(semicolon) == shown
    assert semicolon or status == 125


def test_signals_of_the_page_are_those_that_are_handed_on() -> None:
    """All that are held, but for the one that tells of the command's own end."""
    (sentence,) = re.findall(r"\*\*Signals\.\*\* (.*) that are sent", (ROOT / PAGE).read_text("utf-8"))

    assert {signal.Signals[name] for name in re.findall(r"SIG\w+", sentence)} == child._HELD - {signal.SIGCHLD}
