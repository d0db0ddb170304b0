"""A token of an agent that acts for bob, sent along to have it act for alice.

What bob lent the agent would be used for somebody else, and no record would name him.
"""

import pytest

from agentguard.lifecycle.asked import ACCESS_TOKEN
from tests.lifecycle.service import Service, make_subject, refusal

MAY_ACT = {"sub": "bob"}


@pytest.mark.parametrize("subject", [{}, {"may_act": MAY_ACT}, {"sub": "planner", "client_id": "planner"}])
async def test_actor_of_another_user_begins_no_run(subject: dict[str, object]) -> None:
    """Whether the subject token names alice or nobody, and though it says that bob may act."""
    service = Service()
    actor = make_subject(sub="bob", client_id="planner", act={"sub": "bot-7"})

    response = await service.exchange(
        subject_token=make_subject(**subject), actor_token=actor, actor_token_type=ACCESS_TOKEN
    )

    assert refusal(response) == (400, "invalid_request")
    assert "actor_token acts for another user" in response.json()["error_description"]
    assert service.records() == ()


async def test_actor_of_another_user_takes_no_run_over() -> None:
    """An actor of the same user does, and one of nobody."""
    service = Service()
    token = await service.token()

    answers = []
    for user in ("bob", "alice", "planner"):
        actor = make_subject(sub=user, client_id="planner", act={"sub": "bot-7"})
        answers.append(await service.exchange(subject_token=token, actor_token=actor, actor_token_type=ACCESS_TOKEN))

    assert [answer.status_code for answer in answers] == [400, 200, 200]
    assert [run.agent for run in service.records()] == ["planner", "bot-7", "bot-7"]
