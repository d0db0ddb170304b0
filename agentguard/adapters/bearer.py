"""Bearer tokens over HTTP: our verifier, where the MCP SDK wants one of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypedDict

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import ValidationError

from agentguard.errors import ConfigurationError, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.identity.verifier import InvocationVerifier


class BearerVerifier:
    """The SDK's `TokenVerifier`, by our verifier."""

    def __init__(self, verifier: InvocationVerifier, resource: str, refused: Callable[[Refusal], None]) -> None:
        self._verifier = verifier
        self._resource = resource
        self._refused = refused

    async def verify_token(self, token: str) -> AccessToken | None:
        """Verify a bearer token; None for any that is not ours to accept."""
        try:
            invocation = await self._verifier.verify(token)
        except Refusal as refusal:
            self._refused(refusal)
            return None
        # The SDK binds sessions, streams, elicitation answers and request state to client,
        # issuer and subject. With the run in the subject, they belong to one run and not to
        # every run of the agent.
        subject = json.dumps([invocation.issuer, invocation.subject, invocation.run_id])
        return AccessToken(
            token=token,
            client_id=invocation.client_id,
            scopes=sorted(invocation.scopes),
            expires_at=int(invocation.ends_at),
            resource=self._resource,
            subject=subject,
            claims={"iss": invocation.issuer},
        )


class HttpAuth(TypedDict):
    """What an `MCPServer` is given so that it takes bearer tokens."""

    auth: AuthSettings
    token_verifier: BearerVerifier


def auth_settings(issuer: str, resource_url: str) -> AuthSettings:
    """Return the SDK's settings for bearer tokens.

    Raises:
        ConfigurationError: If *resource_url* or *issuer* is not a URL.
    """
    try:
        # From text: a URL object would have gained a trailing slash, and an issuer is compared exactly.
        return AuthSettings.model_validate(
            {"issuer_url": issuer, "resource_server_url": resource_url, "validate_token_resource": True}
        )
    except ValidationError:
        message = (
            f"the SDK wants URLs, got issuer `{issuer}` and resource `{resource_url}`: "
            "where the audience is not a URL, pass http_auth(resource_url=…), the server's own address"
        )
        raise ConfigurationError(message) from None
