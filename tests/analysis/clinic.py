"""A guarded server and its workspace, written down: what supposed calls are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel

from agentguard import Entity, EntityUid, Guard, Issuer, UnsafeMemoryState
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.guarding.offering import COLLECTING, Collected
from agentguard.limits import Limits
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, write_schema
from tests.world import AUDIENCE, ISSUER, World, make_guard, write_policies

NOW: Final = 2_209_802_400.0
"""Tuesday, 2040-01-10 10:00 UTC: ahead of the clock of any store."""

TYPES: Final = (
    'entity Record in [Tool] = { sensitivity: String, "patient"?: Patient }; entity Patient in [Ward]; entity Ward;'
)
ENTITIES: Final = [
    {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Group", "id": "suspended"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Agent", "id": "reader"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Agent", "id": "exporter"}, "attrs": {}, "parents": []},
    {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
    {"uid": {"type": "User", "id": "bob"}, "attrs": {}, "parents": []},
]
POLICIES: Final = """
@id("reads")
permit (principal in Agent::"reader", action in [Action::"read", Action::"read_many"], resource);

@id("wipes")
permit (principal in Agent::"reader", action == Action::"wipe", resource)
unless { context.input.record_id == "r2" };

@id("exports")
permit (principal, action == Action::"export", resource)
when { principal has purpose && principal.purpose == "month close" };

@id("opens")
permit (principal in Agent::"reader", action == Action::"open_file", resource);

@id("suspended")
forbid (principal in Group::"suspended", action, resource);

@id("restricted")
@advice("This record is restricted.")
forbid (principal, action, resource is Record)
when { resource.sensitivity == "restricted" }
unless { principal has user && principal.user in Group::"staff" };

@id("row-limit")
@advice("At most 500 rows.")
forbid (principal, action == Action::"export", resource)
when { context.input.max_rows > 500 };

@id("no-names")
forbid (principal, action == Action::"export", resource)
when { context.facts.names > 1 };

@id("one-run")
forbid (principal, action == Action::"export", resource)
unless { principal.grade == "run" };

@id("by-day")
forbid (principal, action == Action::"export", resource)
when { context.local.weekday > 5 || context.environment != "production" };

@id("ask")
@obligation("approval")
@advice("A person has to approve this call.")
forbid (principal, action in Action::"destructive", resource)
unless { context has approval && (context.approval.channel == "client" || context.approval has approver) };

@id("overflows")
forbid (principal, action == Action::"read", resource)
when { context.input has note && context.input.note has number && context.input.note.number + 9223372036854775807 < 0 };
"""
LOCAL: Final = ToolAnnotations(destructive_hint=False, open_world_hint=False)
RECORDS: Final[dict[str, tuple[str, str | None]]] = {
    "r1": ("normal", None),
    "r2": ("normal", "p2"),
    "r3": ("normal", "p3"),
    "r9": ("restricted", None),
}


class Note(BaseModel):
    """What somebody adds to a call."""

    text: str = ""
    number: int | None = None


class Facts(BaseModel):
    """What the policies ask of an export."""

    names: int


def facts(columns: tuple[str, ...]) -> Facts:
    """Count the columns that name somebody."""
    return Facts(names=sum(column.startswith("name") for column in columns))


def make_clinic(folder: Path, **options: Any) -> World:
    """Return the server, guarded, with a clock that stands still."""
    write_policies(folder, POLICIES, types=TYPES, entities=ENTITIES)
    state = UnsafeMemoryState()
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    guard, exporter = make_guard(folder, issuer, state=state, clock=lambda: NOW, **options)
    server = MCPServer("clinic", **guard.http_auth())
    _offer(server, guard)
    guard.attach(server)
    return World(guard, server, state, exporter, issuer, folder)


async def written_clinic(folder: Path) -> Workspace:
    """Return the workspace of its folder, with its schema in it."""
    collected = Collected()
    before = COLLECTING.set(collected)
    try:
        make_clinic(folder)
    finally:
        COLLECTING.reset(before)
    ((_, book, _),) = collected.guarded
    text = write_schema(await book.offered(), read_folder(folder, Limits()))
    (folder / FILE).write_text(text, "utf-8")
    return open_workspace(folder)


def _offer(server: MCPServer[Any], guard: Guard) -> None:
    tool = server.tool

    @guard.entity("Record")
    async def record(record_id: str) -> Entity | None:
        if record_id not in RECORDS:
            return None
        sensitivity, patient = RECORDS[record_id]
        return Entity({"sensitivity": sensitivity, "patient": patient and EntityUid("Patient", patient)})

    @guard.entity("Patient")
    async def patient(patient_id: str) -> Entity | None:
        return Entity(parents=[EntityUid("Ward", "w1")]) if patient_id == "p2" else None

    @tool(name="read", annotations=LOCAL)
    @guard.tool(resource="Record::{record_id}")
    def read(record_id: str, note: Note | None = None) -> str:
        """Read a record."""
        return record_id

    @tool(annotations=LOCAL)
    @guard.tool(resource="Record::{record_ids[*]}")
    def read_many(record_ids: list[str]) -> str:
        """Read records."""
        return ",".join(record_ids)

    @tool(name="export", annotations=LOCAL)
    @guard.tool(facts=facts)
    def export(max_rows: int, fmt: Literal["csv", "json"] = "csv", columns: tuple[str, ...] = ()) -> str:
        """Export records."""
        return fmt

    @tool()
    @guard.tool(resource="Record::{record_id}")
    def wipe(record_id: str) -> str:
        """Wipe a record."""
        return record_id

    @tool(annotations=LOCAL)
    @guard.tool(resource="File::{path}", exclude=("path", "mode"))
    def open_file(path: str, mode: str = "r") -> str:
        """Open a file."""
        return path
