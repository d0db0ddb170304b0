from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.lowlevel
import httpx2
import pytest
import uvicorn

from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence.ledger import MemoryLedger
from agentguard.identity.assertion import ASSERTION_TYPE
from agentguard.identity.form import unverified
from agentguard.identity.keys import JWKS, FixedKeys
from agentguard.identity.token import TrustedIssuer
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.app import BODY_BYTES, FIELDS
from agentguard.lifecycle.asked import ACCESS_TOKEN, EXCHANGE
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.store import MemoryStore, RunState
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.state import UnsafeMemoryState
from tests.lifecycle.service import CORP, READS, Service, make_assertion, make_client, make_subject, refusal
from tests.tokens import ABSENT, AUDIENCE, ISSUER, KEY, make_foreign_claims, make_jwks, make_token, sign
from tests.world import AUDIENCE as WORLD_AUDIENCE
from tests.world import free_socket, http_client, make_world, meta, served


@pytest.fixture
def service() -> Service:
    """Return an issuer's application."""
    return Service()


async def test_metadata_says_what_there_is(service: Service) -> None:
    """As RFC 8414 names it."""
    response = await service.send("GET", "/.well-known/oauth-authorization-server")

    metadata = response.json()
    algorithms = metadata.pop("token_endpoint_auth_signing_alg_values_supported")
    assert {"ES256", "EdDSA", "RS256"} <= set(algorithms)
    assert not {"none", "HS256"} & set(algorithms)
    assert metadata.pop("revocation_endpoint_auth_signing_alg_values_supported") == algorithms
    assert metadata.pop("introspection_endpoint_auth_signing_alg_values_supported") == algorithms
    assert metadata == {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
        "grant_types_supported": [EXCHANGE],
        "response_types_supported": [],
        "authorization_details_types_supported": ["agentguard_grant"],
        "token_endpoint": f"{ISSUER}/token",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "revocation_endpoint": f"{ISSUER}/revoke",
        "revocation_endpoint_auth_methods_supported": ["private_key_jwt"],
        "introspection_endpoint": f"{ISSUER}/introspect",
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
    }


@pytest.mark.parametrize(
    ("issuer", "path"), [("https://a.example/", ""), ("https://a.example/tenants/7", "/tenants/7")]
)
async def test_issuer_with_a_path_is_served_under_it(issuer: str, path: str) -> None:
    """The well-known part of its metadata comes first (RFC 8414 section 3.1)."""
    trusted = InvocationVerifier(TrustedIssuer(issuer=CORP, mints_runs=False), keys={CORP: FixedKeys(make_jwks(KEY))})
    service = Service(issuer_url=issuer, trusted=trusted)

    metadata = (await service.send("GET", f"https://a.example/.well-known/oauth-authorization-server{path}")).json()
    keys = await service.send("GET", metadata["jwks_uri"])

    assert (metadata["issuer"], metadata["token_endpoint"]) == (issuer, f"https://a.example{path}/token")
    assert keys.json() == service.issuer.jwks()
    assert keys.headers["cache-control"] == "no-cache"
    assert refusal(await service.send("POST", metadata["token_endpoint"], data={"a": "b"})) == (401, "invalid_client")


@pytest.mark.parametrize(
    "issuer", ["urn:agentguard:local", "http://issuer.example", "https://a.example/?q=1", "https://a.example/#f"]
)
def test_issuer_that_is_no_url_is_not_served(issuer: str) -> None:
    """Nobody could find it."""
    with pytest.raises(ConfigurationError, match="an issuer that is served wants an https URL"):
        Service(issuer_url=issuer)


def test_issuer_without_a_store_is_not_served() -> None:
    """No run could be ended."""
    with pytest.raises(ConfigurationError, match="pass it store="):
        Issuer(issuer=ISSUER, audience=AUDIENCE).app(clients=[make_client("planner")])


