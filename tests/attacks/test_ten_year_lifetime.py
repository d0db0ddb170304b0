"""The trap: pyjwt asks only whether a token is over, not how long it lives."""

from __future__ import annotations

import pytest

from agentguard.errors import Refusal
from agentguard.identity.token import TrustedIssuer
from tests.tokens import ISSUER, NOW, make_token, verified

TEN_YEARS = 10 * 365 * 24 * 3600


@pytest.mark.parametrize("lifetime", [TEN_YEARS, 901])
def test_token_that_lives_too_long_is_refused(lifetime: int) -> None:
    """A stolen token must not work for years; the log gives both numbers."""
    with pytest.raises(Refusal) as caught:
        verified(make_token(exp=NOW + lifetime, run_exp=NOW + lifetime))

    assert f"{lifetime} s" in caught.value.detail
    assert "900 s" in caught.value.detail


def test_token_that_lives_as_long_as_the_configuration_says_is_accepted() -> None:
    """The bound is each issuer's own."""
    trusted = TrustedIssuer(issuer=ISSUER, max_lifetime=3600)

    assert verified(make_token(exp=NOW + 3600), trusted=trusted).run_id == "run-1"
