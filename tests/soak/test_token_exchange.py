"""Credentials from somebody else's authorization server: got, used, renewed, given back, refused; and it away."""

import logging
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from mcp.server import MCPServer
from mcp_types import CallToolResult

from agentguard import Credential, FixedKeys, Guard, InvocationVerifier, TrustedIssuer, UnsafeMemoryState
from agentguard.credentials.broker import CredentialRequest, IssuedCredential
from agentguard.credentials.tokenexchange import ExchangeFor, TokenExchangeBroker
from agentguard.errors import CredentialError
from agentguard.identity.assertion import sign_assertion
from agentguard.lifecycle.keys import read_signing_key
from agentguard.testing import unsafe_invocation
from tests import leaks
from tests.clients.oidc_exchange import (
    BRIEF,
    CRM,
    KEYS,
    RECORDS,
    RENEWING,
    RUNS,
    SERVER,
    WIDE,
    Exchanging,
    running_exchange,
)
from tests.world import http_client, meta, serving, text

READ = {"read"}
CREDENTIALS = {
    "crm": ExchangeFor(resource=CRM, scopes={"read", "write"}),
    "named": ExchangeFor(audience=CRM, scopes=READ),
    "brief": ExchangeFor(resource=BRIEF, scopes=READ),
    "wide": ExchangeFor(resource=WIDE, scopes=READ),
    "unknown": ExchangeFor(resource="https://unknown.example/api", scopes=READ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Exchanging]:
    """Run one provider for the tests that leave it as it is."""
    with running_exchange() as server:
        yield server


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Look through the log of every library, at every level, for the tokens of the test."""
    caplog.set_level(logging.DEBUG)
    yield
    assert not [line for line in caplog.messages if leaks._holds(line)]


def broker_of(server: Exchanging, client: str = SERVER, **changes: Any) -> TokenExchangeBroker:
    """Return the broker of a client that the provider knows, with changes."""
    usual = {"client_id": client, "key": KEYS[client], "credentials": CREDENTIALS}
    return TokenExchangeBroker(server.url, **{**usual, **changes})


def wanting(server: Exchanging, name: str = "crm", *, token: str | None = None) -> CredentialRequest:
    """Return what a tool of a run that has just begun asks for."""
    return CredentialRequest(
        name=name,
        invocation=unsafe_invocation("support", user="alice"),
        token=server.run_token() if token is None else token,
        server="records",
        tool="read_record",
        until=time.time() + 600,
    )


def held(issued: IssuedCredential) -> IssuedCredential:
    """Search for what was issued in all that gets out, and return it."""
    leaks.register(issued.secret)
    if issued.renewal is not None:
        leaks.register(issued.renewal)
    return issued


async def refused(broker: TokenExchangeBroker, request: CredentialRequest) -> CredentialError:
    """Return how a request is refused, once it is sure that nothing of it tells the run's token."""
    with pytest.raises(CredentialError) as caught:
        await broker.issue(request)
    assert request.token not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def test_credential_is_for_one_other_system_and_says_who_acts(server: Exchanging) -> None:
    """What the other system learns of it: for whom, for what, by whom, in which run, until when."""
    token = server.run_token(run="run-7")

    issued = held(await broker_of(server).issue(wanting(server, token=token)))

    told = server.introspected(issued.secret)
    assert (told["active"], told["aud"], told["client_id"], told["sub"]) == (True, CRM, SERVER, "alice")
    assert (told["scope"], told["run"], told["act"]) == ("read write", "run-7", {"sub": SERVER})
    assert abs(told["exp"] - issued.expires_at) <= 2
    assert issued.renewal is None


async def test_the_other_system_may_go_by_its_name(server: Exchanging) -> None:
    """``audience`` where a server does not know resources."""
    issued = held(await broker_of(server).issue(wanting(server, "named")))

    assert server.introspected(issued.secret)["scope"] == "read"


async def test_actor_is_whom_its_token_names(server: Exchanging) -> None:
    """Beside the client's authentication, where the server wants it."""
    key = read_signing_key(KEYS[SERVER])

    async def actor(request: CredentialRequest) -> str:
        return sign_assertion(
            client_id=SERVER,
            audience=server.url,
            private=key.private,
            algorithm=key.algorithm,
            key_id=key.key_id,
            token_id=uuid.uuid4().hex,
            now=int(time.time()),
            seconds=60,
        )

    issued = held(await broker_of(server, actor_token=actor).issue(wanting(server)))

    assert server.introspected(issued.secret)["act"] == {"sub": SERVER}


async def test_released_credential_is_good_for_nothing(server: Exchanging) -> None:
    """Revoked by the provider, and nothing happens if it is released again."""
    broker = broker_of(server)
    issued = held(await broker.issue(wanting(server)))
    before = server.introspected(issued.secret)["active"]

    await broker.release(issued, "crm")
    await broker.release(issued, "crm")

    assert (before, server.introspected(issued.secret)) == (True, {"active": False})


async def test_renewal_by_exchange_is_another_lease(server: Exchanging) -> None:
    """Both are good, and each is released by itself."""
    broker = broker_of(server)
    request = wanting(server, "brief")
    first = held(await broker.issue(request))

    second = held(await broker.renew(first, request))
    await broker.release(first, "brief")

    assert second.lease_id != first.lease_id
    assert [server.introspected(one.secret)["active"] for one in (first, second)] == [False, True]


async def test_renewal_by_refresh_token_is_the_same_lease(server: Exchanging) -> None:
    """With rotation, twice, for the same system, and signed with the other kind of key; released as one."""
    broker = broker_of(server, RENEWING)
    request = wanting(server)
    leases = [held(await broker.issue(request))]

    for _ in range(2):
        leases.append(held(await broker.renew(leases[-1], request)))
    told = server.introspected(leases[-1].secret)
    await broker.release(leases[-1], "crm")

    assert len({one.lease_id for one in leases}) == 1
    assert len({one.secret for one in leases}) == len({one.renewal for one in leases}) == 3
    assert (told["active"], told["aud"], told["scope"], told["sub"]) == (True, CRM, "read write", "alice")
    assert [server.introspected(one.secret)["active"] for one in leases] == [False, False, False]
    with pytest.raises(CredentialError):
        await broker.renew(leases[-1], wanting(server, token="no token"))


async def test_renewal_that_was_used_up_falls_back_on_the_runs_token(server: Exchanging) -> None:
    """As after an answer that never arrived: the provider ends the lease, and the run gets another one."""
    broker = broker_of(server, RENEWING)
    request = wanting(server)
    first = held(await broker.issue(request))
    second = held(await broker.renew(first, request))

    third = held(await broker.renew(first, request))

    assert third.lease_id != first.lease_id
    assert [server.introspected(one.secret)["active"] for one in (second, third)] == [False, True]


async def test_credential_ends_by_itself_as_it_said(server: Exchanging) -> None:
    """The provider's clock and ours agree on when."""
    asked_at = time.time()
    issued = held(await broker_of(server).issue(wanting(server, "brief")))
    late = time.time() - asked_at

    looked_at = time.time()
    while server.introspected(issued.secret)["active"]:
        # It was made after it was asked for, and before it came.
        assert looked_at < issued.expires_at + late
        looked_at = time.time()

    # It counts in whole seconds.
    assert time.time() > issued.expires_at - 1
    assert server.introspected(issued.secret) == {"active": False}


async def test_wider_scope_is_refused_and_given_back(server: Exchanging) -> None:
    """The provider made a token that nobody decided on; it is revoked."""
    before = server.asked().get("/token/revocation", 0)

    error = await refused(broker_of(server), wanting(server, "wide"))

    assert error.detail == "the authorization server answered with a `scope` that is wider than what was asked for"
    assert not error.retry
    assert server.asked()["/token/revocation"] == before + 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": generate_private_key(SECP256R1())}, "401, `invalid_client`"),
        ({"client_id": "somebody-else"}, "401, `invalid_client`"),
        ({"assertion_audience": "https://other.example"}, "401, `invalid_client`"),
        ({"key_id": "another-key"}, "401, `invalid_client`"),
    ],
)
async def test_client_that_is_not_who_it_says_gets_nothing(
    server: Exchanging, changes: dict[str, Any], code: str
) -> None:
    """A key that is not registered; and nobody tries it again."""
    before = server.asked().get("/token", 0)

    error = await refused(broker_of(server, **changes), wanting(server))

    assert (error.detail, error.retry) == (f"the authorization server answered {code}", False)
    assert server.asked()["/token"] == before + 1


