"""A guard on a FastMCP server for tests, and a client on every transport and protocol era."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from fastmcp import FastMCP
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from agentguard import Approver, Entity, Guard, Issuer, State, UnsafeMemoryState
from agentguard.identity.sources import stdio_audience
from tests.world import (
    AUDIENCE,
    EVERYTHING,
    ISSUER,
    SERVER,
    Era,
    Transport,
    http_client,
    listening,
    make_guard,
    write_policies,
)

ALL: Final = '@id("all") permit (principal, action, resource);'
READS: Final = '@id("reads") permit (principal, action == Action::"read", resource);'
TYPES: Final = "entity Record in [Tool] = { sensitivity: String };"
RESTRICTED: Final = (
    ALL
    + """
@id("restricted")
@advice("This record is restricted.")
forbid (principal, action == Action::"read", resource is Record)
when { resource.sensitivity == "restricted" };
"""
)
NOTHING: Final = '@id("nothing") permit (principal, action, resource) when { context.environment == "elsewhere" };'


@dataclass
class Fast:
    """A guard for a FastMCP server, with everything around it within a test's reach."""

    guard: Guard
    server: FastMCP[Any]
    state: State
    issuer: Issuer
    folder: Path
    ran: list[str] = field(default_factory=list)

    def token(self, agent: str = "reader", *, audience: str = AUDIENCE, **claims: Any) -> str:
        """Return a real token of a run of *agent*."""
        return self.issuer.mint(agent=agent, audience=audience, **{"grant": EVERYTHING, **claims})

    def attach(self, unguarded: Literal["deny", "guard"] = "deny", server: FastMCP[Any] | None = None) -> None:
        """Attach the guard; calls in memory have the identity of a run of the reader."""
        os.environ["AGENTGUARD_TOKEN"] = self.token(audience=stdio_audience((server or self.server).name))
        self.guard.attach(server or self.server, unguarded=unguarded)

    def reasons(self) -> list[tuple[str, str]]:
        """Return the action and the reason of every decision, oldest first."""
        kept = [entry.record for entry in self.state.ledger]  # type: ignore[attr-defined]
        return [
            (one["attributes"]["agentguard.action.id"], one["attributes"]["agentguard.decision.reason"])
            for one in kept
            if one["kind"] == "decision"
        ]


def make_fast(
    folder: Path,
    policies: str = ALL,
    *,
    issuer: Issuer | None = None,
    types: str | None = None,
    approver: Approver | None = None,
    **options: Any,
) -> Fast:
    """Return a server with nothing in it yet, and a guard that is not attached."""
    write_policies(folder, policies, types=types)
    issuer = issuer or Issuer(issuer=ISSUER, audience=AUDIENCE)
    state = UnsafeMemoryState()
    guard, _ = make_guard(folder, issuer, state=state, approver=approver)
    return Fast(guard, FastMCP(SERVER, auth=guard.auth(), **options), state, issuer, folder)


def records(fast: Fast) -> None:
    """Give the server a guarded tool for records, of which one is restricted."""

    @fast.guard.entity("Record")
    async def record(record_id: str) -> Entity:
        return Entity({"sensitivity": "restricted" if record_id == "r9" else "normal"})

    @fast.server.tool
    @fast.guard.tool(resource="Record::{record_id}")
    async def read(record_id: str) -> dict[str, str]:
        """Read one record."""
        fast.ran.append(f"read {record_id}")
        return {"id": record_id}


@asynccontextmanager
async def in_memory(fast: Fast, era: Era = "2026-07-28", server: FastMCP[Any] | None = None) -> AsyncIterator[Client]:
    """Connect a client in memory."""
    async with Client((server or fast.server)._mcp_server, mode="legacy" if era == "2025-11-25" else era) as client:
        yield client


@asynccontextmanager
async def served(server: FastMCP[Any], **options: Any) -> AsyncIterator[str]:
    """Serve a server over streamable HTTP on a free loopback port, and give the URL."""
    async with listening(server.http_app(**options), lifespan="on") as root:
        yield f"{root}/mcp"


@asynccontextmanager
async def connected(fast: Fast, transport: Transport, era: Era) -> AsyncIterator[Client]:
    """Connect a real client on one transport in one protocol era."""
    if transport in {"http", "stateless"}:
        async with (
            served(fast.server, stateless_http=transport == "stateless") as url,
            http_client(url, fast.token(), era) as client,
        ):
            yield client
        return
    if transport == "stdio":
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "tests.fast_stdio", str(fast.folder)],
            env={
                **os.environ,
                "AGENTGUARD_TOKEN": fast.token(audience=stdio_audience(SERVER)),
                "WORLD_JWKS": json.dumps(fast.issuer.jwks()),
            },
            cwd=Path(__file__).parent.parent,
        )
        async with Client(parameters, mode="legacy" if era == "2025-11-25" else era) as client:
            yield client
        return
    async with in_memory(fast, era) as client:
        yield client


def structured(result: CallToolResult) -> Any:
    """Return the value of a result, out of the wrapping that FastMCP puts around what is no object."""
    content = result.structured_content
    return content["result"] if isinstance(content, dict) and content.keys() == {"result"} else content
