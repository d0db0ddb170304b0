"""A client that authenticates with a secret, as other issuers let it.

A secret that both sides know leaks on either. It is not asked for, so it must not be
taken: neither in the form nor in a header, nor beside an assertion.
"""

import pytest

from agentguard.identity.assertion import ASSERTION_TYPE
from tests.lifecycle.service import Service, make_assertion, refusal
from tests.tokens import ABSENT


@pytest.mark.parametrize("secret", ["s3cret", "x"])
async def test_secret_in_the_form_is_refused(secret: str) -> None:
    """Alone, and beside an assertion that is good."""
    service = Service()

    alone = await service.exchange(client=None, client_id="planner", client_secret=secret)
    beside = await service.exchange(client_secret=secret)

    assert refusal(alone) == refusal(beside) == (401, "invalid_client")
    assert service.records() == ()


@pytest.mark.parametrize("scheme", ["Basic", "Bearer", "Negotiate"])
async def test_header_is_refused_with_its_own_scheme(scheme: str) -> None:
    """RFC 6749 section 5.2 wants the scheme back; whatever else it holds stays out of the answer."""
    service = Service()
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": make_assertion(), "token": "x"}

    response = await service.send(
        "POST", "/introspect", data=form, headers={"Authorization": f"{scheme} cGxhbm5lcjpzM2NyZXQ="}
    )

    assert refusal(response) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == scheme
    assert "cGxh" not in response.text


@pytest.mark.parametrize("header", ['a"b x', "a,b x", "a" * 21])
async def test_header_that_is_no_scheme_does_not_come_back(header: str) -> None:
    """Nothing that a client sends is taken into a header unread."""
    response = await Service().send("POST", "/token", data={"a": "b"}, headers={"Authorization": header})

    assert refusal(response) == (401, "invalid_client")
    assert "www-authenticate" not in response.headers


async def test_name_without_a_proof_is_refused() -> None:
    """A public client is nobody."""
    response = await Service().exchange(client=None, client_id="planner", client_assertion=ABSENT)

    assert refusal(response) == (401, "invalid_client")
