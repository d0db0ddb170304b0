from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.jwk import KeySet
from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer
from agentguard.identity.verifier import InvocationVerifier
from agentguard.limits import Limits
from agentguard.model import Invocation, Reason
from tests.key_server import KeyServer, Reply
from tests.tokens import AUDIENCE, FOREIGN, GRANT, ISSUER, KEY_ID, NOW, Clock, make_issuer, make_jwks, make_token

OTHER = "https://other.example"


def make_verifier(**options: Any) -> InvocationVerifier:
    """Return a verifier of `ISSUER`'s tokens with fixed keys."""
    usual: dict[str, Any] = {"audience": AUDIENCE, "keys": {ISSUER: FixedKeys(make_jwks())}, "clock": Clock()}
    return InvocationVerifier(TrustedIssuer(issuer=ISSUER), **{**usual, **options})


class BrokenKeys:
    """Keys that fail in a way that nobody foresaw."""

    async def get(self, key_id: str) -> KeySet:
        """Fail."""
        raise KeyError(key_id)


async def test_same_text_gives_the_same_invocation() -> None:
    """Caches by identity further on depend on it."""
    verifier = make_verifier()
    token = make_token()

    first = await verifier.verify(token)

    assert await verifier.verify(token) is first


async def test_same_text_at_the_same_time_gives_the_same_invocation() -> None:
    """Whoever waited for the keys finds what another one verified meanwhile."""
    with KeyServer() as server:
        issuer = make_issuer(issuer=server.url)
        server.replies["/.well-known/oauth-authorization-server"] = Reply.of(
            {"issuer": server.url, "jwks_uri": f"{server.url}/keys"}
        )
        server.replies["/keys"] = Reply.of(issuer.jwks())
        verifier = InvocationVerifier(TrustedIssuer(issuer=server.url), audience=AUDIENCE, clock=Clock())
        token = issuer.mint(agent="a", grant=GRANT)
        found: list[Invocation] = []

        async def verify() -> None:
            found.append(await verifier.verify(token))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(verify)

    assert len(found) == 5
    assert len(set(found)) == 1


async def test_remembered_token_is_refused_once_its_time_is_over() -> None:
    """Memory does not outlive the token."""
    clock = Clock()
    verifier = make_verifier(clock=clock)
    token = make_token()
    await verifier.verify(token)

    clock.now = NOW + 330

    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            await verifier.verify(token)
        assert caught.value.reason is Reason.EXPIRED


async def test_remembered_token_is_refused_for_another_audience() -> None:
    """What was verified for one server is nothing to another."""
    verifier = make_verifier()
    token = make_token()
    await verifier.verify(token)

    with pytest.raises(Refusal):
        await verifier.verify(token, audience="urn:agentguard:stdio:records")


async def test_audience_of_the_call_goes_before_the_verifiers_own() -> None:
    """One verifier serves HTTP and stdio."""
    verifier = make_verifier(audience="https://elsewhere.example")

    assert (await verifier.verify(make_token(), audience=AUDIENCE)).run_id == "run-1"


@pytest.mark.parametrize("options", [{"audience": None}, {"audience": ""}])
async def test_verifier_without_audience_refuses_every_token(options: dict[str, Any]) -> None:
    """A token for anyone is a token for nobody."""
    with pytest.raises(Refusal) as caught:
        await make_verifier(**options).verify(make_token())

    assert caught.value.reason is Reason.UNAUTHENTICATED


async def test_memory_keeps_what_was_used_last() -> None:
    """The bound drops the token that was not asked for the longest."""
    verifier = make_verifier(limits=Limits(token_cache_entries=2))
    first, second, third = (make_token(jti=f"t-{n}") for n in range(3))
    one, two = await verifier.verify(first), await verifier.verify(second)
    assert await verifier.verify(first) is one

    await verifier.verify(third)

    assert await verifier.verify(first) is one
    assert await verifier.verify(second) is not two


async def test_memory_drops_tokens_that_have_ended() -> None:
    """Nobody shows them again, and each holds its invocation, which may be large."""
    clock = Clock()
    verifier = make_verifier(clock=clock)
    for n in range(3):
        await verifier.verify(make_token(jti=f"t-{n}"))
    assert len(verifier._remembered) == 3

    clock.now = NOW + 400
    later = make_token(jti="later", iat=clock.now, exp=clock.now + 300, run_exp=clock.now + 300)
    kept = await verifier.verify(later)

    assert len(verifier._remembered) == 1
    assert await verifier.verify(later) is kept


async def test_memory_is_swept_after_the_clock_was_set_back() -> None:
    """The next sweep would otherwise be as far off as the clock was."""
    clock = Clock()
    clock.now = NOW + 100_000
    verifier = make_verifier(clock=clock)

    clock.now = NOW
    await verifier.verify(make_token())

    assert verifier._swept_at == NOW


