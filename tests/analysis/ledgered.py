"""A guarded server that has been in use: its policies, its schema, and what its guard kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import anyio
from mcp import Client
from mcp_types import ToolAnnotations

from agentguard.guarding.offering import COLLECTING, Collected
from agentguard.limits import Limits
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, write_schema
from agentguard.testing import acting_as
from tests.world import World, make_world, write_policies

LISTED: Final = [
    {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []},
    {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
    {"uid": {"type": "User", "id": "bob"}, "attrs": {}, "parents": []},
]
POLICIES: Final = """\
@id("reads")
@owner("clinic@example.com")
permit (
  principal in Agent::"reader",
  action in [Action::"read", Action::"export", Action::"amend"],
  resource
) when { principal has user };

@id("ships")
permit (principal in Agent::"shipper", action, resource);

@id("idle")
permit (principal in Agent::"nobody", action, resource);

@id("row-limit")
forbid (principal, action in [Action::"export", Action::"ship"], resource)
when { context.input.max_rows > 500 };

@id("restricted")
forbid (principal, action, resource is Record)
when { resource.sensitivity == "restricted" };
"""
TYPES: Final = "entity Record in [Tool] = { sensitivity: String };"
LOCAL: Final = ToolAnnotations(destructive_hint=False, open_world_hint=False)


def _extend(world: World) -> None:
    """Add a tool whose evidence keeps an argument, and one whose evidence keeps none."""

    @world.server.tool(annotations=LOCAL)
    @world.guard.tool(record_inputs=("max_rows", "note"))
    def ship(max_rows: int, to: str = "x", note: str | None = None) -> str:
        """Ship many records."""
        return to

    @world.server.tool(annotations=LOCAL)
    @world.guard.tool
    def amend(text: str) -> str:
        """Change something."""
        return text


def served(folder: Path, *, state: Path | None = None, policies: str = POLICIES, **options: Any) -> World:
    """Return the server, with its evidence in a state folder if one is named."""
    write_policies(folder, policies, types=TYPES, entities=LISTED)
    if state is not None:
        options["state"] = state
    return make_world(folder, policies=policies, types=TYPES, agent=None, extend=_extend, **options)


async def write_folder(folder: Path, policies: str = POLICIES) -> Path:
    """Write a policy folder with the schema of the server in it."""
    collected = Collected()
    before = COLLECTING.set(collected)
    try:
        served(folder, policies=policies)
    finally:
        COLLECTING.reset(before)
    ((_, book, _),) = collected.guarded
    (folder / FILE).write_text(write_schema(await book.offered(), read_folder(folder, Limits())), "utf-8")
    return folder


def beside(folder: Path, name: str, policies: str) -> Path:
    """Return a copy of a folder with other policies."""
    other = folder.parent / name
    shutil.copytree(folder, other)
    (other / "policies.cedar").write_text(policies)
    return other


async def used(world: World) -> None:
    """Call the tools: twelve decisions, of which five deny."""
    async with Client(world.server) as client:
        with acting_as("reader", user="alice", purpose="care"):
            await client.call_tool("read", {"record_id": "r1"})
            await client.call_tool("read", {"record_id": "r9"})
            await client.call_tool("export", {"max_rows": 10})
            await client.call_tool("export", {"max_rows": 501})
            await client.call_tool("amend", {"text": "secret words"})
        with acting_as("reader", user="bob", purpose="care"):
            await client.call_tool("read", {"record_id": "r2"})
        with acting_as("reader"):
            await client.call_tool("read", {"record_id": "r1"})
            await client.call_tool("amend", {"text": "more secret words"})
        with acting_as("shipper"):
            await client.call_tool("ship", {"max_rows": 100, "to": "somewhere secret"})
            await client.call_tool("ship", {"max_rows": 400, "note": "n"})
            await client.call_tool("ship", {"max_rows": 501})
            await client.call_tool("read", {"record_id": "r1"})


def clinic(root: Path) -> Path:
    """Return a folder with the policies of a server in `policies`, and what it kept in `state`."""

    async def work() -> None:
        await write_folder(root / "policies")
        await used(served(root / "served", state=root / "state"))

    anyio.run(work)
    return root
