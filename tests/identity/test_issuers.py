from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.identity.issuers import TrustedIssuer, UnsafeSharedIdentity
from tests.tokens import ISSUER


def test_types_are_compared_in_lower_case() -> None:
    """Media types have no case."""
    assert TrustedIssuer(issuer=ISSUER, types=frozenset({"JWT"})).types == {"jwt"}


def test_claims_cannot_be_changed_afterwards() -> None:
    """What was checked is what stays."""
    given: dict[str, type] = {"ward": str}
    trusted = TrustedIssuer(issuer=ISSUER, claims=given)

    given["agent"] = str

    assert trusted.claims == {"ward": str}
    assert hash(trusted) == hash(TrustedIssuer(issuer=ISSUER, claims={"ward": str}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"issuer": ""}, "`issuer` wants"),
        ({"alias": ""}, "`alias` wants"),
        ({"alias": "a|b"}, "`alias` wants"),
        ({"algorithms": frozenset()}, "`algorithms` wants"),
        ({"algorithms": {"HS256"}}, "`algorithms` wants"),
        ({"algorithms": {"ES256", "none"}}, "`algorithms` wants"),
        ({"types": frozenset()}, "`types` wants types of access tokens, got none"),
        ({"types": {"at+jwt", "DPoP+JWT"}}, "`types` wants"),
        ({"types": {"logout+jwt"}}, "`types` wants"),
        ({"types": {"txntoken+jwt"}}, "`types` wants"),
        ({"types": {"oauth-id-jag+jwt"}}, "`types` wants"),
        ({"max_lifetime": 0}, "`max_lifetime` wants"),
        ({"max_lifetime": True}, "`max_lifetime` wants"),
        ({"leeway": 31}, "`leeway` wants"),
        ({"leeway": -1}, "`leeway` wants"),
        ({"leeway": 1.5}, "`leeway` wants"),
        ({"run_claim": "mission.id"}, "`run_claim` wants"),
        ({"mints_runs": False, "run_claim": "mission."}, "`run_claim` wants"),
        ({"issuer": None}, "`issuer` wants a string, got `None`"),
        ({"alias": 1}, "`alias` wants a string, got `1`"),
        ({"run_claim": ["id"], "mints_runs": False}, "`run_claim` wants a string, got `['id']`"),
        ({"types": "jwt"}, "`types` wants a set of strings, got `'jwt'`: put braces around them"),
        ({"types": ["jwt", None]}, "`types` wants a set of strings, got"),
        ({"algorithms": "ES256"}, "`algorithms` wants a set of strings, got `'ES256'`"),
        ({"mints_runs": "false"}, "`mints_runs` wants True or False, got `'false'`"),
        ({"mints_runs": 0}, "`mints_runs` wants True or False, got `0`"),
        ({"several_audiences": "no"}, "`several_audiences` wants True or False, got `'no'`"),
        ({"claims": ["ward"]}, "`claims` wants types by the names of claims"),
        ({"claims": {1: str}}, "`claims` wants types by the names of claims"),
        ({"claims": {"agent": str}}, "`claims` wants names"),
        ({"claims": {"__extn": str}}, "`claims` wants names"),
        ({"claims": {"ward": float}}, "`claims` wants str"),
    ],
)
def test_configuration_that_would_weaken_the_rest_is_refused(options: dict[str, Any], message: str) -> None:
    """A mistake is found when the server is set up, and says what to change."""
    with pytest.raises(ConfigurationError) as caught:
        TrustedIssuer(**{"issuer": ISSUER, **options})

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_shared_identity_is_named_unsafe_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    """The weaker choice cannot be made without a trace."""
    with caplog.at_level(logging.WARNING, logger="agentguard"):
        trusted = UnsafeSharedIdentity(issuer=ISSUER, claims={"ward": str})

    assert trusted.shared
    assert not trusted.mints_runs
    assert ISSUER in caplog.text


def test_shared_identity_has_no_other_way_in() -> None:
    """Neither the constructor nor a copy can set it."""
    with pytest.raises(TypeError):
        TrustedIssuer(issuer=ISSUER, shared=True)  # type: ignore[call-arg]

    assert not dataclasses.replace(UnsafeSharedIdentity(issuer=ISSUER)).shared
