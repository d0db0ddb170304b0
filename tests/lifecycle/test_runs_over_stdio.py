"""A run's token file, as a stdio server in a process of its own uses it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.store import MemoryStore
from tests.world import ISSUER, POLICIES, SERVER, meta, write_policies

ROOT = Path(__file__).parents[2]


def server(folder: Path, issuer: Issuer, run: Run) -> StdioServerParameters:
    """Return how to start the world's server as a child that acts as *run*."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "tests.stdio_world", str(folder)],
        env={**os.environ, **run.environment(), "WORLD_JWKS": json.dumps(issuer.jwks())},
        cwd=ROOT,
    )


async def test_child_process_acts_as_the_run_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewal replaces the file under the server, and the end takes it away."""
    kept = tmp_path / "tokens"
    kept.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    folder = write_policies(tmp_path / "policies", POLICIES)
    issuer = Issuer(issuer=ISSUER, audience=stdio_audience(SERVER), store=MemoryStore(clock=lambda: 0))

    async with issuer.run(agent="reader", tools=["read"]) as run, Client(server(folder, issuer, run)) as client:
        first = await client.call_tool("read", {"record_id": "r1"})
        before = run.token()
        run.renew()
        file = run._file
        assert file is not None
        file.refresh()
        assert file.path.read_text() not in {"", before}
        second = await client.call_tool("read", {"record_id": "r1"})
        beyond = await client.call_tool("export", {})
        run.end()
        after = await client.call_tool("read", {"record_id": "r1"})

    assert not first.is_error
    assert not second.is_error
    assert meta(beyond)["reason"] == "denied"
    assert meta(after)["reason"] == "unauthenticated"
    assert not any(kept.iterdir())
