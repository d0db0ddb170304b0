import json
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from agentguard.credentials.answer import ACCESS_TOKEN
from agentguard.credentials.broker import CredentialRequest, IssuedCredential, names_of
from agentguard.credentials.tokenexchange import ExchangeFor, TokenExchangeBroker
from agentguard.errors import ConfigurationError, CredentialError
from agentguard.identity.assertion import verify_assertion
from agentguard.identity.jwk import read_key_set
from tests import leaks
from tests.credentials.token_server import (
    ACCESS,
    CLIENT,
    CRM,
    KEY,
    REFRESH,
    SUBJECT_TOKEN,
    TokenServer,
    broker_of,
    granted,
    metadata,
    running,
    wanting,
)
from tests.tokens import NOW

METADATA = "/.well-known/oauth-authorization-server"
ISSUER = "https://as.example"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
NOT_JSON = "answered with something else than one small JSON object"


@pytest.fixture(scope="module")
def served() -> Iterator[TokenServer]:
    """Run one server for all tests of the file."""
    with running() as server:
        yield server


@pytest.fixture
def server(served: TokenServer) -> TokenServer:
    """Return the server as it was at first."""
    served.gate.set()
    served.asked.clear()
    served.answers = {METADATA: (200, metadata(served.url)), "/token": (200, granted()), "/revoke": (200, b"")}
    return served


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once what is repeated."""
    monkeypatch.setattr("agentguard.credentials.oauth._PAUSE_SECONDS", 0.0)


async def refused(broker: TokenExchangeBroker, request: CredentialRequest | None = None) -> CredentialError:
    """Return how asking goes wrong, once it is sure that nothing of it tells a secret."""
    with pytest.raises(CredentialError) as caught:
        await broker.issue(request or wanting())
    shown = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in (ACCESS, REFRESH, SUBJECT_TOKEN) if secret in shown]
    # An exception holds the one that it was raised in, and that one the request.
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, CredentialError)
    return caught.value


def leased(**changes: Any) -> IssuedCredential:
    """Return what was issued earlier, with changes."""
    usual = {"secret": leaks.register("the-earlier-token"), "expires_at": NOW + 20, "lease_id": "lease-1"}
    return IssuedCredential(**{**usual, **changes})


async def test_run_token_is_exchanged(server: TokenServer) -> None:
    """Word for word as RFC 8693 has it, with who we are as RFC 7523 has it."""
    broker = broker_of(server.url)

    issued = await broker.issue(wanting())

    assert (issued.secret, issued.expires_at, issued.token_type, issued.renewal) == (ACCESS, NOW + 300, "Bearer", None)
    (form,) = server.forms("/token")
    assertion = form.pop("client_assertion")
    assert form == {
        "grant_type": EXCHANGE,
        "subject_token": SUBJECT_TOKEN,
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        "resource": CRM,
        "scope": "read write",
        "client_id": CLIENT,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    keys, _ = read_key_set({"keys": [broker.jwk]})
    proved = verify_assertion(assertion, client_id=CLIENT, keys=keys, audiences={server.url}, now=NOW, most_seconds=60)
    assert proved.client_id == CLIENT


async def test_each_lease_and_each_assertion_is_another_one(server: TokenServer) -> None:
    """A lease's id tells nothing of its secret; an assertion is good once."""
    broker = broker_of(server.url)

    leases = {(await broker.issue(wanting())).lease_id for _ in range(3)}

    assert len(leases) == 3
    assert len({form["client_assertion"] for form in server.forms("/token")}) == 3
    assert [path for path, _ in server.asked] == [METADATA, "/token", "/token", "/token"]


async def test_everything_that_was_set_up_is_said(server: TokenServer) -> None:
    """The other names of things, and who acts."""

    async def actor(request: CredentialRequest) -> str:
        return f"actor token of {request.server}"

    broker = broker_of(
        server.url,
        credentials={"crm": ExchangeFor(audience="crm")},
        key_id="key-7",
        assertion_audience=f"{server.url}/token",
        subject_token_type="jwt",
        actor_token=actor,
        actor_token_type="access_token",
    )

    await broker.issue(wanting())

    (form,) = server.forms("/token")
    assert [form[name] for name in ("audience", "subject_token_type", "actor_token", "actor_token_type")] == [
        "crm",
        JWT,
        "actor token of records",
        ACCESS_TOKEN,
    ]
    assert not {"resource", "scope"} & form.keys()
    keys, _ = read_key_set({"keys": [broker.jwk]})
    assert keys.keys() == {"key-7"}
    audiences = {f"{server.url}/token"}
    proved = verify_assertion(form["client_assertion"], client_id=CLIENT, keys=keys, audiences=audiences, now=NOW)
    assert proved.client_id == CLIENT


