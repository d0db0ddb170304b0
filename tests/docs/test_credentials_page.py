"""The page on credentials: its server gets one and gives it back, its sketches speak to a stand-in of each service."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import anyio.to_thread
import pytest
from mcp_types import CallToolResult
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentguard import CredentialBroker, CredentialError, CredentialRequest, IssuedCredential, Issuer, MemoryStore
from agentguard.credentials.broker import names_of
from agentguard.testing import unsafe_invocation
from examples.loopback import serving, url_of
from examples.records.stage import loopback_issuer
from tests import leaks
from tests.credentials.token_server import ACCESS, granted, running
from tests.docs.pages import ROOT, run_python
from tests.world import http_client, text
from tests.world import serving as served

PAGE: Final = "docs/pages/how-to/credentials.md"
AUDIENCE: Final = "https://records.example/mcp"
RUN_TOKEN: Final = "the.token-of-the.run"
SESSION: Final = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Credentials>
      <AccessKeyId>ASIAEXAMPLE</AccessKeyId>
      <SecretAccessKey>the-secret-access-key</SecretAccessKey>
      <SessionToken>the-session-token</SessionToken>
      <Expiration>{expiration}</Expiration>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Return what the page defines."""
    return run_python(PAGE, tmp_path_factory.mktemp("page"))


def wanting(name: str, *, seconds: float = 3_600) -> CredentialRequest:
    """Return what a tool of a run asks for that lasts so long."""
    return CredentialRequest(
        name=name,
        invocation=unsafe_invocation("support", run_id="run 7/é"),
        token=leaks.register(RUN_TOKEN),
        server="records",
        tool="read_record",
        until=time.time() + seconds,
    )


@asynccontextmanager
async def stand_in(answer: Any) -> AsyncIterator[str]:
    """Serve one function for every path, and give the URL."""
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "PUT"])])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serving(app, listening):
            yield url_of(listening)


async def call(url: str, token: str, tool: str, **arguments: str) -> CallToolResult:
    """Call a tool of the page's server."""
    async with http_client(url, token) as client:
        return await client.call_tool(tool, arguments)


async def test_server_of_the_page_gets_a_credential_for_each_run(tmp_path: Path) -> None:
    """Both of its tools use it, no client sees it, and the end of the run is its end."""
    seen: list[str] = []
    revoked = threading.Semaphore(0)

    async def contacts(request: Request) -> Response:
        seen.append(request.headers["Authorization"])
        return JSONResponse([request.query_params.get("name", "everybody")])

    def revoke(form: dict[str, str]) -> tuple[int, bytes]:
        revoked.release()
        return 200, b""

    with running() as login:
        async with loopback_issuer() as issuer, stand_in(contacts) as crm:
            login.answers["/token"] = 200, granted(scope="contacts.read")
            login.answers["/revoke"] = revoke
            ours = {
                "https://issuer.example": issuer.issuer,
                "https://login.example": login.url,
                "https://crm.example": crm,
            }
            page = run_python(PAGE, tmp_path, ours)
            every = "permit (principal, action, resource);"
            begins = Issuer(issuer=issuer.issuer, audience=AUDIENCE, store=MemoryStore(clock=time.time))
            runs = [page[name](begins) for name in ("begin", "begin_with_one")]
            grants = [run.invocation.grant for run in runs]
            for run in runs:
                run.end()
            tokens = [
                issuer.mint(agent=agent, grant=grant, run=run, audience=AUDIENCE)
                for agent, run, grant in (
                    ("support", "support", every),
                    ("other", "other", every),
                    ("support", "any", grants[0]),
                    ("support", "one", grants[1]),
                    ("support", "none", 'permit (principal, action == Action::"find_contact", resource);'),
                )
            ]
            async with served(page["server"]) as url:
                found = await call(url, tokens[0], "find_contact", name="Ada")
                counted = await call(url, tokens[0], "count_contacts")
                denied = await call(url, tokens[1], "count_contacts")
                found_by_grant = [(await call(url, token, "find_contact", name="Ada")).is_error for token in tokens[2:]]
                async with http_client(url, tokens[0]) as client:
                    tools = (await client.list_tools()).tools
                for run_id in ("support", "any", "one"):
                    page["guard"].state.store.revoke(issuer=issuer.issuer, run_id=run_id)
                    assert await anyio.to_thread.run_sync(revoked.acquire, True, 10)

    assert (text(found), text(counted), denied.is_error) == ('["Ada"]', "1", True)
    assert found_by_grant == [False, False, True]
    assert seen == [f"Bearer {ACCESS}"] * 4
    assert [list(tool.input_schema["properties"]) for tool in tools] == [["name"], []]
    form = login.forms("/token")[0]
    assert (form["subject_token"], form["resource"], form["scope"]) == (tokens[0], f"{crm}/api", "contacts.read")
    assert {form["token"] for form in login.forms("/revoke")} == {ACCESS}


