"""Tokens that somebody else's authorization server issued: which are believed, and what they may do."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.server import MCPServer

from agentguard import Grade, Guard, InvocationVerifier, Reason, Refusal, TrustedIssuer, UnsafeMemoryState
from tests.clients.oidc_provider import (
    MACHINE,
    OPAQUE,
    OTHER,
    PERSON_CLIENT,
    RECORDS,
    SHORT,
    Provider,
    running_provider,
)
from tests.world import http_client, serving

POLICIES = f"""
@id("readers") permit (principal in Agent::"{MACHINE}", action == Action::"read_record", resource);
@id("people") permit (principal, action == Action::"read_record", resource)
when {{ principal has user && principal.user == User::"alice" && principal.scopes.contains("read") }};
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Return the provider, one for all tests of the file."""
    with running_provider() as provider:
        yield provider


def verifier_of(provider: Provider, *, audience: str = RECORDS, later: float = 0) -> InvocationVerifier:
    """Return a verifier that trusts the provider and finds its keys by itself."""
    return InvocationVerifier(
        TrustedIssuer.generic(issuer=provider.issuer), audience=audience, clock=lambda: time.time() + later
    )


async def refusal_of(verifier: InvocationVerifier, token: str) -> Refusal:
    """Return how the verifier refuses a token."""
    with pytest.raises(Refusal) as caught:
        await verifier.verify(token)
    return caught.value


async def test_token_of_a_machine_acts_for_nobody(provider: Provider) -> None:
    """Client credentials: the client is the agent, and no user stands behind it."""
    invocation = await verifier_of(provider).verify(provider.machine_token(RECORDS))

    assert (invocation.agent, invocation.user, invocation.grade) == (MACHINE, None, Grade.TOKEN)
    assert invocation.scopes == {"read"}
    assert invocation.run_id == invocation.token_id
    assert invocation.lifetime == 300


async def test_token_of_a_person_acts_for_that_person(provider: Provider) -> None:
    """Authorization code with PKCE: the client is the agent, and whoever signed in is the user."""
    tokens = provider.person_tokens("alice", RECORDS)

    invocation = await verifier_of(provider).verify(tokens["access_token"])

    assert (invocation.agent, invocation.user, invocation.grade) == (PERSON_CLIENT, "alice", Grade.TOKEN)


async def test_tokens_of_one_client_are_two_runs(provider: Provider) -> None:
    """Each has an id of its own."""
    verifier = verifier_of(provider)

    first, second = [await verifier.verify(provider.machine_token(RECORDS)) for _ in range(2)]

    assert first.run_id != second.run_id


async def test_token_for_another_resource_is_refused(provider: Provider) -> None:
    """The same client, the same keys, another server."""
    refusal = await refusal_of(verifier_of(provider), provider.machine_token(OTHER))

    assert refusal.reason is Reason.INVALID_TOKEN
    assert "aud" in refusal.detail


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_token_that_was_tampered_with_is_refused(provider: Provider, part: int) -> None:
    """One other character in the header, the claims or the signature."""
    segments = provider.machine_token(RECORDS).split(".")
    middle = len(segments[part]) // 2
    other = "A" if segments[part][middle] != "A" else "B"
    segments[part] = segments[part][:middle] + other + segments[part][middle + 1 :]

    refusal = await refusal_of(verifier_of(provider), ".".join(segments))

    assert refusal.reason is Reason.INVALID_TOKEN


async def test_token_expires_with_the_leeway_and_no_later(provider: Provider) -> None:
    """A token of five seconds, now and after them."""
    token = provider.machine_token(SHORT)
    leeway = TrustedIssuer.generic(issuer=provider.issuer).leeway

    accepted = await verifier_of(provider, audience=SHORT, later=leeway - 5).verify(token)
    refusal = await refusal_of(verifier_of(provider, audience=SHORT, later=leeway + 6), token)

    assert accepted.agent == MACHINE
    assert refusal.reason is Reason.EXPIRED


async def test_opaque_token_is_refused(provider: Provider) -> None:
    """What only the provider can read proves nothing here."""
    refusal = await refusal_of(verifier_of(provider, audience=OPAQUE), provider.machine_token(OPAQUE))

    assert refusal.reason is Reason.INVALID_TOKEN


@pytest.mark.parametrize("audience", [RECORDS, PERSON_CLIENT])
async def test_id_token_is_refused(provider: Provider, audience: str) -> None:
    """It tells the client who signed in and is for nobody else, even where we are called like the client."""
    token = provider.person_tokens("alice", RECORDS)["id_token"]

    refusal = await refusal_of(verifier_of(provider, audience=audience), token)

    assert refusal.reason is Reason.INVALID_TOKEN


@asynccontextmanager
async def records_server(folder: Path, provider: Provider) -> AsyncIterator[str]:
    """Serve a guarded tool to whom the provider vouches for, and give the URL."""
    (folder / "policies.cedar").write_text(POLICIES)
    issuer = TrustedIssuer.generic(issuer=provider.issuer)
    guard = Guard(folder, issuer=issuer, audience=RECORDS, state=UnsafeMemoryState())
    server = MCPServer("records", **guard.http_auth())

    @server.tool()
    @guard.tool
    def read_record(record_id: str) -> str:
        """Read one record."""
        return f"record {record_id}"

    guard.attach(server)
    async with serving(server) as url:
        yield url


async def called(url: str, token: str) -> bool:
    """Call the tool with a token, and return whether it ran."""
    async with http_client(url, token) as client:
        result = await client.call_tool("read_record", {"record_id": "r1"})
    return not result.is_error


async def test_guarded_server_allows_whom_its_policies_permit(provider: Provider, tmp_path: Path) -> None:
    """A machine by its agent, a person by name and scope, and another person not."""
    async with records_server(tmp_path, provider) as url:
        assert await called(url, provider.machine_token(RECORDS))
        assert await called(url, provider.person_tokens("alice", RECORDS)["access_token"])
        assert not await called(url, provider.person_tokens("bob", RECORDS)["access_token"])


@pytest.mark.parametrize("resource", [OTHER, OPAQUE])
async def test_guarded_server_refuses_other_tokens_of_the_same_provider(
    provider: Provider, tmp_path: Path, resource: str
) -> None:
    """They get 401 before anything is asked of a policy."""
    headers = {"Authorization": f"Bearer {provider.machine_token(resource)}"}
    async with records_server(tmp_path, provider) as url, httpx2.AsyncClient(headers=headers, timeout=30) as http:
        answer = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})

    assert answer.status_code == 401
