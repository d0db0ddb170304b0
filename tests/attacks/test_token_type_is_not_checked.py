"""The trap: pyjwt believes a token of any `typ`, so one made for another purpose passes for an access token."""

from __future__ import annotations

import pytest

from agentguard.identity.token import TrustedIssuer
from agentguard.model import Reason
from tests.tokens import ISSUER, make_claims, refusal_of, sign, verified


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "id+jwt", "dpop+jwt", "logout+jwt", "txntoken+jwt", "oauth-id-jag+jwt", "secevent+jwt"]
)
def test_token_made_for_another_purpose_is_refused(typ: str) -> None:
    """An ID token or a logout token of the same issuer, signed by the same key, is no access token."""
    assert refusal_of(sign(make_claims(), header={"typ": typ})) is Reason.INVALID_TOKEN


def test_plain_jwt_is_accepted_where_the_configuration_says_so() -> None:
    """Some issuers type their access tokens so."""
    trusted = TrustedIssuer(issuer=ISSUER, types=frozenset({"JWT"}))

    assert verified(sign(make_claims(), header={"typ": "JWT"}), trusted=trusted).run_id == "run-1"