async def test_token_that_is_no_runs_gets_nothing(server: Exchanging) -> None:
    """Another issuer's, one for another server, and one that was changed."""
    with running_exchange() as other:
        foreign = other.run_token()
    tokens = [foreign, server.run_token(audience="https://other.example/mcp"), server.run_token()[:-8] + "AAAAAAAA"]

    errors = [await refused(broker_of(server), wanting(server, token=token)) for token in tokens]

    assert {error.detail for error in errors} == {"the authorization server answered 400, `invalid_request`"}
    assert not any(error.retry for error in errors)


async def test_system_that_the_server_does_not_know_gets_nothing(server: Exchanging) -> None:
    """RFC 8707."""
    error = await refused(broker_of(server), wanting(server, "unknown"))

    assert (error.detail, error.retry) == ("the authorization server answered 400, `invalid_target`", False)


async def test_slow_server_is_for_later_and_then_serves_again(server: Exchanging) -> None:
    """It is tried twice, each time for as long as was said, and nothing of it is kept."""
    seconds = 2
    broker = broker_of(server, timeout_seconds=seconds)
    issued = held(await broker.issue(wanting(server)))

    with server.stopped():
        began = time.monotonic()
        error = await refused(broker, wanting(server))
        took = time.monotonic() - began
        with pytest.raises(CredentialError) as kept:
            await broker.release(issued, "crm")

    assert (error.detail, error.retry) == (f"the authorization server `{server.url}` did not answer in time", True)
    assert 2 * seconds <= took < 3 * seconds
    assert kept.value.retry
    await broker.release(issued, "crm")
    again = held(await broker.issue(wanting(server)))
    assert [server.introspected(one.secret)["active"] for one in (issued, again)] == [False, True]


