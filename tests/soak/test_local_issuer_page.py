"""The page on the local issuer, followed word for word; and the page of commands is what the commands say."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import anyio
import pytest

from agentguard import UnsafeLocalIssuer
from agentguard.lifecycle.local import ISSUER, local_folder
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, changed, run_python, write_files
from tests.ports import free_port
from tests.soak.test_tutorial import steps

PAGE: Final = "docs/pages/how-to/local-issuer.md"


@contextmanager
def serving(folder: Path, port: int, environ: dict[str, str]) -> Iterator[None]:
    """Run the page's server until the block is left."""
    log = folder / "server.log"
    with (
        log.open("w") as opened,
        subprocess.Popen([sys.executable, "server.py"], cwd=folder, env=environ, stderr=opened) as server,
    ):
        try:
            while True:
                assert server.poll() is None, log.read_text()
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            yield
        finally:
            server.terminate()
    assert "the local issuer is trusted" in log.read_text()


def plain(line: str) -> str:
    """Return a line without what differs: times, ids, and the width that they have."""
    line = re.sub(r"\b[0-9a-f]{32}\b", "ID", line)
    return re.sub(r" +", " ", re.sub(r"\b(\d+m )?\d+s\b", "TIME", line))


def run(command: str, folder: Path, environ: dict[str, str]) -> list[str]:
    """Run a command of the page, and return what a terminal shows."""
    name, _, text = re.fullmatch(r"(?:export (\w+)=(\$\())?(.*?)\)?", command).groups()  # type: ignore[union-attr]
    program, *arguments = shlex.split(text)
    if program == "agentguard":
        # What the server counted reaches the store within a second.
        while arguments == ["runs"] and agentguard("runs", "--json").json[0]["calls"] == 0:
            time.sleep(0.02)
        ran = agentguard(*arguments)
        assert ran.status == 0, ran.stderr
        if name:
            environ[name] = ran.stdout.strip()
            return []
        return (ran.stdout + ran.stderr).splitlines()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_page_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server, a token, a denial by the grant, a table, an end that the server sees."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COLUMNS", raising=False)
    port = free_port()
    changes = {":8000": f":{port}", "port=8000": f"port={port}"}
    write_files(PAGE, tmp_path)
    for file in ("server.py", "agent.py", "orchestrator.py"):
        (tmp_path / file).write_text(changed((tmp_path / file).read_text(), changes))
    commands = [step for block in blocks(PAGE, "console") for step in steps(block.text)]
    environ = {**os.environ}

    with serving(tmp_path, port, environ):
        printed = [run(changed(command, changes), tmp_path, environ) for command, _ in commands]

        local = UnsafeLocalIssuer()
        with closing(local.store):
            program = runpy.run_path(str(tmp_path / "orchestrator.py"))
            answered = anyio.run(program["read_as_a_run"], local, "r1")

    assert answered == "record r1"
    assert len(printed) == 5
    for (command, wanted), lines in zip(commands, printed, strict=True):
        assert [plain(line) for line in lines] == [plain(changed(line, changes)) for line in wanted], command


def test_facts_of_the_page_are_those_of_the_code() -> None:
    """Names of files and of the issuer."""
    text = (ROOT / PAGE).read_text("utf-8")

    assert f"`{ISSUER}`" in text
    assert local_folder({}) == Path.home() / ".local/state/agentguard"
    assert "`~/.local/state/agentguard`" in text


def test_servers_of_the_page_are_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both attach, and keep their runs in the local issuer's store."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AGENTGUARD_TOKEN", "of the agent")

    names = run_python(PAGE, tmp_path)

    assert names["guard"].state.store.path == tmp_path / "state" / "agentguard" / "store.db"
    assert names["stdio_guard"].state.store.path == names["guard"].state.store.path
    for guard in (names["guard"], names["stdio_guard"]):
        guard.state.close()


def test_page_of_commands_is_what_the_commands_say() -> None:
    """Where it is not, `.venv/bin/python docs/commands.py` writes it anew."""
    made = runpy.run_path(str(ROOT / "docs" / "commands.py"))

    assert made["PAGE"].read_text("utf-8") == made["commands_page"]()
    assert "| `--port NUMBER` | The port. Default: `8080`. |" in made["commands_page"]()
    assert "`--watch` | Repaint every second, until Ctrl-C. |" in made["commands_page"]()