async def test_end_is_the_tokens_own_even_past_the_runs(server: TokenServer) -> None:
    """Until then it has to be revoked: who thinks that it ended with its run would leave it be."""
    issued = await broker_of(server.url).issue(wanting(until=NOW + 60))

    assert issued.expires_at == NOW + 300


async def test_run_that_is_over_gets_nothing(server: TokenServer) -> None:
    """Nothing is even asked for."""
    error = await refused(broker_of(server.url), wanting(until=NOW))

    assert error.detail == "the run is over, so nothing was asked for"
    assert server.asked == []


@pytest.mark.parametrize("scope", ["read", "write read", "", None])
async def test_as_much_or_less_is_accepted(server: TokenServer, scope: str | None) -> None:
    """RFC 8693 lets the server give less, and leave out what is as asked."""
    server.answers["/token"] = 200, granted(scope=scope)

    assert (await broker_of(server.url).issue(wanting())).secret == ACCESS


async def test_where_no_scope_was_asked_for_the_server_chooses(server: TokenServer) -> None:
    """Some know none, others have usual ones for each resource."""
    server.answers["/token"] = 200, granted(scope="whatever it likes")

    issued = await broker_of(server.url, credentials={"crm": ExchangeFor(resource=CRM)}).issue(wanting())

    assert issued.secret == ACCESS


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scope": "read write admin"}, "answered with a `scope` that is wider than what was asked for"),
        ({"scope": ["read"]}, "answered with a `scope` that is no text"),
        ({"token_type": "DPoP"}, "answered with a `token_type` that is not Bearer"),
        ({"token_type": "N_A"}, "answered with a `token_type` that is not Bearer"),
        ({"token_type": None}, "answered with a `token_type` that is not Bearer"),
        ({"issued_token_type": None}, "answered without an `issued_token_type` that is an access token's"),
        (
            {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "answered without an `issued_token_type` that is an access token's",
        ),
        ({"expires_in": None}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": 0}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": -5}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": True}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": "300"}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": 300.0}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": 10**4_000}, "answered without `expires_in`, the seconds that the token is good"),
        ({"expires_in": 86_400}, "answered with a token of 86400 s, where at most 3600 s are accepted"),
    ],
)
async def test_token_that_was_not_asked_for_is_refused_and_given_back(
    server: TokenServer, changes: dict[str, object], problem: str
) -> None:
    """It is good, and nobody would ever revoke it."""
    server.answers["/token"] = 200, granted(refresh_token=leaks.register(REFRESH), **changes)

    error = await refused(broker_of(server.url))

    assert (error.detail, error.retry) == (f"the authorization server {problem}", False)
    assert [form["token"] for form in server.forms("/revoke")] == [REFRESH, ACCESS]


@pytest.mark.parametrize("refresh", ["", ["a refresh token"], "a refresh\x00token", "short", "a" * 17_000, 17, {}])
async def test_token_beside_a_refresh_token_that_is_none_is_given_back(server: TokenServer, refresh: object) -> None:
    """It is as good as any, and nobody would ever revoke it."""
    server.answers["/token"] = 200, granted(refresh_token=refresh)

    error = await refused(broker_of(server.url))

    assert error.detail == "the authorization server answered with a `refresh_token` that is no text"
    assert [form["token"] for form in server.forms("/revoke")] == [ACCESS]


async def test_refused_token_is_refused_where_it_cannot_be_given_back(server: TokenServer) -> None:
    """What is said is why it was refused."""
    server.answers |= {"/token": (200, granted(token_type="mac")), "/revoke": (503, b"")}

    assert "`token_type`" in (await refused(broker_of(server.url))).detail


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", NOT_JSON),
        (b"{}", NOT_JSON),
        (b"[" * 100_000, NOT_JSON),
        (b"\xff", NOT_JSON),
        (b'["access_token"]', NOT_JSON),
        (json.dumps(granted()).encode().replace(b"{", b'{"token_type": "Bearer", ', 1), NOT_JSON),
        (json.dumps(granted(access_token="a" * 70_000)).encode(), NOT_JSON),
        (granted(access_token=None), "answered with no `access_token` that a request could carry"),
        (granted(access_token=""), "answered with no `access_token` that a request could carry"),
        (granted(access_token=17), "answered with no `access_token` that a request could carry"),
        (granted(access_token="a" * 17_000), "answered with no `access_token` that a request could carry"),
        (granted(access_token="token\r\nX-Admin: yes"), "answered with no `access_token` that a request could carry"),
    ],
)
async def test_answer_that_gives_no_token_is_refused(server: TokenServer, body: object, problem: str) -> None:
    """Whatever else it is."""
    server.answers["/token"] = 200, body

    error = await refused(broker_of(server.url))

    assert (error.detail, error.retry) == (f"the authorization server {problem}", False)