async def test_server_that_is_down_is_for_later() -> None:
    """For what is to be got, renewed and given back."""
    with running_exchange() as server:
        broker = broker_of(server, RENEWING)
        request = wanting(server)
        issued = held(await broker.issue(request))
    calls = [broker.issue(request), broker.renew(issued, request), broker.release(issued, "crm")]

    for call in calls:
        with pytest.raises(CredentialError) as caught:
            await call

        assert caught.value.retry
        assert caught.value.detail.endswith("refused the connection: check that it runs, and its port")
        shown = f"{vars(caught.value)} {caught.value!r}"
        assert not [part for part in (request.token, issued.secret, str(issued.renewal)) if part in shown]


POLICIES = """
@id("tools") permit (principal in Agent::"support", action in Action::"tools/call", resource);
@id("one-system") permit (principal, action == Action::"credentials/issue", resource == Credential::"{name}");
"""


@asynccontextmanager
async def guarded(
    server: Exchanging, folder: Path, name: str, *, seconds: float = 10
) -> AsyncIterator[tuple[Guard, str]]:
    """Serve tools, of which one may use one credential from the provider; give the guard and the URL.

    Args:
        server: The provider.
        folder: Where the policies are written.
        name: The credential.
        seconds: How long the provider may take.
    """
    (folder / "policies.cedar").write_text(POLICIES.format(name=name))
    trusted = InvocationVerifier(
        TrustedIssuer(issuer=RUNS), audience=RECORDS, keys={RUNS: FixedKeys(server.runs.jwks())}
    )
    broker = broker_of(server, timeout_seconds=seconds)
    guard = Guard(folder, verifier=trusted, state=UnsafeMemoryState(), broker=broker)
    mcp = MCPServer("records", **guard.http_auth())

    @mcp.tool()
    @guard.tool
    def ask(held: Annotated[Credential, guard.credential(name)]) -> str:
        """Use the credential: the other system asks the provider about it, and says what it learned."""
        told = server.introspected(held.reveal())
        used.append(leaks.register(held.reveal()))
        return f"{told['active']} {told.get('sub')} {told.get('scope')}"

    @mcp.tool()
    @guard.tool
    async def peek() -> str:
        """Want another one."""
        return repr(await guard.credential("named"))

    used.clear()
    guard.attach(mcp)
    async with serving(mcp) as url:
        yield guard, url


