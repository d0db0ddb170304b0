"""A small guarded server for tests, and a client on every transport and protocol era."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import anyio.lowlevel
import httpx2
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agentguard import (
    Entity,
    FixedKeys,
    Guard,
    InvocationVerifier,
    Issuer,
    State,
    TrustedIssuer,
    UnsafeMemoryState,
)
from agentguard.identity.sources import stdio_audience

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "http://127.0.0.1/mcp"
SERVER: Final = "records"
Transport = Literal["memory", "stdio", "http", "stateless"]
Era = Literal["2025-11-25", "2026-07-28"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("memory", "stdio", "http", "stateless")
ERAS: Final[tuple[Era, ...]] = ("2025-11-25", "2026-07-28")
EVERYTHING: Final = "permit (principal, action, resource);"

POLICIES: Final = """
@id("reads")
permit (principal in Agent::"reader", action == Action::"read", resource);

@id("restricted")
@advice("This record is restricted.")
forbid (principal, action == Action::"read", resource is Record)
when { resource.sensitivity == "restricted" };

@id("exports")
permit (principal in Agent::"reader", action == Action::"export", resource);

@id("row-limit")
@advice("At most 500 rows.")
forbid (principal, action == Action::"export", resource)
when { context.input.max_rows > 500 };
"""
NESTED: Final = POLICIES + '@id("nested") permit (principal, action == Action::"nested", resource);'
TYPES: Final = 'entity Record in [Tool] = { sensitivity: String, "patient"?: User };'


class Record(BaseModel):
    """What `read` returns."""

    record_id: str
    text: str


def write_policies(
    folder: Path, policies: str = POLICIES, *, types: str | None = TYPES, entities: object = None
) -> Path:
    """Write a policy folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policies.cedar").write_text(policies)
    if types is not None:
        (folder / "types").mkdir(exist_ok=True)
        (folder / "types" / "records.cedarschema").write_text(types)
    if entities is not None:
        (folder / "cedarentities.json").write_text(json.dumps(entities))
    return folder


@dataclass
class World:
    """A guard on a server, with everything around it within a test's reach."""

    guard: Guard
    server: MCPServer[Any]
    state: State
    exporter: InMemorySpanExporter
    issuer: Issuer
    folder: Path
    ran: list[str] = field(default_factory=list)

    def token(self, agent: str = "reader", *, audience: str = AUDIENCE, **claims: Any) -> str:
        """Return a real token of a run of *agent*."""
        claims.setdefault("grant", EVERYTHING)
        return self.issuer.mint(agent=agent, audience=audience, **claims)

    def records(self, kind: str = "decision") -> list[dict[str, Any]]:
        """Return the attributes of every record of one kind, oldest first."""
        return [entry.record["attributes"] for entry in self.state.ledger if entry.record["kind"] == kind]  # type: ignore[attr-defined]


def make_guard(
    folder: Path,
    issuer: Issuer,
    *,
    state: State | None = None,
    clock: Callable[[], float] | None = None,
    **options: Any,
) -> tuple[Guard, InMemorySpanExporter]:
    """Return a guard that trusts *issuer*, and where its spans go."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    timing: dict[str, Any] = {} if clock is None else {"clock": clock}
    verifier = InvocationVerifier(
        TrustedIssuer(issuer=issuer.issuer), audience=AUDIENCE, keys={issuer.issuer: FixedKeys(issuer.jwks())}, **timing
    )
    guard = Guard(
        folder, verifier=verifier, state=state or UnsafeMemoryState(), tracer_provider=provider, **timing, **options
    )
    return guard, exporter


def make_world(
    folder: Path,
    *,
    policies: str = POLICIES,
    types: str | None = TYPES,
    issuer: Issuer | None = None,
    identity: Literal["environment", "meta"] = "environment",
    attach: bool = True,
    agent: str | None = "reader",
    extend: Callable[[World], None] | None = None,
    **options: Any,
) -> World:
    """Return a guarded server with two tools, and whatever *extend* adds before it is attached.

    Calls in memory have the identity of a run of *agent*, from the environment.
    """
    write_policies(folder, policies, types=types)
    issuer = issuer or Issuer(issuer=ISSUER, audience=AUDIENCE)
    state = options.pop("state", None) or UnsafeMemoryState()
    guard, exporter = make_guard(folder, issuer, state=state, **options)
    server = MCPServer(SERVER, **guard.http_auth())
    world = World(guard, server, state, exporter, issuer, folder)

    @guard.entity("Record")
    async def record(record_id: str) -> Entity | None:
        if record_id.startswith("nobody"):
            return None
        return Entity({"sensitivity": "restricted" if record_id == "r9" else "normal"})

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    @guard.tool(resource="Record::{record_id}")
    async def read(record_id: str) -> Record:
        """Read one record."""
        world.ran.append(f"read {record_id}")
        return Record(record_id=record_id, text="secret of the patient")

    @server.tool(annotations=ToolAnnotations(destructive_hint=False))
    @guard.tool
    def export(max_rows: int = 10, fmt: Literal["csv", "json"] = "csv") -> str:
        """Export many records."""
        world.ran.append(f"export {max_rows!r} {fmt}")
        return f"{max_rows} rows"

    if extend is not None:
        extend(world)
    if attach and agent is not None:
        os.environ["AGENTGUARD_TOKEN"] = world.token(agent, audience=stdio_audience(SERVER))
    if attach:
        guard.attach(server, identity=identity)
    return world


def free_socket() -> socket.socket:
    """Return a bound loopback socket on a free port."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


