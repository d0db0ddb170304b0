"""An application's own token, exchanged by another client.

It names no user. The other client would begin a run for nobody, by an authority that is not
its own and that no record names: ending the application's runs would not reach it.
"""

import pytest

from agentguard.lifecycle.asked import ACCESS_TOKEN
from tests.lifecycle.service import Service, make_subject, refusal


@pytest.mark.parametrize(
    "claims", [{"sub": "portal"}, {"sub": "portal", "act": {"sub": "bot-7"}}, {"sub": "bot-7", "act": {"sub": "bot-7"}}]
)
async def test_token_of_another_application_begins_no_run(claims: dict[str, object]) -> None:
    """Neither in the client's name, nor in that of an agent of its own."""
    service = Service()
    actor = make_subject(sub="planner", client_id="planner", act={"sub": "bot-7"})

    for acting in ({}, {"actor_token": actor, "actor_token_type": ACCESS_TOKEN}):
        response = await service.exchange(subject_token=make_subject(**claims), **acting)

        assert refusal(response) == (400, "invalid_request")
        assert "names no user" in response.json()["error_description"]
    assert service.records() == ()