@pytest.mark.parametrize(
    "options",
    [
        {"json": {"grant_type": EXCHANGE}},
        {"content": b"grant_type=a"},
        {"content": b"grant_type", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": b"\xff=a", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": b"a=%ff", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"data": {"a": "b"}, "params": {"grant_type": EXCHANGE}},
        {"data": {"a": "b" * BODY_BYTES}},
        {"data": {f"a{number}": "b" for number in range(FIELDS + 1)}},
    ],
)
@pytest.mark.parametrize("path", ["/token", "/revoke", "/introspect"])
async def test_request_that_is_not_a_small_form_is_refused(
    service: Service, path: str, options: dict[str, Any]
) -> None:
    """Before anything of it is looked at."""
    assert refusal(await service.send("POST", path, **options)) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/token", "/revoke", "/introspect"])
async def test_other_methods_are_not_answered(service: Service, path: str) -> None:
    """A token in a URL ends up in logs."""
    assert (await service.send("GET", path)).status_code == 405


@pytest.mark.parametrize("path", ["/token/", "/revoke/", "/.well-known/jwks.json/", "/"])
async def test_other_paths_are_not_found(service: Service, path: str) -> None:
    """Nobody is sent elsewhere with what it signed."""
    assert (await service.post(path, token="x")).status_code == 404


async def test_parameter_without_a_value_is_as_good_as_left_out(service: Service) -> None:
    """As RFC 6749 section 3.1 wants it."""
    response = await service.exchange(scope="", task="", actor_token="", actor_token_type="", unknown="x")

    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/revoke", "/introspect"])
async def test_request_without_its_token_is_refused(service: Service, path: str) -> None:
    """There is nothing to answer."""
    assert refusal(await service.post(path)) == (400, "invalid_request")


async def test_description_has_the_characters_that_it_may_have(service: Service) -> None:
    """RFC 6749 appendix A.8 leaves out quotes, and all that is not ASCII."""
    details = [{"type": "agentguard_grant", "tools": ["read"], "arguments": {'"é\\': {}}}]

    response = await service.exchange(authorization_details=details)

    assert refusal(response) == (400, "invalid_authorization_details")
    assert "`????`" not in response.json()["error_description"]
    assert "`???`" in response.json()["error_description"]


class DownStore(MemoryStore):
    """A store that answers until it is down."""

    down: str | None = None

    def _require_up(self, name: str) -> None:
        if self.down == name:
            raise Refusal(Reason.STORE_UNAVAILABLE, "the server is gone")

    def spend(self, key: str, until: float) -> bool:
        """Answer, or not."""
        self._require_up("spend")
        return super().spend(key, until)

    def record_run(self, run: Any) -> None:
        """Answer, or not."""
        self._require_up("record_run")
        super().record_run(run)

    def require_mintable(self, *chain: Any) -> None:
        """Answer, or not."""
        self._require_up("require_mintable")
        super().require_mintable(*chain)

    def ended(self, invocation: Any) -> bool:
        """Answer, or not."""
        self._require_up("ended")
        return super().ended(invocation)

    def revoke(self, **options: Any) -> None:
        """Answer, or not."""
        self._require_up("revoke")
        super().revoke(**options)


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
async def test_store_that_is_down_is_no_answer_where_evidence_is_kept(path: str) -> None:
    """Whether a run is over is asked before it is taken up again."""
    service = Service()
    service = Service(clock=service.clock, store=DownStore(clock=service.clock), ledger=MemoryLedger())
    token = await service.token()
    # Another process of the issuer, which has not seen the run.
    other = Service(clock=service.clock, store=service.store, ledger=MemoryLedger())
    service.store.down = "ended"

    assert refusal(await other.post(path, token=token)) == (503, "temporarily_unavailable")


@pytest.mark.parametrize(
    ("step", "path", "renewal"),
    [
        ("spend", "/token", False),
        ("record_run", "/token", False),
        ("require_mintable", "/token", False),
        ("require_mintable", "/token", True),
        ("ended", "/token", True),
        ("ended", "/introspect", True),
        ("revoke", "/revoke", True),
    ],
)
async def test_store_that_is_down_asks_the_client_to_come_again(step: str, path: str, renewal: bool) -> None:
    """Nothing is given out meanwhile, and nothing is left of it."""
    service = Service()
    service = Service(clock=service.clock, store=DownStore(clock=service.clock))
    token = await service.token()
    asked: dict[str, Any] = {"grant_type": EXCHANGE, "subject_token_type": ACCESS_TOKEN, "token": token}
    asked |= (
        {"subject_token": token} if renewal else {"subject_token": make_subject(), "authorization_details": [READS]}
    )
    service.store.down = step

    response = await service.post(path, **asked)

    assert refusal(response) == (503, "temporarily_unavailable")
    assert response.headers["retry-after"] == "5"
    assert len(service.records()) == 1
    service.store.down = None
    assert (await service.post(path, **asked)).status_code == 200