@asynccontextmanager
async def served(world: World, *, stateless: bool = False, **options: Any) -> AsyncIterator[str]:
    """Serve a world over streamable HTTP on a free loopback port, and give the URL."""
    async with serving(world.server, stateless=stateless, **options) as url:
        yield url


@asynccontextmanager
async def serving(mcp: MCPServer[Any], *, stateless: bool = False, **options: Any) -> AsyncIterator[str]:
    """Serve any server so, its application made with *options*."""
    async with listening(mcp.streamable_http_app(stateless_http=stateless, **options)) as root:
        yield f"{root}/mcp"


@asynccontextmanager
async def listening(app: Any, bound: socket.socket | None = None, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free loopback port, or on a bound one, and give its root."""
    with bound or free_socket() as here:
        server = uvicorn.Server(uvicorn.Config(app, **{"log_level": "error", "ws": "none", **options}))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [here])
            while not server.started:
                await anyio.lowlevel.checkpoint()
            try:
                yield f"http://127.0.0.1:{here.getsockname()[1]}"
            finally:
                server.should_exit = True


@asynccontextmanager
async def http_client(
    url: str, token: str | None, era: Era = "2026-07-28", *, hooks: Any = None, **options: Any
) -> AsyncIterator[Client]:
    """Connect over HTTP with a bearer token; *hooks* are those of the HTTP client."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, event_hooks=hooks) as http,
        Client(streamable_http_client(url, http_client=http), mode=_mode(era), **options) as client,
    ):
        yield client


def _mode(era: Era) -> Any:
    return "legacy" if era == "2025-11-25" else era


@asynccontextmanager
async def connected(
    world: World, transport: Transport, era: Era, agent: str = "reader", **claims: Any
) -> AsyncIterator[Client]:
    """Connect a real client, as a run of *agent*, on one transport in one protocol era."""
    if transport in {"http", "stateless"}:
        async with (
            served(world, stateless=transport == "stateless") as url,
            http_client(url, world.token(agent, **claims), era) as client,
        ):
            yield client
        return
    if transport == "stdio":
        token = world.token(agent, audience=stdio_audience(SERVER), **claims)
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "tests.stdio_world", str(world.folder)],
            env={**os.environ, "AGENTGUARD_TOKEN": token, "WORLD_JWKS": json.dumps(world.issuer.jwks())},
            cwd=Path(__file__).parent.parent,
        )
        async with Client(parameters, mode=_mode(era)) as client:
            yield client
        return
    assert agent == "reader", "in memory, the identity is the one that the world was made with"
    async with Client(world.server, mode=_mode(era)) as client:
        yield client


def meta(result: CallToolResult) -> dict[str, str]:
    """Return what a denied result says to a program."""
    assert result.is_error
    assert result.meta is not None
    told: dict[str, str] = result.meta["agentguard/decision"]
    return told


def text(result: CallToolResult) -> str:
    """Return what a result says to a model."""
    return "".join(block.text for block in result.content if block.type == "text")
