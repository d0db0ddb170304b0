"""A clinic's patient records as an MCP server whose every call is judged by Cedar policies.

Run it over HTTP, where each request brings its bearer token, or over stdio, where
the token of the one run lies in the environment::

    .venv/bin/python -m examples.records.server --http 8000 --issuer http://127.0.0.1:8900
    AGENTGUARD_TOKEN=… .venv/bin/python -m examples.records.server --stdio --issuer http://127.0.0.1:8900
"""

import json
import socket
import sys
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer
import uvicorn
from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from pydantic import BaseModel, Field

from agentguard import (
    ConfigurationError,
    Entity,
    EntityUid,
    Guard,
    UnsafeMemoryState,
    current_invocation,
)
from examples.records.data import (
    IDENTIFYING,
    Column,
    Contact,
    Export,
    ExportFormat,
    Filters,
    Record,
    Records,
    Summary,
    as_csv,
    as_rows,
    changed,
    sample_records,
)

POLICIES: Final = Path(__file__).with_name("policies")
"""The folder that the security team owns."""

READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
CHANGES: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
SENDS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)
DESTROYS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)


class ExportFacts(BaseModel):
    """What the policies ask about an export and Cedar cannot count."""

    identifying_columns: int


def export_facts(columns: tuple[Column, ...]) -> ExportFacts:
    """Count the columns that say who a patient is."""
    return ExportFacts(identifying_columns=len(IDENTIFYING.intersection(columns)))


def build(
    *,
    issuer: str,
    audience: str,
    policies: Path = POLICIES,
    records: Records | None = None,
    state: Path | None = None,
    search_seconds: float = 0,
    **options: Any,
) -> MCPServer:
    """Make the server, guarded.

    Args:
        issuer: Whose tokens are believed; its keys are found through its metadata.
        audience: The URL of this server, which a token has to be meant for.
        policies: The folder of policies.
        records: The records to serve; four invented ones if none are given.
        state: The folder of the evidence and of the ends of runs, which the issuer keeps there
            too; without it, they are in memory.
        search_seconds: How long a search takes, as it would in a large archive.
        options: Further options of `Guard`, such as a clock.
    """
    stored = records or sample_records()
    guard = Guard(policies, issuer=issuer, audience=audience, state=state or UnsafeMemoryState(), **options)
    server = MCPServer("records", instructions="The patient records of a clinic.", **guard.http_auth())

    @guard.entity("Record")
    async def load_record(record_id: str) -> Entity | None:
        if (record := stored.find(record_id)) is None:
            return None
        return Entity({"sensitivity": record.sensitivity, "patient": EntityUid("Patient", record.patient_id)})

    @server.tool(annotations=READS)
    @guard.tool(resource="Record::{record_id}")
    async def read_record(record_id: str) -> Record:
        """Read one patient's record."""
        return stored.get(record_id)

    @server.tool(annotations=READS)
    @guard.tool
    async def search_records(
        text: str, filters: Filters | None = None, limit: Annotated[int, Field(ge=1, le=100)] = 20
    ) -> list[Summary]:
        """Search patients by a part of their name; restricted records only where the filter asks for them."""
        await anyio.sleep(search_seconds)
        return [
            Summary(record_id=found.record_id, name=found.name, last_visit=found.last_visit, balance=found.balance)
            for found in stored.search(text, filters or Filters())[:limit]
        ]

    @server.tool(annotations=CHANGES)
    @guard.tool(resource="Record::{record_id}")
    async def update_record(
        record_id: str,
        write_off: Annotated[Decimal, Field(gt=0, description="Euros that the patient no longer owes.")] | None = None,
        contact: Contact | None = None,
        next_visit: date | None = None,
        note: Annotated[str, Field(max_length=500)] | None = None,
    ) -> Record:
        """Change one patient's record; what is left out stays as it is."""
        signed = note and f"{current_invocation().agent}: {note}"
        record = changed(
            stored.get(record_id), write_off=write_off, contact=contact, next_visit=next_visit, note=signed
        )
        stored.put(record)
        return record

    @server.tool(annotations=SENDS)
    @guard.tool(facts=export_facts)
    def export_records(
        max_rows: Annotated[int, Field(ge=1)],
        format: ExportFormat = ExportFormat.CSV,  # noqa: A002  the callers' word
        columns: tuple[Column, ...] = (Column.RECORD_ID, Column.LAST_VISIT, Column.BALANCE),
        filters: Filters | None = None,
    ) -> Export:
        """Export what a search finds as one file."""
        rows = as_rows(stored.search("", filters or Filters())[:max_rows], columns)
        content = as_csv(rows, columns) if format is ExportFormat.CSV else json.dumps(rows)
        return Export(format=format, max_rows=max_rows, rows=len(rows), content=content)

    @server.tool(annotations=DESTROYS)
    @guard.tool(resource="Record::{record_id}")
    async def delete_record(record_id: str) -> str:
        """Delete one patient's record for good."""
        stored.remove(record_id)
        return f"{record_id} is deleted"

    guard.attach(server)
    return server


def described() -> MCPServer:
    """Make the server as `agentguard schema examples.records.server:described` reads it: it serves nobody."""
    return build(issuer="http://127.0.0.1:8900", audience="http://127.0.0.1:8000/mcp")


def main(
    *,
    issuer: Annotated[str, typer.Option(help="Whose tokens are believed: its URL, whose metadata names its keys.")],
    http: Annotated[int | None, typer.Option(metavar="PORT", help="Serve HTTP on this port; 0 picks one.")] = None,
    stdio: Annotated[bool, typer.Option("--stdio", help="Serve stdio; the token is in AGENTGUARD_TOKEN.")] = False,
    policies: Annotated[Path, typer.Option(help="The folder of policies.")] = POLICIES,
    state: Annotated[Path | None, typer.Option(help="The folder of the evidence and the ends of runs.")] = None,
    search_seconds: Annotated[float, typer.Option(help="How long a search takes.")] = 0,
    spans: Annotated[Path | None, typer.Option(help="Append each span to this file, one JSON object a line.")] = None,
) -> None:
    """Serve the records until stopped. Over HTTP the server's URL is the one line on standard output."""
    if stdio is (http is not None):
        message = "choose one of --http PORT and --stdio"
        raise typer.BadParameter(message)
    with ExitStack() as closing:
        if spans is not None:
            # A span is written when it ends, not in batches: whoever reads the file
            # after an answer finds every span that led to it.
            exporter = ConsoleSpanExporter(
                out=closing.enter_context(spans.open("a", encoding="utf-8")),
                formatter=lambda span: span.to_json(indent=None) + "\n",
            )
            provider = TracerProvider(resource=Resource.create({"service.name": "records"}))
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
        options: dict[str, Any] = {
            "issuer": issuer,
            "policies": policies,
            "state": state,
            "search_seconds": search_seconds,
        }
        try:
            if http is None:
                build(audience="http://127.0.0.1/mcp", **options).run("stdio")
            else:
                anyio.run(_serve, http, options)
        except ConfigurationError as mistake:
            print(mistake, file=sys.stderr)
            raise typer.Exit(1) from None


async def _serve(port: int, options: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", port)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        app = build(audience=url, **options).streamable_http_app()
        print(url, flush=True)
        await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listening])


if __name__ == "__main__":
    typer.run(main)
