"""One guarded server, written three times: on `MCPServer`, on the low-level `Server`, on FastMCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import mcp_types
from fastmcp import FastMCP
from mcp import Client
from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agentguard import Entity, Guard, Issuer, State, UnsafeMemoryState
from agentguard.identity.sources import stdio_audience
from tests.world import AUDIENCE, EVERYTHING, ISSUER, SERVER, Era, http_client, listening, make_guard, write_policies

Name = Literal["MCPServer", "low-level Server", "FastMCP"]
Way = Literal["memory", "http"]
NAMES: Final[tuple[Name, ...]] = ("MCPServer", "low-level Server", "FastMCP")
WAYS: Final[tuple[Way, ...]] = ("memory", "http")

POLICIES: Final = """
@id("reads")
permit (principal in Agent::"reader", action, resource)
when { action in [Action::"read", Action::"nested", Action::"slow", Action::"fails"] };

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

@id("pays")
permit (principal in Agent::"reader", action == Action::"pay", resource);

@id("pay-asks")
@obligation("approval")
@approval_prompt("Pay this amount?")
@advice("A person has to approve a payment.")
forbid (principal, action == Action::"pay", resource)
unless { context has approval };

@id("hides")
permit (principal in Agent::"writer", action == Action::"hidden", resource);
"""


class Record(BaseModel):
    """What `read` returns."""

    record_id: str
    text: str


@dataclass
class Built:
    """A guarded server with everything around it within a test's reach.

    Attributes:
        ran: What the tools themselves noted, in order.
        entered: Set once `slow` runs.
        inside: Calls a tool as the framework does in process.
    """

    guard: Guard
    issuer: Issuer
    state: State
    exporter: InMemorySpanExporter
    ran: list[str] = field(default_factory=list)
    entered: anyio.Event = field(default_factory=anyio.Event)
    server: Any = None
    lowlevel: Server[Any] | None = None
    inside: Callable[[str, dict[str, Any]], Awaitable[Any]] | None = None
    app: Callable[[], Any] | None = None

    def records(self, kind: str = "decision") -> list[dict[str, Any]]:
        """Return the attributes of every record of one kind, oldest first."""
        return [entry.record["attributes"] for entry in self.state.ledger if entry.record["kind"] == kind]  # type: ignore[attr-defined]

    def token(self, agent: str = "reader", *, audience: str = AUDIENCE, **claims: Any) -> str:
        """Return a real token of a run of *agent*."""
        return self.issuer.mint(agent=agent, audience=audience, **{"grant": EVERYTHING, **claims})


@dataclass(frozen=True)
class Offered:
    """One tool: its function, and how it is registered."""

    function: Callable[..., Any]
    guarded: Callable[[Callable[..., Any]], Callable[..., Any]]
    annotations: ToolAnnotations | None = None


def offers(built: Built) -> dict[str, Offered]:
    """Return the tools, the same for all."""
    guard = built.guard

    async def read(record_id: str) -> Record:
        """Read one record."""
        built.ran.append(f"read {record_id}")
        return Record(record_id=record_id, text="secret of the patient")

    def export(max_rows: int = 10, fmt: Literal["csv", "json"] = "csv") -> str:
        """Export many records."""
        built.ran.append(f"export {max_rows!r} {fmt}")
        return f"{max_rows} rows"

    async def nested(record_id: str) -> str:
        """Call another tool."""
        assert built.inside is not None
        result = await built.inside("read", {"record_id": record_id})
        built.ran.append(f"nested {record_id}")
        return type(result).__name__

    async def slow() -> str:
        """Wait for ever."""
        built.ran.append("slow")
        built.entered.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def fails(name: str) -> str:
        """Raise."""
        built.ran.append(f"fails {name}")
        message = "the disk of the patient is full"
        raise ValueError(message)

    async def pay(cents: int, to: str) -> str:
        """Pay somebody."""
        built.ran.append(f"pay {cents!r} {to}")
        return "paid"

    async def hidden() -> str:
        """Nobody but the writer has a permit for this."""
        built.ran.append("hidden")
        return "ran"

    async def naked() -> str:
        """No decorator."""
        built.ran.append("naked")
        return "ran"

    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    return {
        "read": Offered(read, guard.tool(resource="Record::{record_id}"), reading),
        "export": Offered(export, guard.tool(), ToolAnnotations(destructive_hint=False)),
        "nested": Offered(nested, guard.tool()),
        "slow": Offered(slow, guard.tool()),
        "fails": Offered(fails, guard.tool()),
        "pay": Offered(pay, guard.tool()),
        "hidden": Offered(hidden, guard.tool()),
        "naked": Offered(naked, lambda function: function),
    }


def on_mcpserver(built: Built, tools: Mapping[str, Offered]) -> None:
    """Build it on the SDK's `MCPServer`."""
    server: MCPServer[Any] = MCPServer(SERVER, **built.guard.http_auth())
    for tool in tools.values():
        server.add_tool(tool.guarded(tool.function), annotations=tool.annotations)
    built.server = server
    built.lowlevel = server._lowlevel_server
    built.inside = server.call_tool
    built.app = server.streamable_http_app
    built.guard.attach(server)


