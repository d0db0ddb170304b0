from __future__ import annotations

from typing import Any

import pytest

from agentguard.errors import ConfigurationError, OAuthError, Refusal
from agentguard.identity.assertion import ASSERTION_TYPE
from agentguard.identity.keys import JWKS, FixedKeys
from agentguard.lifecycle.clients import Client, Clients
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import Reason
from tests.key_server import KeyServer, Reply
from tests.lifecycle.service import PLANNER_KEY, make_assertion, make_client
from tests.tokens import AUDIENCE, ISSUER, NOW, Clock, make_jwks

ENDPOINT = f"{ISSUER}/token"


def make_clients(*clients: Client, **options: Any) -> Clients:
    """Return registered clients."""
    clock = Clock()
    usual = {"issuer": ISSUER, "endpoint": ENDPOINT, "audience": AUDIENCE, "store": MemoryStore(clock=clock)}
    return Clients(clients, **{**usual, "clock": clock, **options})


def signed(client_id: str = "planner", **changes: Any) -> dict[str, str]:
    """Return the parameters with which a client says who it is."""
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": make_assertion(client_id, **changes)}


async def refused(clients: Clients, parameters: dict[str, str]) -> str:
    """Return the code with which a client was refused."""
    with pytest.raises(OAuthError) as refusal:
        await clients.authenticate(parameters)
    assert refusal.value.description == "client authentication failed"
    return refusal.value.error


async def test_client_is_who_signed_the_assertion() -> None:
    """With or without its name beside it."""
    planner, reader = make_client("planner"), make_client("reader")
    clients = make_clients(planner, reader)

    assert (await clients.authenticate(signed())).client_id == "planner"
    assert (await clients.authenticate({**signed("reader"), "client_id": "reader"})).client_id == "reader"
    assert "planner" in clients
    assert "nobody" not in clients


async def test_client_of_no_server_of_its_own_has_the_usual_one() -> None:
    """And one that lists servers has those alone."""
    other = make_client("reader", audiences=["https://other.example/mcp"])
    clients = make_clients(make_client("planner"), other)

    assert (await clients.authenticate(signed())).audiences == {AUDIENCE}
    assert (await clients.authenticate(signed("reader"))).audiences == {"https://other.example/mcp"}


@pytest.mark.parametrize(
    "changes",
    [
        {"client_assertion": ""},
        {"client_assertion": "nonsense"},
        {"client_assertion_type": ""},
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_id": "reader"},
        {"client_secret": "s3cret"},
    ],
)
async def test_request_of_somebody_else_is_refused(changes: dict[str, str]) -> None:
    """With the same words, whatever was wrong."""
    clients = make_clients(make_client("planner"), make_client("reader"))

    assert await refused(clients, {**signed(), **changes}) == "invalid_client"


async def test_request_without_authentication_is_refused() -> None:
    """A name alone says nothing."""
    assert await refused(make_clients(make_client("planner")), {"client_id": "planner"}) == "invalid_client"


async def test_stranger_is_refused_like_a_client_with_a_wrong_key() -> None:
    """Nobody learns which clients there are."""
    clients = make_clients(make_client("planner"))

    assert await refused(clients, signed("reader")) == "invalid_client"
    assert await refused(clients, signed("planner", key=make_key())) == "invalid_client"


def make_key() -> Any:
    """Return the key of another client."""
    from tests.lifecycle.service import READER_KEY

    return READER_KEY


async def test_client_may_be_let_sign_for_longer() -> None:
    """Up to what its library writes, and no further."""
    clients = make_clients(make_client("planner", longest_assertion=3600), make_client("reader"))

    assert (await clients.authenticate(signed(exp=NOW + 3630))).client_id == "planner"
    assert await refused(clients, signed(exp=NOW + 3631)) == "invalid_client"
    assert await refused(clients, signed("reader", exp=NOW + 3600)) == "invalid_client"


async def test_store_that_cannot_keep_a_use_admits_nobody() -> None:
    """The assertion might have been used before."""
    clients = make_clients(make_client("planner"), store=MemoryStore(clock=Clock(), spent_entries=1))
    await clients.authenticate(signed())

    with pytest.raises(Refusal) as refusal:
        await clients.authenticate(signed())
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE


async def test_keys_of_a_client_may_come_from_its_own_url() -> None:
    """While they cannot be fetched, it is not admitted."""
    with KeyServer() as server:
        client = Client(client_id="planner", keys=JWKS(url=f"{server.url}/keys", cooldown_seconds=0))
        clients = make_clients(client)

        assert await refused(clients, signed()) == "invalid_client"
        server.replies["/keys"] = Reply.of(make_jwks(PLANNER_KEY, "planner"))
        assert (await clients.authenticate(signed())).client_id == "planner"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_id": ""}, "`client_id` wants 1 to 256 printable ASCII characters"),
        ({"client_id": "a\nb"}, "`client_id` wants 1 to 256 printable ASCII characters"),
        ({"client_id": "x" * 257}, "`client_id` wants 1 to 256 printable ASCII characters"),
        ({"client_id": 7}, "`client_id` wants 1 to 256 printable ASCII characters"),
        ({"keys": {"keys": []}}, "`keys` wants FixedKeys or JWKS, got `Nobody`"),
        ({"audiences": []}, "`audiences` wants a list of servers"),
        ({"audiences": [""]}, "`audiences` wants a list of servers"),
        ({"audiences": "https://a.example"}, "`audiences` wants a list of servers"),
        ({"scopes": "read"}, "`scopes` wants a list of scopes"),
        ({"scopes": ["read write"]}, "a scope wants text without blanks"),
        ({"longest": 0}, "`longest` wants a positive whole number"),
        ({"longest": True}, "`longest` wants a positive whole number"),
        ({"longest_assertion": 0}, "`longest_assertion` wants 1 to 3600 seconds, got `0`"),
        ({"longest_assertion": 3601}, "`longest_assertion` wants 1 to 3600 seconds"),
        ({"longest_assertion": True}, "`longest_assertion` wants 1 to 3600 seconds"),
        ({"may_exchange": 1}, "`may_exchange` wants True or False"),
        ({"may_introspect": "no"}, "`may_introspect` wants True or False"),
        ({"may_exchange": False}, "it may do nothing"),
    ],
)
def test_registration_that_could_mean_more_than_it_says_is_refused(options: dict[str, Any], message: str) -> None:
    """An empty list is a mistake, and never stands for everything."""

    class Nobody:
        pass

    if "keys" in options:
        options = {"keys": Nobody()}
    with pytest.raises(ConfigurationError, match=message):
        Client(**{"client_id": "planner", "keys": FixedKeys(make_jwks()), **options})


def test_clients_that_cannot_be_told_apart_are_refused() -> None:
    """As are none at all, and one without a server."""
    with pytest.raises(ConfigurationError, match="wants at least one client, got none"):
        make_clients()
    with pytest.raises(ConfigurationError, match="wants each client once, got `planner`, `planner`"):
        make_clients(make_client("planner"), make_client("planner"))
    with pytest.raises(ConfigurationError, match="client `planner`: a token is for one server"):
        make_clients(make_client("planner"), audience=None)