async def test_evidence_that_cannot_be_kept_asks_the_client_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No record, no token; the run that nobody has is over."""
    ledger = MemoryLedger()
    service = Service(ledger=ledger)

    def broken(*args: object, **options: object) -> None:
        raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "full")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryLedger, "append", broken)
        assert refusal(await service.exchange()) == (503, "temporarily_unavailable")

    assert not any(record.state.live for record in service.records())


async def test_runs_over_http_leave_evidence() -> None:
    """That they were issued, and how they ended."""
    ledger = MemoryLedger()
    service = Service(ledger=ledger)

    token = await service.token()
    assert (await service.post("/revoke", token=token)).status_code == 200

    states = [entry.record["attributes"]["agentguard.run.state"] for entry in ledger if entry.record["kind"] == "run"]
    assert states == ["issued", "revoked"]


async def test_keys_that_cannot_be_fetched_ask_the_client_to_come_again() -> None:
    """The subject token may be as good as any."""
    trusted = InvocationVerifier(TrustedIssuer(issuer="http://127.0.0.1:1", mints_runs=False))
    service = Service(trusted=trusted)
    subject = make_subject(iss="http://127.0.0.1:1")

    assert refusal(await service.exchange(subject_token=subject)) == (503, "temporarily_unavailable")


@pytest.mark.parametrize("error", [RuntimeError("secret"), Refusal(Reason.INTERNAL_ERROR, "secret")])
async def test_what_nobody_thought_of_gives_nothing_out(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A constant answer; the rest is in the log."""

    def broken(*args: object) -> None:
        raise error

    monkeypatch.setattr(MemoryStore, "spend", broken)
    if isinstance(error, Refusal):
        monkeypatch.undo()
        monkeypatch.setattr("agentguard.lifecycle.app.introspect", broken)
    with caplog.at_level(logging.ERROR):
        response = await service.post("/introspect", token="x")

    assert (response.status_code, response.json()) == (500, {"error": "server_error"})
    assert response.headers["cache-control"] == "no-store"


async def test_revoked_token_ends_its_run_and_what_stems_from_it(service: Service) -> None:
    """The record says who did it."""
    parent = await service.token()
    child = await service.token(subject_token=parent, client="reader")

    response = await service.post("/revoke", token=parent, token_type_hint="refresh_token")

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["cache-control"] == "no-store"
    assert {record.state for record in service.records()} == {RunState.REVOKED}
    assert service.store.ended(service.read(child))
    assert service.records()[0].reason == "revoked by client planner"
    assert (await service.post("/revoke", token=parent)).status_code == 200


async def test_client_above_may_revoke_what_it_handed_on(service: Service) -> None:
    """By the child's token, and the child alone."""
    parent = await service.token()
    child = await service.token(subject_token=parent, client="reader")

    assert refusal(await service.post("/revoke", client="reader", token=parent)) == (400, "invalid_grant")
    assert (await service.post("/revoke", token=child)).status_code == 200

    assert service.store.ended(service.read(child))
    assert not service.store.ended(service.read(parent))


async def test_token_that_says_nothing_is_as_good_as_revoked(service: Service) -> None:
    """Unknown, foreign or nonsense: 200 (RFC 7009 section 2.2)."""
    for token in ("nonsense", make_subject(), make_token(run="r", jti="j", aud=[AUDIENCE])):
        assert (await service.post("/revoke", token=token)).status_code == 200
    assert service.records() == ()


async def test_token_whose_own_end_has_passed_still_ends_its_run(service: Service) -> None:
    """The run may live on by a later token."""
    first = await service.token(ends_in=1000)
    service.clock.now += 290
    second = await service.token(subject_token=first, authorization_details=ABSENT)
    service.clock.now += 100

    assert (await service.post("/revoke", token=first)).status_code == 200

    assert service.store.ended(service.read(second))


