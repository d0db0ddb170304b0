"""Threat: what a trusted issuer signed for another purpose, place or party is taken for an access token of ours."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from agentguard import Reason, Refusal
from agentguard.identity.dialects import CLIENT_CLAIMS
from tests.identity.goldens import GOLDENS, Golden
from tests.tokens import base64url

each_golden = pytest.mark.parametrize("golden", GOLDENS.values(), ids=GOLDENS)
CASES = [(golden, what) for golden in GOLDENS.values() for what in golden.refused]


async def refusal_of(golden: Golden, token: str, audience: str | None = None) -> Refusal:
    """Return how a golden's verifier refuses a token."""
    with pytest.raises(Refusal) as caught:
        await golden.verifier(audience).verify(token)
    return caught.value


@pytest.mark.parametrize(("golden", "what"), CASES, ids=[f"{golden.name}: {what}" for golden, what in CASES])
async def test_token_that_differs_as_the_golden_says_is_refused(golden: Golden, what: str) -> None:
    """One thing is otherwise, and the token is not believed."""
    change: dict[str, Any] = golden.refused[what]
    token = golden.token(header=change.get("header"), **change.get("claims", {}))
    if "tampered_header" in change:
        # Graph hashes a nonce of the header before it signs, so the text that is sent has another one.
        sent = golden.token(header={**change["header"], **change["tampered_header"]}).split(".")[0]
        token = ".".join([sent, *token.split(".")[1:]])

    refusal = await refusal_of(golden, token, change.get("audience"))

    assert refusal.reason is Reason.INVALID_TOKEN


@each_golden
async def test_second_name_of_the_client_must_not_contradict_the_first(golden: Golden) -> None:
    """Readers would differ in which of the two they believe."""
    for name in CLIENT_CLAIMS - golden.claims.keys():
        changes: dict[str, Any] = {name: "another"}
        assert "contradict" in (await refusal_of(golden, golden.token(**changes))).detail


@each_golden
async def test_token_without_its_issuer_s_name_for_the_client_is_refused(golden: Golden) -> None:
    """Another name for it is no replacement: that is how other kinds of token spell it."""
    own = golden.trusted.dialect.client_claims
    changes: dict[str, Any] = {**dict.fromkeys(own), **dict.fromkeys(CLIENT_CLAIMS - own, golden.earns["agent"])}

    assert "is missing" in (await refusal_of(golden, golden.token(**changes))).detail


@each_golden
async def test_token_that_cannot_be_told_from_the_next_is_refused(golden: Golden) -> None:
    """Without `jti` or `uti` it would be a shared identity, unless it names its run."""
    refusal = await refusal_of(golden, golden.token(jti=None, uti=None))

    assert "`jti` is missing" in refusal.detail


@each_golden
async def test_lifetime_above_the_cap_is_refused_with_both_numbers(golden: Golden) -> None:
    """One second more; the log tells what to configure."""
    most = golden.trusted.max_lifetime
    token = golden.token(exp=golden.claims["iat"] + most + 1)

    assert f"lives {most + 1} s; 1 to {most} s" in (await refusal_of(golden, token)).detail
    longest = await golden.verified(golden.token(exp=golden.claims["iat"] + most))
    assert longest.lifetime == most


@each_golden
@pytest.mark.parametrize(
    "changes", [{"iss": "https://other.example"}, {"aud": "https://other.example/mcp"}, {"cnf": {"jkt": "x"}}]
)
async def test_token_of_or_for_somebody_else_is_refused(golden: Golden, changes: dict[str, Any]) -> None:
    """Another issuer, another audience, a binding to a key."""
    assert (await refusal_of(golden, golden.token(**changes))).reason is Reason.INVALID_TOKEN


@each_golden
@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "JOSE"])
async def test_token_of_another_type_is_refused(golden: Golden, typ: str) -> None:
    """What `typ` names is made for something else, for an issuer that leaves it out too."""
    assert "`typ`" in (await refusal_of(golden, golden.token(header={"typ": typ}))).detail


@each_golden
async def test_token_signed_by_a_stranger_is_refused(golden: Golden) -> None:
    """The claims are perfect and the key is not the issuer's."""
    token = golden.token(key=generate_private_key(65537, 2048))

    assert (await refusal_of(golden, token)).reason is Reason.INVALID_TOKEN


@each_golden
async def test_token_that_brings_a_grant_or_ancestors_is_refused(golden: Golden) -> None:
    """Such an issuer has no say in what bounds a run."""
    grant = [{"type": "agentguard_grant", "cedar": "permit (principal, action, resource);"}]

    assert (await refusal_of(golden, golden.token(authorization_details=grant))).reason is Reason.INVALID_TOKEN
    assert (await refusal_of(golden, golden.token(ancestors=[]))).reason is Reason.INVALID_TOKEN


@each_golden
async def test_unsigned_token_is_refused(golden: Golden) -> None:
    """`alg: none`, with any signature."""
    claims = golden.token().split(".")[1]
    header = base64url(b'{"alg":"none","kid":"key-1","typ":"JWT"}')
    token = f"{header}.{claims}.AAAA"

    assert (await refusal_of(golden, token)).reason is Reason.INVALID_TOKEN


async def test_client_named_like_a_pattern_is_only_text() -> None:
    """A client that is called `.*` would otherwise be every service account."""
    golden = GOLDENS["keycloak-service-account"]

    for client in (".*", "{user}", "{client}"):
        token = golden.token(azp=client, client_id=client)
        assert (await refusal_of(golden, token)).reason is Reason.INVALID_TOKEN