async def test_session_of_the_page_is_closed_with_its_run(names: Mapping[str, Any]) -> None:
    """And the next one is another."""
    broker = names["SessionBroker"]()
    (name,) = names_of(broker)
    issued = await broker.issue(wanting(name))
    renewed = await broker.renew(issued, wanting(name))
    leaks.register(issued.secret)
    leaks.register(renewed.secret)

    await broker.release(issued, name)

    assert broker.sessions == {renewed.lease_id: renewed.secret}
    assert issued.lease_id != renewed.lease_id


def test_request_of_the_page_has_every_attribute() -> None:
    """Each has its row."""
    section = (ROOT / PAGE).read_text("utf-8").partition("A `CredentialRequest` says")[2].partition("\n\nThe tools")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)

    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == {
        one.name for one in fields(CredentialRequest)
    }


class Vault:
    """As much of Vault's API as the sketch uses: a login by JWT, and leases of a database role."""

    def __init__(self) -> None:
        self.status = 200
        self.login = leaks.register("hvs.the-login-of-the-run")
        self.leases: dict[str, int] = {}

    async def answer(self, request: Request) -> Response:
        """Answer as Vault's API documentation has it."""
        path, sent = request.path_params["path"], await request.body()
        body = json.loads(sent) if sent else {}
        if self.status != 200:
            return JSONResponse({"errors": [RUN_TOKEN]}, status_code=self.status)
        if path == "v1/auth/jwt/login":
            known = body == {"role": "runs", "jwt": RUN_TOKEN}
            return JSONResponse({"auth": {"client_token": self.login}} if known else {}, 200 if known else 400)
        if request.headers.get("X-Vault-Token") != self.login:
            return JSONResponse({"errors": ["permission denied"]}, status_code=403)
        if path == "v1/auth/token/revoke-self":
            self.leases.clear()
            return Response(status_code=204)
        if path == "v1/database/creds/readonly":
            lease = f"database/creds/readonly/{len(self.leases)}"
            self.leases[lease] = 60
            user = {"username": "v-records-1", "password": leaks.register("the-password-of-it")}
            return JSONResponse({"lease_id": lease, "lease_duration": 60, "renewable": True, "data": user})
        self.leases[body["lease_id"]] += body["increment"]
        return JSONResponse({"lease_id": body["lease_id"], "lease_duration": body["increment"], "renewable": True})


async def failure(broker: CredentialBroker, request: CredentialRequest) -> CredentialError:
    """Return how asking goes wrong, once it is sure that nothing of it tells the run's token."""
    with pytest.raises(CredentialError) as caught:
        await broker.issue(request)
    assert RUN_TOKEN not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    return caught.value


def is_seconds_from(began: float, moment: float, seconds: float) -> bool:
    """Return whether a moment is so many seconds after one between *began* and now, each cut to a second."""
    return began + seconds - 1 <= moment <= time.time() + seconds + 1


async def test_vault_gives_prolongs_and_drops_a_database_user(names: Mapping[str, Any]) -> None:
    """One lease from the first to the last."""
    vault = Vault()
    began = time.time()
    async with stand_in(vault.answer) as url:
        broker: CredentialBroker = names["VaultBroker"](url, role="runs", roles={"database": "readonly"})
        request = wanting("database")
        issued = await broker.issue(request)
        renewed = await broker.renew(issued, request)
        leases = dict(vault.leases)
        await broker.release(renewed, "database")

    assert broker.names == {"database"}
    assert json.loads(issued.secret) == {"username": "v-records-1", "password": "the-password-of-it"}
    assert (issued.lease_id, issued.token_type, issued.parts) == (
        "database/creds/readonly/0",
        "N_A",
        ("the-password-of-it",),
    )
    assert is_seconds_from(began, issued.expires_at, 60)
    assert (renewed.secret, renewed.lease_id) == (issued.secret, issued.lease_id)
    assert request.until - 2 <= renewed.expires_at <= request.until + 1 + time.time() - began
    assert leases.keys() == {issued.lease_id}
    assert vault.leases == {}


