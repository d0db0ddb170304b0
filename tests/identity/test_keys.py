from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.keys import JWKS, FixedKeys
from agentguard.model import Reason
from tests.key_server import KeyServer, Reply
from tests.tokens import KEY_ID, Clock, make_jwks

KEYS = Reply.of(make_jwks())
OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


async def test_fixed_keys_are_given_whichever_is_wanted() -> None:
    """They are all there is."""
    keys = FixedKeys(make_jwks())

    assert list(await keys.get("other")) == [KEY_ID]


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": [{"kty": "oct", "kid": "a"}]}])
def test_fixed_keys_without_a_usable_one_are_refused(jwks: dict[str, object]) -> None:
    """The mistake shows when the server is set up."""
    with pytest.raises(ConfigurationError, match="`jwks` wants"):
        FixedKeys(jwks)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"issuer": "https://a.example", "url": "https://a.example/keys"},
        {"url": "http://a.example/keys"},
        {"url": "ftp://127.0.0.1/keys"},
        {"url": "https://user:secret@a.example/keys"},
        {"url": "https://a.example/keys#part"},
        {"url": "https:///keys"},
        {"url": "http://127.0.0.1:port/keys"},
        {"url": "http://127.0.0.1.a.example/keys"},
        {"issuer": "urn:issuer"},
        {"issuer": ""},
    ],
)
def test_source_of_keys_that_anyone_on_the_way_could_change_is_refused(options: dict[str, Any]) -> None:
    """Only https, or http that does not leave this machine."""
    with pytest.raises(ConfigurationError):
        JWKS(**options)


@pytest.mark.parametrize(
    "url", ["https://a.example/keys", "http://127.0.0.1:1/keys", "http://[::1]/keys", "http://localhost/keys"]
)
def test_source_of_keys_over_https_or_loopback_is_accepted(url: str) -> None:
    """Nothing is fetched until a key is wanted."""
    assert JWKS(url=url) is not None


async def test_keys_come_from_their_url() -> None:
    """One fetch serves until the keys are old."""
    clock = Clock()
    with KeyServer() as server:
        server.replies["/keys"] = KEYS
        keys = JWKS(url=f"{server.url}/keys", clock=clock)

        for _ in range(3):
            assert list(await keys.get(KEY_ID)) == [KEY_ID]
        clock.now += 299
        await keys.get(KEY_ID)
        assert server.asked == ["/keys"]

        clock.now += 1
        await keys.get(KEY_ID)
        assert server.asked == ["/keys"] * 2


@pytest.mark.parametrize("path", ["", "/tenant", "/"])
async def test_keys_come_from_where_the_issuers_metadata_says(path: str) -> None:
    """RFC 8414 puts the well-known part before the issuer's path."""
    with KeyServer() as server:
        issuer = f"{server.url}{path}"
        location = f"{OAUTH}{path.rstrip('/')}"
        server.replies[location] = Reply.of({"issuer": issuer, "jwks_uri": f"{server.url}/keys"})
        server.replies["/keys"] = KEYS

        assert list(await JWKS(issuer).get(KEY_ID)) == [KEY_ID]
        assert server.asked == [location, "/keys"]


@pytest.mark.parametrize("first", [Reply(b"", status=404), Reply(b"<html>"), Reply.of({"issuer": "https://other"})])
async def test_openid_metadata_is_asked_where_the_other_is_not_usable(first: Reply) -> None:
    """OpenID Connect Discovery puts the well-known part after the issuer's path."""
    with KeyServer() as server:
        issuer = f"{server.url}/tenant"
        server.replies[f"{OAUTH}/tenant"] = first
        server.replies[f"/tenant{OPENID}"] = Reply.of({"issuer": issuer, "jwks_uri": f"{server.url}/keys"})
        server.replies["/keys"] = KEYS

        assert list(await JWKS(issuer).get(KEY_ID)) == [KEY_ID]


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example", "jwks_uri": "{url}/keys"},
        {"issuer": "{url}/", "jwks_uri": "{url}/keys"},
        {"jwks_uri": "{url}/keys"},
        {"issuer": "{url}"},
        {"issuer": "{url}", "jwks_uri": 7},
        {"issuer": "{url}", "jwks_uri": "http://a.example/keys"},
        {"issuer": "{url}", "jwks_uri": "http://127.0.0.1:port/keys"},
    ],
)
async def test_metadata_of_another_issuer_or_without_keys_is_refused(metadata: dict[str, object]) -> None:
    """Believing it would make another issuer's keys this one's."""
    with KeyServer() as server:
        said = {n: v.replace("{url}", server.url) if isinstance(v, str) else v for n, v in metadata.items()}
        server.replies[OAUTH] = server.replies[OPENID] = Reply.of(said)
        server.replies["/keys"] = KEYS

        with pytest.raises(Refusal) as caught:
            await JWKS(server.url).get(KEY_ID)

        assert caught.value.reason is Reason.UNAUTHENTICATED
        assert "/keys" not in server.asked


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", status=500),
        Reply(make_jwks().__repr__().encode()),
        Reply(b"[]"),
        Reply(b"{}"),
        Reply(b'{"keys": [], "keys": []}'),
        Reply(b"[" * 100_000),
    ],
)
async def test_answer_that_is_no_key_set_is_refused_and_logged(reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    """A broken endpoint gives no keys, and an operator can see why."""
    with KeyServer() as server:
        server.replies["/keys"] = reply

        with caplog.at_level(logging.WARNING, logger="agentguard"), pytest.raises(Refusal):
            await JWKS(url=f"{server.url}/keys").get(KEY_ID)

        assert f"keys of `{server.url}/keys` could not be fetched" in caplog.text


async def test_endpoint_that_does_not_answer_in_time_gives_no_keys() -> None:
    """The whole fetch has one deadline."""
    with KeyServer() as server:
        server.gate.clear()

        with pytest.raises(Refusal):
            await JWKS(url=f"{server.url}/keys", timeout_seconds=0.05).get(KEY_ID)


async def test_empty_key_set_is_believed() -> None:
    """An issuer that withdraws every key is heard."""
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of({"keys": []})

        assert await JWKS(url=f"{server.url}/keys").get(KEY_ID) == {}


async def test_key_that_is_left_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks for a missing key finds the reason."""
    with KeyServer() as server:
        server.replies["/keys"] = Reply.of({"keys": [{"kty": "oct", "kid": "a"}]})

        with caplog.at_level(logging.INFO, logger="agentguard"):
            await JWKS(url=f"{server.url}/keys").get(KEY_ID)

    assert "is left out: key 0: no supported algorithm fits it" in caplog.text


async def test_caller_that_hangs_up_does_not_cost_the_others_their_fetch() -> None:
    """The fetch goes on, and its keys are there for whoever waits."""
    with KeyServer() as server:
        server.replies["/keys"] = KEYS
        server.gate.clear()
        keys = JWKS(url=f"{server.url}/keys")

        async with anyio.create_task_group() as impatient:
            impatient.start_soon(keys.get, KEY_ID)
            await anyio.to_thread.run_sync(server.arrived.wait)
            impatient.cancel_scope.cancel()
            server.gate.set()

        assert list(await keys.get(KEY_ID)) == [KEY_ID]
        assert server.asked == ["/keys"]
