"""A run's token in the hands of a server or another client, which renews it.

A token lasts five minutes so that a stolen one is soon worth nothing. If whoever has it
could renew it, it would last as long as the run. And a token of a run above must yield
nothing for a run below, or the other way round.
"""

from agentguard.lifecycle.asked import ACCESS_TOKEN
from tests.lifecycle.service import Service, make_subject, refusal
from tests.tokens import ABSENT


async def test_token_is_renewed_for_the_client_that_holds_it_alone() -> None:
    """Others may be handed a part of the run, and say so."""
    service = Service()
    token = await service.token()

    response = await service.exchange(client="reader", subject_token=token, authorization_details=ABSENT)

    assert refusal(response) == (400, "invalid_request")
    assert token not in response.text
    assert (await service.exchange(subject_token=token, authorization_details=ABSENT)).status_code == 200


async def test_server_that_was_sent_a_token_gets_none_for_it() -> None:
    """It may ask whether the token is good, and no more."""
    service = Service()
    token = await service.token()

    for details in (ABSENT, [{"type": "agentguard_grant", "tools": ["read"]}]):
        response = await service.exchange(client="records", subject_token=token, authorization_details=details)
        assert refusal(response) == (400, "unauthorized_client")


async def test_token_of_an_ancestor_yields_nothing_of_the_run_below() -> None:
    """What comes out is of the run that the token names."""
    service = Service()
    parent = await service.token()
    child = await service.token(client="reader", subject_token=parent)

    renewed = await service.token(subject_token=parent, authorization_details=ABSENT)
    below = await service.exchange(subject_token=child, authorization_details=ABSENT)

    assert service.read(renewed).run_id == service.read(parent).run_id
    assert service.read(renewed).ancestors == ()
    assert refusal(below) == (400, "invalid_request")


async def test_actor_token_does_not_make_another_client_the_holder() -> None:
    """Nor does it rename whose run it is."""
    service = Service()
    token = await service.token()

    for client, agent in (("planner", "planner"), ("planner", "bot-7"), ("reader", "planner"), ("reader", "bot-7")):
        actor = make_subject(sub=client, client_id=client, act={"sub": agent})
        response = await service.exchange(
            client=client,
            subject_token=token,
            authorization_details=ABSENT,
            actor_token=actor,
            actor_token_type=ACCESS_TOKEN,
        )
        assert refusal(response) == (400, "invalid_request")


async def test_token_whose_time_is_over_is_not_renewed() -> None:
    """The run may live on; whoever holds it renews in time."""
    service = Service()
    token = await service.token(ends_in=1000)
    service.clock.now += 331

    assert refusal(await service.exchange(subject_token=token, authorization_details=ABSENT)) == (
        400,
        "invalid_request",
    )


async def test_run_whose_parent_was_ended_yields_nothing() -> None:
    """Neither a token of its own nor a child."""
    service = Service()
    parent = await service.token()
    child = await service.token(client="reader", subject_token=parent)
    assert (await service.post("/revoke", token=parent)).status_code == 200

    for details in (ABSENT, [{"type": "agentguard_grant", "tools": ["read"]}]):
        response = await service.exchange(client="reader", subject_token=child, authorization_details=details)
        assert refusal(response) == (400, "invalid_request")
    assert not any(record.state.live for record in service.records())


async def test_expired_run_does_not_come_back_with_the_clock() -> None:
    """An end that was told stays told."""
    service = Service()
    token = await service.token()
    assert (await service.post("/revoke", token=token)).status_code == 200
    service.clock.now -= 100

    response = await service.exchange(subject_token=token, authorization_details=ABSENT)
    assert refusal(response) == (400, "invalid_request")
