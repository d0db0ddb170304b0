"""Presets against the tokens that those issuers really emit."""

from __future__ import annotations

from typing import Any

import pytest

from agentguard import Invocation, Refusal
from tests.identity.goldens import GOLDENS, Golden

each_golden = pytest.mark.parametrize("golden", GOLDENS.values(), ids=GOLDENS)


def facts(invocation: Invocation, names: set[str]) -> dict[str, Any]:
    """Return what a golden says of an invocation, in its form."""
    told: dict[str, Any] = {name: getattr(invocation, name) for name in names}
    told["scopes"] = sorted(invocation.scopes)
    if "claims" in names:
        told["claims"] = {
            name: sorted(value) if isinstance(value, frozenset) else value for name, value in invocation.claims.items()
        }
    return told


@each_golden
async def test_token_of_a_preset_earns_what_its_golden_says(golden: Golden) -> None:
    """Agent, user, run, grade, scopes, mapped claims and lifetime."""
    invocation = await golden.verified(golden.token())

    assert facts(invocation, set(golden.earns)) == golden.earns
    assert invocation.issuer == golden.claims["iss"]
    assert invocation.grant is None
    assert invocation.ancestors == ()


def test_every_preset_has_a_golden_for_a_user_and_one_for_nobody() -> None:
    """No preset is believed to work without having read both kinds."""
    kinds = {(name.split("-")[0], golden.earns["user"] is None) for name, golden in GOLDENS.items()}

    assert kinds == {
        (preset, nobody) for preset in ("entra", "okta", "auth0", "keycloak", "generic") for nobody in (True, False)
    }


async def test_keycloak_without_the_account_s_name_is_refused_by_the_names_of_claims() -> None:
    """Whoever reads the log knows which client scope is missing."""
    golden = GOLDENS["keycloak-user"]

    with pytest.raises(Refusal) as refused:
        await golden.verified(golden.token(preferred_username=None))

    assert refused.value.detail == (
        "the claims do not tell whether the token acts for a user: `client_id`, `preferred_username`; "
        "absent: `client_id`, `preferred_username`"
    )


async def test_user_of_okta_whose_login_is_a_client_s_id_is_still_a_user() -> None:
    """A login is chosen, `uid` is not."""
    golden = GOLDENS["okta-user"]

    invocation = await golden.verified(golden.token(sub=golden.claims["cid"]))

    assert invocation.user == golden.claims["uid"]