@pytest.mark.parametrize(
    ("status", "detail", "retry"),
    [
        (503, "Vault cannot be reached, is sealed or is failing", True),
        (400, "Vault answered 400 to auth/jwt/login", False),
    ],
)
async def test_vault_that_refuses_or_is_sealed_is_told_apart(
    names: Mapping[str, Any], status: int, detail: str, retry: bool
) -> None:
    """By its status alone: what it says may be what it was sent."""
    vault = Vault()
    vault.status = status
    async with stand_in(vault.answer) as url:
        error = await failure(
            names["VaultBroker"](url, role="runs", roles={"database": "readonly"}), wanting("database")
        )

    assert (error.detail, error.retry) == (detail, retry)


@pytest.mark.parametrize("broker", ["VaultBroker", "STSBroker"])
async def test_service_that_is_down_may_be_there_later(names: Mapping[str, Any], broker: str) -> None:
    """The client's own exception holds the request."""
    options = {"role": "runs"} if broker == "VaultBroker" else {}

    error = await failure(names[broker]("http://127.0.0.1:1", roles={"it": "r"}, **options), wanting("it"))

    assert error.retry


class STS:
    """As much of the API of AWS STS as the sketch uses."""

    def __init__(self, status: int = 200, body: str = "") -> None:
        self.status = status
        self.body = body
        self.asked: list[dict[str, str]] = []

    async def answer(self, request: Request) -> Response:
        """Answer as the API reference of STS has it."""
        self.asked.append(dict(parse_qsl((await request.body()).decode())))
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 900))
        leaks.register("the-secret-access-key")
        return Response(
            self.body or SESSION.format(expiration=expiration), status_code=self.status, media_type="text/xml"
        )


async def test_sts_gives_a_session_and_takes_none_back(names: Mapping[str, Any]) -> None:
    """Under the run's id, as far as STS takes its signs; and a renewal is another session."""
    sts = STS()
    began = time.time()
    async with stand_in(sts.answer) as url:
        broker: CredentialBroker = names["STSBroker"](url, roles={"bucket": "arn:aws:iam::123456789012:role/records"})
        issued: IssuedCredential = await broker.issue(wanting("bucket"))
        brief = await broker.renew(issued, wanting("bucket", seconds=60))
        with pytest.raises(CredentialError) as kept:
            await broker.release(issued, "bucket")

    assert json.loads(issued.secret) == {
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "the-secret-access-key",
        "SessionToken": "the-session-token",
    }
    assert is_seconds_from(began, issued.expires_at, 900)
    assert is_seconds_from(began, brief.expires_at, 900)
    assert (issued.lease_id, issued.parts) == (
        "run-7--/ASIAEXAMPLE",
        ("the-secret-access-key", "the-session-token"),
    )
    assert sts.asked[0] == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::123456789012:role/records",
        "RoleSessionName": "run-7--",
        "WebIdentityToken": RUN_TOKEN,
        "DurationSeconds": "900",
    }
    assert not kept.value.retry


@pytest.mark.parametrize(
    ("sts", "detail", "retry"),
    [
        (STS(400), "STS answered 400", False),
        (STS(500), "STS cannot be reached or is failing", True),
        (STS(200, "<nothing/>"), "STS answered without credentials", False),
    ],
)
async def test_sts_that_refuses_is_told_by_its_status(
    names: Mapping[str, Any], sts: STS, detail: str, retry: bool
) -> None:
    """And by nothing that it says."""
    async with stand_in(sts.answer) as url:
        error = await failure(names["STSBroker"](url, roles={"bucket": "arn"}), wanting("bucket"))

    assert (error.detail, error.retry) == (detail, retry)