@pytest.mark.parametrize(
    ("answer", "problem", "retry", "tries"),
    [
        ((400, {"error": "invalid_grant", "error_description": SUBJECT_TOKEN}), "400, `invalid_grant`", False, 1),
        ((401, {"error": "invalid_client"}), "401, `invalid_client`", False, 1),
        ((400, {"error": "invalid_target"}), "400, `invalid_target`", False, 1),
        ((400, {"error": SUBJECT_TOKEN}), "400", False, 1),
        ((400, {"error": ["invalid_grant"]}), "400", False, 1),
        ((400, b"<html>"), "400", False, 1),
        ((400, {"error": "temporarily_unavailable"}), "400, `temporarily_unavailable`", True, 1),
        ((201, granted()), "201", False, 1),
        ((429, b""), "429", True, 1),
        ((500, b""), "500", True, 2),
        ((503, {"error": "temporarily_unavailable"}), "503, `temporarily_unavailable`", True, 2),
    ],
)
async def test_refusal_is_told_by_its_code(
    server: TokenServer, answer: tuple[int, object], problem: str, retry: bool, tries: int
) -> None:
    """No other text of it: a server may repeat what it was sent. Trouble is tried once more, a refusal never."""
    server.answers["/token"] = answer

    error = await refused(broker_of(server.url))

    assert (error.detail, error.retry) == (f"the authorization server answered {problem}", retry)
    assert len(server.forms("/token")) == tries


