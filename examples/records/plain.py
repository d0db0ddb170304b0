"""The clinic's patient records behind a server that nobody has guarded yet.

Its tools say what they do, and ask nobody whether they may::

    .venv/bin/agentguard dev examples.records.plain
"""

from typing import Annotated

from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

from examples.records.data import Column, ExportFormat, Filters, Record, Summary, as_csv, as_rows, sample_records

server = MCPServer("records", instructions="The patient records of a clinic.")
stored = sample_records()


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
async def read_record(record_id: str) -> Record:
    """Read one patient's record."""
    return stored.get(record_id)


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
async def search_records(text: str, filters: Filters | None = None) -> list[Summary]:
    """Search patients by a part of their name."""
    return [
        Summary(record_id=found.record_id, name=found.name, last_visit=found.last_visit, balance=found.balance)
        for found in stored.search(text, filters or Filters())
    ]


@server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))
async def export_records(
    max_rows: Annotated[int, Field(ge=1)],
    columns: tuple[Column, ...] = (Column.RECORD_ID, Column.BALANCE),
    format: ExportFormat = ExportFormat.CSV,  # noqa: A002  the callers' word
) -> str:
    """Export records as one file."""
    rows = as_rows(stored.search("", Filters())[:max_rows], columns)
    return as_csv(rows, columns) if format is ExportFormat.CSV else f"{rows}"


@server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False))
async def delete_record(record_id: str) -> str:
    """Delete one patient's record for good."""
    stored.remove(record_id)
    return f"{record_id} is deleted"
