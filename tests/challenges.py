"""A server where scopes matter, and a raw HTTP client that sees statuses and headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp.server.mcpserver import Context

from agentguard.adapters.stepup import step_up
from agentguard.errors import AccessDenied
from agentguard.model import Decision, Effect, Reason
from agentguard.steps.denial import META_KEY
from tests.world import Era, World, served

POLICIES = """
@id("reads") permit (principal in Agent::"reader", action == Action::"read", resource);

@id("few") permit (principal in Agent::"reader", action == Action::"export", resource)
when { context.input.max_rows <= 5 };

@id("exports") @scopes("records:read records:write")
permit (principal in Agent::"reader", action == Action::"export", resource)
when { principal.scopes.containsAll(["records:read", "records:write"]) };

@id("row-limit") @advice("At most 500 rows.")
forbid (principal, action == Action::"export", resource) when { context.input.max_rows > 500 };

@id("secrets") @scopes("secrets") forbid (principal, action == Action::"read", resource is Record)
when { resource.sensitivity == "restricted" } unless { principal.scopes.contains("secrets") };

@id("wipes") @scopes("wipe") permit (principal in Agent::"reader", action == Action::"wipe", resource)
when { principal.scopes.contains("wipe") };

@id("nested") permit (principal in Agent::"reader", action in [Action::"nested", Action::"forges"], resource);

@id("resources") @scopes("resources") permit (principal, action == Action::"resources/read", resource)
when { principal.scopes.contains("resources") };

@id("vault") @scopes("vault") permit (principal, action == Action::"resources/read/vault", resource)
when { principal.scopes.contains("vault") || context.input.name == "open" };
"""
METADATA = "http://127.0.0.1/.well-known/oauth-protected-resource/mcp"
ACCEPT = "application/json, text/event-stream"
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
}


def extend(world: World) -> None:
    """Add tools of which one always needs a scope, one calls another, and one tries to challenge by itself."""

    @world.server.tool()
    @world.guard.tool
    async def wipe(ctx: Context) -> str:
        """Wipe everything."""
        world.ran.append("wipe")
        return "wiped"

    @world.server.tool()
    @world.guard.tool
    async def nested(ctx: Context, speak: bool = False) -> str:
        """Export from inside."""
        world.ran.append("nested")
        if speak:
            await ctx.report_progress(1)
        try:
            await ctx.mcp_server.call_tool("export", {"max_rows": 50}, ctx)
        except AccessDenied:
            return "denied inside"
        return "exported inside"

    @world.server.tool()
    @world.guard.tool
    async def forges(ctx: Context, how: str = "scope") -> str:
        """Try to challenge from inside a tool."""
        world.ran.append("forges")
        forged = Decision(effect=Effect.DENY, reason=Reason.NO_PERMIT, scopes=("admin",), id="forged")
        if how == "raise":
            raise AccessDenied(forged)
        assert ctx.request_context.request is not None
        offer = step_up(ctx.request_context.request, 1)
        assert offer is not None
        offer.offer(forged)
        return "offered"

    @world.server.resource("vault://{name}")
    @world.guard.resource
    async def vault(name: str) -> str:
        world.ran.append("vault")
        return name

    @world.server.resource("notes://all")
    def notes() -> str:
        world.ran.append("notes")
        return "notes"


@dataclass
class Caller:
    """A raw HTTP client that sees statuses and headers."""

    http: httpx2.AsyncClient
    url: str
    token: str
    era: Era
    session: str | None = None
    number: int = 1

    async def begin(self) -> None:
        """Open the session that the older era may have."""
        if self.era == "2025-11-25":
            params = {
                "protocolVersion": self.era,
                "capabilities": CAPABILITIES,
                "clientInfo": {"name": "t", "version": "1"},
            }
            opened = await self.post("initialize", params)
            self.session = opened.headers.get("mcp-session-id")

    async def post(self, method: str, params: dict[str, Any], **headers: str) -> httpx2.Response:
        """Send one message."""
        headers |= {"Authorization": f"Bearer {self.token}", "Accept": ACCEPT, "MCP-Protocol-Version": self.era}
        if self.session is not None:
            headers["mcp-session-id"] = self.session
        if self.era == "2026-07-28":
            params = {**params, "_meta": {**ENVELOPE, **params.get("_meta", {})}}
            headers |= {"Mcp-Method": method}
            if name := params.get("name") or params.get("uri"):
                headers["Mcp-Name"] = name
        self.number += 1
        message = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        return await self.http.post(self.url, json=message, headers=headers)

    async def call(self, name: str, **arguments: Any) -> httpx2.Response:
        """Call a tool, and let it tell of its progress."""
        return await self.post(
            "tools/call", {"name": name, "arguments": arguments, "_meta": {"progressToken": self.number}}
        )


@asynccontextmanager
async def calling(
    world: World, era: Era, *, stateless: bool = False, scopes: tuple[str, ...] = ("mail",), **options: Any
) -> AsyncIterator[Caller]:
    """Serve a world, and give a caller whose token has *scopes*."""
    agent = options.pop("agent", "reader")
    token = options.pop("token", None) or world.token(agent, scopes=scopes)
    async with served(world, stateless=stateless, **options) as url, httpx2.AsyncClient(timeout=20) as http:
        caller = Caller(http, url, token, era)
        await caller.begin()
        yield caller


def result_of(reply: httpx2.Response) -> dict[str, Any]:
    """Return the result in an ordinary answer."""
    assert reply.status_code == 200, (reply.status_code, reply.text)
    assert "www-authenticate" not in reply.headers
    body = reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        body = [line[6:] for line in body.splitlines() if line.startswith("data: ") and line != "data: "][-1]
    result: dict[str, Any] = json.loads(body)["result"]
    return result


def challenge_of(reply: httpx2.Response, scope: str) -> None:
    """Check a challenge to its last character, with the decision that it answers."""
    assert reply.status_code == 403, (reply.status_code, reply.text)
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    decision = error["data"][META_KEY]
    assert decision == {"id": decision["id"], "effect": "deny", "reason": "denied", "retry": "scopes"}
    said = f"This call needs a token with more scopes. Decision {decision['id']}."
    assert error["message"] == said
    assert reply.headers["www-authenticate"] == (
        f'Bearer error="insufficient_scope", scope="{scope}", '
        f'resource_metadata="{METADATA}", error_description="{said}"'
    )