async def test_trouble_that_passes_is_not_noticed(server: TokenServer) -> None:
    """The second try is signed anew: some servers remember the first."""
    answers = [(502, b""), (200, granted())]
    server.answers["/token"] = lambda _: answers.pop(0)

    issued = await broker_of(server.url).issue(wanting())

    first, second = server.forms("/token")
    assert issued.secret == ACCESS
    assert first["client_assertion"] != second["client_assertion"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_takes_the_runs_token_nowhere(server: TokenServer, status: int) -> None:
    """It is for the server that was named, and for nobody whom that one names."""
    server.answers["/token"] = status, b"", (b"location", f"{server.url}/elsewhere".encode())

    error = await refused(broker_of(server.url))

    assert (error.detail, error.retry) == (f"the authorization server answered {status}", False)
    assert server.forms("/elsewhere") == []


async def test_proxy_of_the_environment_is_not_asked_for_loopback(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on this machine stays on it."""
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert (await broker_of(server.url).issue(wanting())).secret == ACCESS


async def test_answer_without_an_end_is_not_read_on(server: TokenServer) -> None:
    """Neither is it kept: what is too long is as good as nothing."""
    server.answers["/token"] = 200, b" " * 1_000_000 + json.dumps(granted()).encode()

    assert (await refused(broker_of(server.url))).detail == f"the authorization server {NOT_JSON}"


async def test_server_that_is_slow_is_not_waited_for(server: TokenServer) -> None:
    """Two tries, and it may go well later."""
    server.gate.clear()

    with anyio.fail_after(20):
        error = await refused(broker_of(server.url, timeout_seconds=0.1, token_endpoint=f"{server.url}/token"))

    assert (error.detail, error.retry) == (f"the authorization server `{server.url}` did not answer in time", True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1", "refused the connection: check that it runs, and its port"),
        ("https://as.invalid", "could not be found: check the name of its host"),
    ],
)
async def test_server_that_is_down_may_be_there_later(url: str, problem: str) -> None:
    """What the client library raises holds the request: none of it is kept."""
    error = await refused(broker_of(url, token_endpoint=f"{url}/token"))

    assert (error.detail, error.retry) == (f"the authorization server `{url}` {problem}", True)


async def test_server_without_tls_is_not_talked_to(server: TokenServer) -> None:
    """It is told apart from one that is down."""
    url = server.url.replace("http:", "https:")

    error = await refused(broker_of(url, token_endpoint=f"{url}/token"))

    assert error.detail == f"the authorization server `{url}` could not be reached by TLS: check its certificate"


async def test_server_that_hangs_up_is_tried_again() -> None:
    """As one that is down."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def hang_up() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1)

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = await refused(broker_of(url, token_endpoint=f"{url}/token"))
        thread.join()

    assert error.detail.startswith(f"the authorization server `{url}` could not be reached, ")
    assert error.retry


async def test_run_without_a_token_gets_nothing(server: TokenServer) -> None:
    """As in a test that acts as somebody: there is nothing to exchange."""
    request = replace(wanting(), token="")

    error = await refused(broker_of(server.url), request)

    assert error.detail == "the run has no token that could be exchanged"
    assert server.asked == []


async def test_credential_that_is_not_known_is_not_asked_for(server: TokenServer) -> None:
    """A policy's typing error is none of the server's business."""
    error = await refused(broker_of(server.url), wanting("erp"))

    assert error.detail == "the broker knows no credential `erp`"
    assert server.asked == []


async def no_token(request: CredentialRequest) -> str:
    """Give nothing."""
    return ""


async def raising(request: CredentialRequest) -> str:
    """Say what nobody should hear."""
    raise ValueError(request.token)


@pytest.mark.parametrize(("actor", "got"), [(no_token, "str"), (raising, "ValueError")])
async def test_without_the_actors_token_nothing_is_asked_for(server: TokenServer, actor: Any, got: str) -> None:
    """What it raised may hold a token, so its class alone is told."""
    error = await refused(broker_of(server.url, actor_token=actor))

    assert error.detail == f"`actor_token` gave no token, but `{got}`"
    assert server.asked == []


async def test_credential_is_renewed_by_its_refresh_token(server: TokenServer) -> None:
    """Under the same lease, for the same system; the next refresh token takes the place of the first."""
    server.answers["/token"] = 200, granted(issued_token_type=None, refresh_token="the next refresh token")

    renewed = await broker_of(server.url).renew(leased(renewal=leaks.register(REFRESH)), wanting())

    assert (renewed.secret, renewed.lease_id, renewed.renewal) == (ACCESS, "lease-1", "the next refresh token")
    assert renewed.parts == ("the-earlier-token",)
    (form,) = server.forms("/token")
    assert (form["grant_type"], form["refresh_token"], form["resource"]) == ("refresh_token", REFRESH, CRM)
    assert not {"scope", "subject_token"} & form.keys()


async def test_refresh_token_that_is_not_replaced_renews_again(server: TokenServer) -> None:
    """RFC 6749 section 6."""
    broker = broker_of(server.url, credentials={"crm": ExchangeFor(audience="crm")})

    renewed = await broker.renew(leased(renewal=leaks.register(REFRESH)), wanting())

    assert renewed.renewal == REFRESH
    assert "resource" not in server.forms("/token")[0]


async def test_without_a_refresh_token_the_runs_token_is_exchanged_again(server: TokenServer) -> None:
    """That is another lease."""
    renewed = await broker_of(server.url).renew(leased(), wanting())

    assert (renewed.secret, renewed.renewal) == (ACCESS, None)
    assert renewed.lease_id != "lease-1"
    assert server.forms("/token")[0]["grant_type"] == EXCHANGE


async def test_refresh_token_that_is_used_up_is_not_the_end(server: TokenServer) -> None:
    """The run's own token is exchanged again: whether it may have one is for the server to say."""
    server.answers["/token"] = lambda form: (
        (400, {"error": "invalid_grant"}) if form["grant_type"] == "refresh_token" else (200, granted())
    )

    renewed = await broker_of(server.url).renew(leased(renewal=leaks.register(REFRESH)), wanting())

    assert renewed.lease_id != "lease-1"
    assert [form["grant_type"] for form in server.forms("/token")] == ["refresh_token", EXCHANGE]


async def test_renewal_of_a_server_in_trouble_is_for_later(server: TokenServer) -> None:
    """An exchange would fare no better."""
    server.answers["/token"] = 503, b""

    with pytest.raises(CredentialError) as caught:
        await broker_of(server.url).renew(leased(renewal=leaks.register(REFRESH)), wanting())

    assert caught.value.retry
    assert {form["grant_type"] for form in server.forms("/token")} == {"refresh_token"}


async def test_release_revokes_all_that_was_issued(server: TokenServer) -> None:
    """RFC 7009, what renews it first: it could get further ones."""
    await broker_of(server.url).release(leased(renewal=leaks.register(REFRESH)), "crm")

    assert [(form["token"], form["token_type_hint"]) for form in server.forms("/revoke")] == [
        (REFRESH, "refresh_token"),
        ("the-earlier-token", "access_token"),
    ]
    assert all(form["client_assertion"] for form in server.forms("/revoke"))


async def test_release_revokes_the_token_that_was_renewed_too(server: TokenServer) -> None:
    """It is good for a while yet, and RFC 7009 does not have every server end it with the refresh token."""
    broker = broker_of(server.url)
    renewed = await broker.renew(leased(renewal=leaks.register(REFRESH)), wanting())
    again = await broker.renew(renewed, wanting())

    await broker.release(renewed, "crm")

    assert [form["token"] for form in server.forms("/revoke")] == [REFRESH, ACCESS, "the-earlier-token"]
    assert again.parts == ()


@pytest.mark.parametrize("echoed", ["subject_token", "actor_token", "refresh_token"])
async def test_token_that_was_sent_is_no_credential(server: TokenServer, echoed: str) -> None:
    """The other system could act by it where the run does. It is not revoked either: that would end the run."""

    async def actor(_: CredentialRequest) -> str:
        return leaks.register("a-token-of-who-acts")

    server.answers["/token"] = lambda form: (200, granted(access_token=form.get(echoed)))
    broker = broker_of(server.url, actor_token=actor)

    with pytest.raises(CredentialError) as caught:
        await broker.renew(leased(renewal="a-longer-refresh-token" if echoed == "refresh_token" else None), wanting())

    echo = "the authorization server gave back what it was sent"
    none = "the authorization server answered with no `access_token` that a request could carry"
    assert caught.value.detail == (none if echoed == "refresh_token" else echo)
    assert server.forms("/revoke") == []


async def test_release_goes_on_where_one_token_stays(server: TokenServer) -> None:
    """And says so."""
    server.answers["/revoke"] = lambda form: (
        (400, {"error": "unsupported_token_type"}) if form["token"] == REFRESH else (200, b"")
    )

    with pytest.raises(CredentialError) as caught:
        await broker_of(server.url).release(leased(renewal=leaks.register(REFRESH)), "crm")

    assert caught.value.detail == "the authorization server answered 400, `unsupported_token_type`"
    assert len(server.forms("/revoke")) == 2


async def test_release_fails_where_the_server_revokes_nothing(server: TokenServer) -> None:
    """The evidence must not say that it is over."""
    server.answers[METADATA] = 200, metadata(server.url, revocation_endpoint=None)

    with pytest.raises(CredentialError) as caught:
        await broker_of(server.url).release(leased(), "crm")

    assert caught.value.detail.endswith("revokes nothing: its tokens are good until their end")
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, {"issuer": "https://other.example"}), "has metadata of another issuer, or none that can be read"),
        ((200, b"<html>"), "has metadata of another issuer, or none that can be read"),
        ((200, {"token_endpoint": None}), "has metadata that names no acceptable `token_endpoint`"),
        (
            (200, {"token_endpoint": "http://as.example/token"}),
            "has metadata that names no acceptable `token_endpoint`",
        ),
        (
            (200, {"revocation_endpoint": "http://as.example/revoke"}),
            "has metadata that names no acceptable `revocation_endpoint`",
        ),
        (
            (404, b""),
            f"has no metadata at `{{url}}{METADATA}`: pass token_endpoint= and revocation_endpoint=",
        ),
    ],
)
async def test_metadata_that_is_not_the_servers_sends_no_token_anywhere(
    server: TokenServer, answer: tuple[int, Any], problem: str
) -> None:
    """RFC 8414 section 3.3: an endpoint that it names is where the run's token goes."""
    status, body = answer
    server.answers[METADATA] = status, metadata(server.url, **body) if isinstance(body, dict) else body

    error = await refused(broker_of(server.url))

    assert error.detail == f"the authorization server `{server.url}` {problem.format(url=server.url)}"
    assert not error.retry
    assert {path for path, _ in server.asked} == {METADATA, "/.well-known/openid-configuration"}