used: list[str] = []


async def called(url: str, token: str, tool: str = "ask") -> CallToolResult:
    """Call a tool with the token of a run."""
    async with http_client(url, token) as client:
        return await client.call_tool(tool, {})


async def is_over(server: Exchanging, secret: str, seconds: float = 20) -> bool:
    """Return whether the other system learns that a credential is good no more, while it would be for minutes."""

    def looks() -> bool:
        began = time.monotonic()
        while active := server.introspected(secret)["active"]:
            if time.monotonic() - began > seconds:
                break
        return not active

    return await anyio.to_thread.run_sync(looks)


async def test_tools_credential_ends_with_its_run(server: Exchanging, tmp_path: Path) -> None:
    """Got for the run's user, used, and revoked as soon as the run is; another one is for another run."""
    token, other = server.run_token(run="run-1"), server.run_token(run="run-2", user="bob")
    async with guarded(server, tmp_path, "crm") as (guard, url):
        results = [await called(url, token), await called(url, other)]
        guard.state.store.revoke(issuer=RUNS, run_id="run-1")
        over = await is_over(server, used[0])
        after = await called(url, token)
        untouched = server.introspected(used[1])["active"]
        denied = await called(url, other, "peek")

    assert [text(result) for result in results] == ["True alice read write", "True bob read write"]
    assert (over, untouched) == (True, True)
    assert (meta(after)["reason"], denied.is_error) == ("ended", True)


async def test_tools_credential_ends_when_its_run_does_by_itself(server: Exchanging, tmp_path: Path) -> None:
    """Nobody says so, and by itself it would be good for minutes more."""
    async with guarded(server, tmp_path, "crm") as (_, url):
        # What is slow was done before.
        await called(url, server.run_token())
        used.clear()
        ends_at = time.time() + 4
        result = await called(url, server.run_token(ends_in=4))
        before = server.introspected(used[0])
        over = await is_over(server, used[0])

    assert text(result) == "True alice read write"
    assert before["exp"] > ends_at + 200
    assert over
    assert time.time() > ends_at - 1


async def test_nothing_is_used_past_its_end(server: Exchanging, tmp_path: Path) -> None:
    """For longer than the provider's tokens last, each call has one that is good."""
    token = server.run_token()
    async with guarded(server, tmp_path, "brief") as (_, url):
        began = time.monotonic()
        answers = set()
        while time.monotonic() - began < 5 or len(set(used)) < 3:
            answers.add(text(await called(url, token)))
            assert answers == {"True alice read"}

    assert len(set(used)) > 2


async def test_tool_does_not_run_without_its_credential(tmp_path: Path) -> None:
    """While the provider is stopped, and once it is gone; nothing that it gave before is used instead."""
    with running_exchange() as server:
        async with guarded(server, tmp_path, "brief", seconds=2) as (_, url):
            token = server.run_token()
            first = await called(url, token)
            assert await is_over(server, used[0])
            with server.stopped():
                slow = await called(url, token)
            again = await called(url, token)
            assert await is_over(server, used[1])
            server.process.kill()
            server.process.wait()
            down = await called(url, token)

    assert [text(first), text(again)] == ["True alice read"] * 2
    assert [(meta(one)["reason"], meta(one)["retry"]) for one in (slow, down)] == [("unavailable", "later")] * 2
    assert len(used) == 2
