"""What the presets make, what they refuse to make, and that each issuer's keys are found."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agentguard import ConfigurationError, InvocationVerifier, Refusal, TrustedIssuer
from tests.identity.goldens import GOLDENS, KEY, public_jwk
from tests.key_server import KeyServer, Reply
from tests.tokens import NOW

TENANT = "0f5c1d7e-3a52-4b8e-9c41-6d2e8b7a1c90"
OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("trusted", "issuer"),
    [
        (TrustedIssuer.entra(tenant=TENANT), f"https://login.microsoftonline.com/{TENANT}/v2.0"),
        (TrustedIssuer.entra(tenant=TENANT, version=1), f"https://sts.windows.net/{TENANT}/"),
        (TrustedIssuer.okta(domain="company.okta.com"), "https://company.okta.com/oauth2/default"),
        (
            TrustedIssuer.okta(domain="company.okta.com", authorization_server="aus1a2b3"),
            "https://company.okta.com/oauth2/aus1a2b3",
        ),
        (TrustedIssuer.auth0(domain="company.eu.auth0.com"), "https://company.eu.auth0.com/"),
        (
            TrustedIssuer.keycloak(url="https://sso.example.com", realm="company"),
            "https://sso.example.com/realms/company",
        ),
        (
            TrustedIssuer.keycloak(url="https://sso.example.com/auth", realm="company"),
            "https://sso.example.com/auth/realms/company",
        ),
        (TrustedIssuer.generic(issuer="https://issuer.example"), "https://issuer.example"),
    ],
)
def test_preset_writes_the_issuer_as_its_tokens_do(trusted: TrustedIssuer, issuer: str) -> None:
    """To the last slash: `iss` is compared exactly."""
    assert trusted.issuer == issuer
    assert not trusted.mints_runs
    assert not trusted.several_audiences
    assert not trusted.shared


PRESETS: dict[str, dict[str, Any]] = {
    "entra": {"tenant": TENANT},
    "okta": {"domain": "company.okta.com"},
    "auth0": {"domain": "company.eu.auth0.com"},
    "keycloak": {"url": "https://sso.example.com", "realm": "company"},
    "generic": {"issuer": "https://issuer.example"},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_options_of_a_preset_are_those_of_the_class(preset: str) -> None:
    """The alias, the cap, the claim that names the run, and the claims that policies read."""
    trusted = getattr(TrustedIssuer, preset)(
        **PRESETS[preset], alias="corp", max_lifetime=7_200, run_claim="task.id", claims={"ward": str}
    )

    assert (trusted.alias, trusted.max_lifetime, trusted.run_claim) == ("corp", 7_200, "task.id")
    assert trusted.claims == {"ward": str}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_checked_like_any_other_configuration(preset: str) -> None:
    """A claim that would speak for an attribute of ours."""
    with pytest.raises(ConfigurationError, match="`claims` wants names of new attributes"):
        getattr(TrustedIssuer, preset)(**PRESETS[preset], claims={"agent": str})


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("entra", {"tenant": "common"}, "`tenant` wants the tenant's id in lower case, got `'common'`"),
        ("entra", {"tenant": "company.onmicrosoft.com"}, "`tenant` wants"),
        ("entra", {"tenant": TENANT.upper()}, "`tenant` wants"),
        ("entra", {"tenant": f"{TENANT}\n"}, "`tenant` wants"),
        ("entra", {"tenant": None}, "`tenant` wants"),
        ("entra", {"tenant": TENANT, "version": 3}, "`version` wants 1 or 2, got `3`"),
        ("entra", {"tenant": TENANT, "version": True}, "`version` wants 1 or 2, got `True`"),
        ("okta", {"domain": "https://company.okta.com"}, "`domain` wants `company.okta.com`"),
        ("okta", {"domain": "company.okta.com/"}, "`domain` wants"),
        ("okta", {"domain": "company"}, "`domain` wants"),
        ("okta", {"domain": "company.okta.com@evil.example"}, "`domain` wants"),
        ("okta", {"domain": "company.okta.com", "authorization_server": ""}, "`authorization_server` wants"),
        ("okta", {"domain": "company.okta.com", "authorization_server": "a/b"}, "`authorization_server` wants"),
        ("auth0", {"domain": "company.eu.auth0.com/"}, "`domain` wants `company.eu.auth0.com`"),
        ("keycloak", {"url": "sso.example.com", "realm": "company"}, "`url` wants `https://sso.example.com`"),
        ("keycloak", {"url": "https://sso.example.com/", "realm": "company"}, "`url` wants"),
        ("keycloak", {"url": "https://sso.example.com?", "realm": "company"}, "`url` wants"),
        ("keycloak", {"url": "https://sso.example.com", "realm": "company/x"}, "`realm` wants the realm's name"),
        ("keycloak", {"url": "https://sso.example.com", "realm": ""}, "`realm` wants"),
        (
            "keycloak",
            {"url": "https://sso.example.com/realms/company", "realm": "company"},
            "`url` is without `/realms/…`, got `https://sso.example.com/realms/company`: give what stands before it",
        ),
        ("generic", {"issuer": ""}, "`issuer` wants"),
    ],
)
def test_part_that_would_make_another_issuer_is_refused(preset: str, options: dict[str, Any], message: str) -> None:
    """A mistake is found when the server is set up, and says what was wanted."""
    with pytest.raises(ConfigurationError) as caught:
        getattr(TrustedIssuer, preset)(**options)

    assert str(caught.value).startswith(message)


# What each issuer answers below its own URL, and what it does not know.
@pytest.mark.parametrize(
    ("golden", "path", "asked"),
    [
        (
            "entra-v1-user",
            f"/{TENANT}/",
            [f"{OAUTH}/{TENANT}", f"/{TENANT}{OPENID}"],
        ),
        (
            "entra-v2-user",
            f"/{TENANT}/v2.0",
            [f"{OAUTH}/{TENANT}/v2.0", f"/{TENANT}/v2.0{OPENID}"],
        ),
        ("okta-user", "/oauth2/default", [f"{OAUTH}/oauth2/default", f"/oauth2/default{OPENID}"]),
        ("auth0-user", "/", [OAUTH]),
        ("keycloak-user", "/realms/company", [f"{OAUTH}/realms/company", f"/realms/company{OPENID}"]),
        ("generic-user", "", [OAUTH]),
    ],
)
async def test_keys_are_found_through_the_metadata(golden: str, path: str, asked: list[str]) -> None:
    """The last URL that is asked for is the one at which the issuer has its metadata."""
    real = GOLDENS[golden]
    with KeyServer() as server:
        issuer = f"{server.url}{path}"
        server.replies[asked[-1]] = Reply.of({"issuer": issuer, "jwks_uri": f"{server.url}/keys"})
        # A key for another use, as Keycloak shows one, is no obstacle.
        encryption = {**public_jwk(KEY), "kid": "enc-1", "use": "enc", "alg": "RSA-OAEP"}
        server.replies["/keys"] = Reply.of({"keys": [encryption, public_jwk(KEY)]})
        trusted = dataclasses.replace(real.trusted, issuer=issuer)
        verifier = InvocationVerifier(trusted, audience=real.audience, clock=lambda: float(NOW))

        invocation = await verifier.verify(real.token(iss=issuer))

    assert invocation.agent == real.earns["agent"]
    assert server.asked == [*asked, "/keys"]


@pytest.mark.parametrize("other", ["", "/oauth2/other", "/oauth2/default/"])
async def test_metadata_of_another_server_of_the_organisation_does_not_lead_to_keys(other: str) -> None:
    """Okta has many issuers on one host; each has its own keys, and a slash makes another issuer."""
    real = GOLDENS["okta-user"]
    with KeyServer() as server:
        issuer = f"{server.url}/oauth2/default"
        metadata = Reply.of({"issuer": f"{server.url}{other}", "jwks_uri": f"{server.url}/keys"})
        server.replies |= {f"{OAUTH}/oauth2/default": metadata, f"/oauth2/default{OPENID}": metadata}
        server.replies["/keys"] = Reply.of({"keys": [public_jwk(KEY)]})
        trusted = dataclasses.replace(real.trusted, issuer=issuer)
        verifier = InvocationVerifier(trusted, audience=real.audience, clock=lambda: float(NOW))

        with pytest.raises(Refusal) as caught:
            await verifier.verify(real.token(iss=issuer))

    assert "keys cannot be fetched" in caught.value.detail
    assert "/keys" not in server.asked