async def test_metadata_may_be_where_openid_connect_has_it(server: TokenServer) -> None:
    """The usual place for many servers."""
    server.answers |= {METADATA: (404, b""), "/.well-known/openid-configuration": (200, metadata(server.url))}

    assert (await broker_of(server.url).issue(wanting())).secret == ACCESS


async def test_metadata_of_a_server_in_trouble_is_for_later(server: TokenServer) -> None:
    """It is not taken for a server without."""
    server.answers[METADATA] = 503, b""

    error = await refused(broker_of(server.url))

    assert error.retry
    assert error.detail == f"the authorization server `{server.url}` answered 503 where its metadata is wanted"


async def test_metadata_is_read_again_after_an_hour(server: TokenServer) -> None:
    """Endpoints move."""
    now = [float(NOW)]
    broker = broker_of(server.url, clock=lambda: now[0])
    await broker.issue(wanting())
    now[0] += 3_601

    await broker.issue(wanting(until=NOW + 7_200))

    assert [path for path, _ in server.asked] == [METADATA, "/token"] * 2


async def test_endpoints_may_be_given(server: TokenServer) -> None:
    """Then no metadata is asked for."""
    broker = broker_of(server.url, token_endpoint=f"{server.url}/token", revocation_endpoint=f"{server.url}/revoke")

    await broker.release(await broker.issue(wanting()), "crm")

    assert [path for path, _ in server.asked] == ["/token", "/revoke"]


