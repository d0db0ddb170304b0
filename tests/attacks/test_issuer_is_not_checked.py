"""The trap: with `issuer=None` pyjwt skips the issuer, and any `iss` passes under a key that verifies."""

from __future__ import annotations

import pytest

from agentguard.model import Reason
from tests.tokens import ABSENT, ISSUER, make_token, refusal_of


@pytest.mark.parametrize(
    "issuer",
    [ABSENT, None, "", [ISSUER], "https://other.example", f"{ISSUER}/", ISSUER.upper(), f"{ISSUER} "],
)
def test_token_that_does_not_name_the_trusted_issuer_exactly_is_refused(issuer: object) -> None:
    """The right key under another name is another issuer's token."""
    assert refusal_of(make_token(iss=issuer)) is Reason.INVALID_TOKEN
