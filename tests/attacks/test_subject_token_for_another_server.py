"""A user's token that was made for another server, which exchanges it for a run.

Any server that a user's token reaches could act for that user everywhere, if a token for
anybody were good enough here.
"""

from typing import Any

import pytest

from agentguard.lifecycle.asked import ACCESS_TOKEN
from tests.lifecycle.service import CORP, Service, make_subject, refusal
from tests.tokens import ABSENT, AUDIENCE, ISSUER, NOW


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": AUDIENCE},
        {"aud": f"{ISSUER}/"},
        {"aud": f"{ISSUER}/token"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": ABSENT},
        {"iss": "https://other.example"},
        {"iss": f"{CORP}/"},
        {"exp": NOW - 31, "iat": NOW - 300},
        {"iat": NOW + 60},
        {"cnf": {"jkt": "x"}},
        {"run": "run-1", "ancestors": []},
    ],
)
@pytest.mark.parametrize("what", ["subject_token", "actor_token"])
async def test_token_that_is_not_for_this_issuer_begins_nothing(what: str, changes: dict[str, Any]) -> None:
    """As the subject, and as the actor."""
    service = Service()
    wrong = make_subject(client_id="planner", **changes)

    response = await service.exchange(**{what: wrong, f"{what}_type": ACCESS_TOKEN})

    assert refusal(response) == (400, "invalid_request")
    assert wrong not in response.text
    assert service.records() == ()


async def test_actor_token_of_somebody_else_is_refused() -> None:
    """Else a client could act under the name of any agent whose token it saw."""
    service = Service()

    for theirs in (make_subject(sub="portal"), make_subject(sub="reader", client_id="reader"), make_subject()):
        response = await service.exchange(actor_token=theirs, actor_token_type=ACCESS_TOKEN)
        assert refusal(response) == (400, "invalid_request")
    assert service.records() == ()


async def test_run_token_is_no_actor_token() -> None:
    """Who acts is told by an issuer that is trusted to, not by a run that somebody passed on."""
    service = Service()

    response = await service.exchange(actor_token=await service.token(), actor_token_type=ACCESS_TOKEN)

    assert refusal(response) == (400, "invalid_request")


async def test_agent_that_is_named_like_another_client_is_refused() -> None:
    """That client could end what is handed on from here, and the records would name it."""
    service = Service()
    actor = make_subject(sub="planner", client_id="planner", act={"sub": "reader"})

    response = await service.exchange(actor_token=actor, actor_token_type=ACCESS_TOKEN)

    assert refusal(response) == (400, "invalid_request")
    assert service.records() == ()