async def test_token_of_an_untrusted_issuer_is_refused() -> None:
    """No keys are looked for on its behalf."""
    with pytest.raises(Refusal) as caught:
        await make_verifier().verify(make_token(iss=OTHER))

    assert caught.value.reason is Reason.INVALID_TOKEN


async def test_key_of_one_issuer_does_not_verify_for_another() -> None:
    """Key sets are never merged."""
    other = make_issuer(issuer=OTHER)
    verifier = InvocationVerifier(
        TrustedIssuer(issuer=ISSUER, alias="a"),
        TrustedIssuer(issuer=OTHER, alias="b"),
        audience=AUDIENCE,
        keys={ISSUER: FixedKeys(make_jwks()), OTHER: FixedKeys(other.jwks())},
        clock=Clock(),
    )

    assert (await verifier.verify(make_token())).run_id == "a|run-1"
    assert (await verifier.verify(other.mint(agent="x", grant=GRANT))).agent == "b|x"
    with pytest.raises(Refusal):
        await verifier.verify(make_token(iss=OTHER))


async def test_error_that_nobody_expected_is_refused() -> None:
    """A source of keys that breaks leaves the token unbelieved."""
    with pytest.raises(Refusal) as caught:
        await make_verifier(keys={ISSUER: BrokenKeys()}).verify(make_token())

    assert caught.value.reason is Reason.INVALID_TOKEN
    assert caught.value.detail == "verification stopped with KeyError"


async def test_text_that_cannot_be_a_key_of_the_memory_is_refused() -> None:
    """Even what Python cannot hash ends in a refusal."""
    with pytest.raises(Refusal):
        await make_verifier().verify([])  # type: ignore[arg-type]


def test_claims_of_all_issuers_are_told() -> None:
    """The schema is built from them."""
    verifier = InvocationVerifier(
        TrustedIssuer(issuer=ISSUER, alias="a", claims={"ward": str}),
        TrustedIssuer(issuer=OTHER, alias="b", claims={"ward": str, "level": int}),
    )

    assert verifier.claims == {"ward": str, "level": int}
    assert set(verifier.issuers) == {ISSUER, OTHER}


@pytest.mark.parametrize(
    ("issuers", "options", "message"),
    [
        ([], {}, "at least one trusted issuer"),
        ([FOREIGN, FOREIGN], {}, "issuers want to be different"),
        ([FOREIGN, TrustedIssuer(issuer=OTHER, alias="b")], {}, "want an alias each"),
        ([TrustedIssuer(issuer=i, alias="a") for i in (ISSUER, OTHER)], {}, "want an alias each"),
        ([FOREIGN], {"keys": {OTHER: FixedKeys(make_jwks())}}, "`keys` wants the trusted issuers"),
        ([TrustedIssuer(issuer="urn:issuer")], {}, "`JWKS` wants an https URL"),
        (
            [
                TrustedIssuer(issuer=ISSUER, alias="a", claims={"ward": str}),
                TrustedIssuer(issuer=OTHER, alias="b", claims={"ward": int}),
            ],
            {},
            "a claim wants one type",
        ),
    ],
)
def test_issuers_that_cannot_be_told_apart_are_refused(
    issuers: list[TrustedIssuer], options: dict[str, Any], message: str
) -> None:
    """The mistake shows when the server is set up."""
    with pytest.raises(ConfigurationError, match=message):
        InvocationVerifier(*issuers, **options)


@pytest.mark.parametrize(
    ("issuers", "audience", "message"),
    [
        ((TrustedIssuer(issuer=ISSUER),), ["https://a.example"], "`audience` wants one string, got"),
        ((TrustedIssuer(issuer=ISSUER),), b"urn:a", "`audience` wants one string, got `b'urn:a'`"),
        ((ISSUER,), AUDIENCE, f"the verifier wants trusted issuers, got `'{ISSUER}'`: write `TrustedIssuer"),
    ],
)
def test_verifier_of_wrong_types_is_refused_at_set_up(issuers: Any, audience: Any, message: str) -> None:
    """Each token would be refused later on, for a reason that nobody finds."""
    with pytest.raises(ConfigurationError) as caught:
        InvocationVerifier(*issuers, audience=audience)

    assert str(caught.value).startswith(message)


async def test_key_that_is_not_in_the_set_is_refused() -> None:
    """The key id names no key: there is nothing to verify with."""
    verifier = make_verifier(keys={ISSUER: FixedKeys(make_jwks(key_id="key-2"))})

    with pytest.raises(Refusal) as caught:
        await verifier.verify(make_token())

    assert KEY_ID not in caught.value.detail
    assert caught.value.reason is Reason.INVALID_TOKEN