def test_it_serves_several_event_loops(server: TokenServer) -> None:
    """Each asks over a connection of its own, also at one time."""
    broker = broker_of(server.url)
    secrets: list[str] = []

    def ask() -> None:
        secrets.append(anyio.run(broker.issue, wanting()).secret)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert secrets == [ACCESS] * 4


def test_its_names_are_what_was_set_up() -> None:
    """They are what policies may name."""
    assert names_of(broker_of(ISSUER)) == {"crm"}


TYPES = "wants `access_token` or `jwt`, got `saml2`: choose one of them"
ENDPOINT = "wants an https URL, or http on loopback as the issuer's, got"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": "http://as.example"}, "`issuer` wants an https URL, or http on loopback, got `http://as.example`: "),
        ({"credentials": {}}, "`credentials` wants at least one, got none: "),
        ({"credentials": {"crm": CRM}}, "credential `crm` wants an ExchangeFor, got `str`: "),
        ({"client_id": ""}, "`client_id` wants the name of this client at the server, got `''`: "),
        ({"key": "no key"}, "`key` wants a private key on P-256 or Ed25519, as PEM, JWK or object, got "),
        ({"timeout_seconds": 0}, "`timeout_seconds` wants more than 0 and at most 60, got `0`: "),
        ({"timeout_seconds": 61}, "`timeout_seconds` wants more than 0 and at most 60, got `61`: "),
        (
            {"revocation_endpoint": f"{ISSUER}/revoke"},
            "`revocation_endpoint` wants token_endpoint= beside it, got none: ",
        ),
        ({"token_endpoint": "http://127.0.0.1/token"}, f"`token_endpoint` {ENDPOINT} `http://127.0.0.1/token`: "),
        (
            {"token_endpoint": f"{ISSUER}/token", "revocation_endpoint": "as.example"},
            f"`revocation_endpoint` {ENDPOINT} `as.example`: ",
        ),
        ({"subject_token_type": "saml2"}, f"`subject_token_type` {TYPES}"),
        ({"actor_token_type": "saml2"}, f"`actor_token_type` {TYPES}"),
    ],
)
def test_mistake_of_the_broker_is_told_with_the_fix(changes: dict[str, Any], problem: str) -> None:
    """When the server is set up, and not at its first call."""
    with pytest.raises(ConfigurationError) as caught:
        broker_of(**{"url": ISSUER, **changes})

    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "`ExchangeFor` wants resource=, audience= or scopes=, got none: "),
        ({"resource": "crm.example"}, "`resource` wants an absolute URI without a fragment, got `crm.example`: "),
        ({"resource": f"{CRM}#part"}, f"`resource` wants an absolute URI without a fragment, got `{CRM}#part`: "),
        ({"audience": ""}, "`audience` wants the other system's name, got an empty one: "),
        ({"audience": "crm", "longest": 0}, "`longest` wants a positive whole number, got `0`: "),
        ({"scopes": "read"}, "`scopes` wants a list of scopes, got the text `read`: "),
    ],
)
def test_mistake_of_a_credential_is_told_with_the_fix(changes: dict[str, Any], problem: str) -> None:
    """The same."""
    with pytest.raises(ConfigurationError) as caught:
        ExchangeFor(**changes)

    assert str(caught.value).startswith(problem)


def test_key_of_the_broker_is_not_shown() -> None:
    """Only its public half is."""
    broker = broker_of(ISSUER)

    assert "d" not in broker.jwk
    assert str(KEY.private_numbers().private_value) not in repr(broker) + repr(broker.jwk)
