"""Bearer tokens over HTTP for a FastMCP server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastmcp.server.auth import AuthProvider, RemoteAuthProvider

if TYPE_CHECKING:
    from mcp.server.auth.settings import AuthSettings

    from agentguard.adapters.bearer import BearerVerifier

__all__ = ["AuthProvider", "auth_provider"]


def auth_provider(auth: AuthSettings, token_verifier: BearerVerifier) -> AuthProvider:
    """Return what FastMCP wants for bearer tokens that our verifier verifies.

    It demands a token, and serves the metadata of the protected resource (RFC 9728).

    Args:
        auth: Who issues the tokens, and for which resource.
        token_verifier: Verifies them.
    """
    resource = auth.resource_server_url
    provider = RemoteAuthProvider(
        # FastMCP asks it for nothing but this, once the scopes are given.
        token_verifier=cast("Any", token_verifier),
        authorization_servers=[auth.issuer_url],
        base_url=cast("Any", resource),
        scopes_supported=[],
        required_scopes=[],
    )
    # FastMCP would put the resource together from where it is served, which is not what
    # tokens are for: a proxy may be in front, and an audience is compared exactly.
    provider._get_resource_url = lambda path=None: resource  # type: ignore[method-assign]  # noqa: ARG005, SLF001
    return provider