async def test_live_token_is_active_for_its_client_and_for_its_server(service: Service) -> None:
    """With all that it says."""
    token = await service.token()

    for client in ("planner", "records"):
        answer = (await service.post("/introspect", client=client, token=token)).json()
        assert answer == {**unverified(token, Limits())[1], "active": True, "token_type": "Bearer"}


async def test_further_claims_do_not_speak_for_the_answer(service: Service) -> None:
    """Whatever they are called."""
    run = service.issuer.begin(agent="planner", tools=["read"], claims={"active": "no", "token_type": "x"})

    answer = (await service.post("/introspect", token=run.token())).json()

    assert (answer["active"], answer["token_type"]) == (True, "Bearer")


async def test_token_that_is_over_is_not_active(service: Service) -> None:
    """Ended, expired, or never one of ours; the answer is the same."""
    ended, expired = await service.token(), await service.token(ends_in=100)
    service.issuer.resume(ended).end()
    service.clock.now += 100
    foreign = sign({**make_foreign_claims(), "iss": CORP})

    for token in (ended, expired, foreign, "nonsense"):
        response = await service.post("/introspect", token=token)
        assert (response.status_code, response.json()) == (200, {"active": False})
        assert response.headers["cache-control"] == "no-store"


async def test_server_learns_nothing_of_tokens_for_another(service: Service) -> None:
    """Nor does a client of another's."""
    elsewhere = service.issuer.begin(agent="planner", tools=["read"], audience="https://other.example/mcp").token()
    here = await service.token()

    assert (await service.post("/introspect", client="records", token=elsewhere)).json() == {"active": False}
    assert (await service.post("/introspect", client="reader", token=here)).json() == {"active": False}


@asynccontextmanager
async def on_loopback(issuer: Issuer, listening: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve an issuer's application on a socket that is bound already."""
    server = uvicorn.Server(uvicorn.Config(issuer.app(**options), log_level="error", ws="none"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        while not server.started:
            await anyio.lowlevel.checkpoint()
        try:
            yield
        finally:
            server.should_exit = True


async def test_token_from_the_endpoint_is_good_until_it_is_revoked_there(tmp_path: Path) -> None:
    """A real issuer, a real guarded server, and the network in between."""
    with free_socket() as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        state = UnsafeMemoryState()
        issuer = Issuer(issuer=url, audience=WORLD_AUDIENCE, key=KEY, store=state.store)
        world = make_world(tmp_path, issuer=issuer, state=state)
        now = int(time.time())
        trusted = InvocationVerifier(
            TrustedIssuer(issuer=CORP, mints_runs=False), keys={CORP: FixedKeys(make_jwks(KEY))}
        )

        def signed() -> dict[str, str]:
            assertion = make_assertion(aud=f"{url}/token", iat=now, exp=now + 60)
            return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

        async with (
            on_loopback(issuer, listening, clients=[make_client("planner")], trusted=trusted),
            httpx2.AsyncClient(base_url=url, timeout=30) as http,
        ):
            asked = {
                "grant_type": EXCHANGE,
                "subject_token": make_subject(aud=url, iat=now, exp=now + 60),
                "subject_token_type": ACCESS_TOKEN,
                "actor_token": make_subject(
                    aud=url, iat=now, exp=now + 60, client_id="planner", sub="planner", act={"sub": "reader"}
                ),
                "actor_token_type": ACCESS_TOKEN,
                "authorization_details": json.dumps([READS]),
            }
            token = (await http.post("/token", data={**signed(), **asked})).json()["access_token"]
            key_id = str(unverified(token, Limits())[0]["kid"])
            async with served(world) as mcp, http_client(mcp, token) as client:
                allowed = await client.call_tool("read", {"record_id": "r1"})
                revoked = await http.post("/revoke", data={**signed(), "token": token})
                refused = await client.call_tool("read", {"record_id": "r1"})
            found = await JWKS(url).get(key_id)

    assert key_id in found
    assert (allowed.is_error, revoked.status_code, meta(refused)["reason"]) == (False, 200, "ended")
    assert world.ran == ["read r1"]