def on_lowlevel(built: Built, tools: Mapping[str, Offered]) -> None:
    """Build it on the SDK's low-level `Server`."""
    listed = []
    for name, tool in tools.items():
        guarded = tool.guarded(tool.function)
        # What a schema of the developer's own hand would be.
        schema = MCPServer("schemas")._tool_manager.add_tool(guarded).parameters
        listed.append(mcp_types.Tool(name=name, input_schema=schema, annotations=tool.annotations))

    async def list_tools(_ctx: Any, _params: Any) -> mcp_types.ListToolsResult:
        return mcp_types.ListToolsResult(tools=listed)

    async def call_tool(_ctx: Any, params: mcp_types.CallToolRequestParams) -> Any:
        if params.name == "naked":
            await tools["naked"].function()
        return await built.guard.call(params.name, params.arguments)

    server: Server[Any] = Server(SERVER, on_list_tools=list_tools, on_call_tool=call_tool)
    built.server = built.lowlevel = server
    built.inside = built.guard.call
    built.app = lambda: server.streamable_http_app(**built.guard.http_auth())
    built.guard.attach(server, tools=listed)


def on_fastmcp(built: Built, tools: Mapping[str, Offered]) -> None:
    """Build it on FastMCP."""
    server = FastMCP(SERVER, auth=built.guard.auth())
    for tool in tools.values():
        server.tool(tool.guarded(tool.function), annotations=tool.annotations)
    built.server = server
    built.lowlevel = server._mcp_server
    built.inside = server.call_tool
    built.app = server.http_app
    built.guard.attach(server)


BUILDERS: Final[Mapping[Name, Callable[[Built, Mapping[str, Offered]], None]]] = {
    "MCPServer": on_mcpserver,
    "low-level Server": on_lowlevel,
    "FastMCP": on_fastmcp,
}


def build(name: Name, folder: Path, *, policies: str = POLICIES, **options: Any) -> Built:
    """Return the server on one framework."""
    write_policies(folder / "policies", policies)
    issuer = options.pop("issuer", None) or Issuer(issuer=ISSUER, audience=AUDIENCE)
    state = options.pop("state", None) or UnsafeMemoryState()
    guard, exporter = make_guard(folder / "policies", issuer, state=state, **options)
    built = Built(guard, issuer, state, exporter)

    @guard.entity("Record")
    async def record(record_id: str) -> Entity | None:
        if record_id.startswith("nobody"):
            return None
        return Entity({"sensitivity": "restricted" if record_id == "r9" else "normal"})

    tools = offers(built)
    BUILDERS[name](built, tools)
    return built


@asynccontextmanager
async def connect(built: Built, way: Way, era: Era, **options: Any) -> AsyncIterator[Client]:
    """Connect a real client as a run of the reader."""
    if way == "memory":
        assert built.lowlevel is not None
        async with Client(built.lowlevel, mode="legacy" if era == "2025-11-25" else era, **options) as client:
            yield client
        return
    claims = {"token": built.token()} | options
    async with serving(built) as url, http_client(url, era=era, **claims) as client:
        yield client


@asynccontextmanager
async def serving(built: Built) -> AsyncIterator[str]:
    """Serve it over HTTP on a free loopback port."""
    assert built.app is not None
    async with listening(built.app()) as root:
        yield f"{root}/mcp"


def memory_audience() -> str:
    """Return the audience of a call in memory."""
    return stdio_audience(SERVER)
