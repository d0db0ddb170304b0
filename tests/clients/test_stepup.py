"""The official client steps up by itself, at an authorization server that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from agentguard import Guard, TrustedIssuer, UnsafeMemoryState
from tests.clients.oidc_provider import MACHINE, SECRET, Provider, running_provider
from tests.world import ERAS, Era, free_socket, listening, text

POLICIES = """
@id("reads") permit (principal, action == Action::"read_record", resource);
@id("writes") @scopes("write") permit (principal, action == Action::"update_record", resource)
when { principal.scopes.contains("write") };
"""


class Storage:
    """Keeps what the client gets, and every token that it had."""

    def __init__(self, tokens: list[OAuthToken]) -> None:
        self.tokens = tokens

    async def get_tokens(self) -> OAuthToken | None:
        """Return the last token."""
        return self.tokens[-1]

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep a token."""
        self.tokens.append(tokens)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return nothing: the client is registered."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep nothing."""


async def test_official_client_steps_up_and_repeats_its_call(tmp_path: Path) -> None:
    """It reads with the scope that it began with, and is given the other one for the call that needs it."""
    (tmp_path / "policies.cedar").write_text(POLICIES)
    bound = free_socket()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/mcp"

    with running_provider(url) as provider:
        guard = Guard(
            tmp_path, issuer=TrustedIssuer.generic(issuer=provider.issuer), audience=url, state=UnsafeMemoryState()
        )
        server = MCPServer("records", **guard.http_auth())

        @server.tool()
        @guard.tool
        def read_record() -> str:
            return "read"

        @server.tool()
        @guard.tool
        def update_record() -> str:
            return "updated"

        guard.attach(server)
        app = server.streamable_http_app(stateless_http=True)
        async with listening(app, bound):
            for era in ERAS:
                await step_up(era, url, provider)


async def step_up(era: Era, url: str, provider: Provider) -> None:
    """Read, write and write again, with a client that holds a token for reading."""
    token = OAuthToken(access_token=provider.machine_token(url), scope="read", expires_in=300)
    storage = Storage([token])
    statuses: list[int] = []

    async def note(response: httpx2.Response) -> None:
        if b"tools/call" in response.request.content:
            statuses.append(response.status_code)

    auth = ClientCredentialsOAuthProvider(
        url, storage, client_id=MACHINE, client_secret=SECRET, scope="read", issuer=provider.issuer
    )
    async with (
        httpx2.AsyncClient(auth=auth, timeout=20, event_hooks={"response": [note]}) as http,
        Client(streamable_http_client(url, http_client=http), mode="legacy" if era == "2025-11-25" else era) as client,
    ):
        results = [await client.call_tool(name, {}) for name in ("read_record", "update_record", "update_record")]

    assert [text(result) for result in results] == ["read", "updated", "updated"]
    assert statuses == [200, 403, 200, 200]
    assert [token.scope for token in storage.tokens] == ["read", "read write"]
