"""A client's assertion that was made for another issuer, which passes it on.

A client signs for whatever issuer it is told of. One that is not ours could use what it
got there to be that client here.
"""

from typing import Any

import pytest

from tests.lifecycle.service import Service, make_assertion, refusal
from tests.tokens import ABSENT, AUDIENCE, ISSUER


@pytest.mark.parametrize(
    "audience",
    [
        "https://other.example",
        "https://other.example/token",
        [ISSUER, "https://other.example"],
        ["https://other.example", f"{ISSUER}/token"],
        f"{ISSUER}/",
        f"{ISSUER}.other.example",
        AUDIENCE,
        "*",
        "",
        [],
        ABSENT,
    ],
)
async def test_assertion_names_us_and_nobody_else(audience: Any) -> None:
    """By the issuer's name or its token endpoint, to the letter."""
    service = Service()

    response = await service.exchange(client_assertion=make_assertion(aud=audience))

    assert refusal(response) == (401, "invalid_client")
    assert service.records() == ()
