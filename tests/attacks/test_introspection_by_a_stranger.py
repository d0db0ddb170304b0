"""A stranger who asks what a token is good for.

The answer says who acts, for whom and in which task, and whether a guess was a token.
"""

import pytest

from tests.lifecycle.service import Service, make_assertion, refusal
from tests.tokens import ABSENT, make_foreign_token


async def test_who_does_not_say_who_it_is_learns_nothing() -> None:
    """Not even that a token is none."""
    service = Service()

    for token in (await service.token(), "nonsense"):
        for path in ("/introspect", "/revoke"):
            response = await service.post(path, client=None, client_id="planner", token=token)
            assert refusal(response) == (401, "invalid_client")
    assert all(record.state.live for record in service.records())


async def test_token_is_no_proof_of_who_asks() -> None:
    """Whoever has it is whom the question is about."""
    service = Service()
    token = await service.token()

    response = await service.send(
        "POST", "/introspect", data={"token": token}, headers={"Authorization": f"Bearer {token}"}
    )

    assert refusal(response) == (401, "invalid_client")


@pytest.mark.parametrize("client", ["reader", "records"])
async def test_answer_to_who_may_not_know_is_that_to_a_guess(client: str) -> None:
    """Byte for byte, with the same headers."""
    service = Service()
    theirs = service.issuer.begin(agent="planner", tools=["read"], audience="https://other.example/mcp").token()

    answers = [
        await service.post("/introspect", client=client, token=token)
        for token in (theirs, "nonsense", make_foreign_token(), theirs[:-4] + "AAAA")
    ]

    assert {answer.content for answer in answers} == {b'{"active":false}'}
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1


async def test_refusals_quote_no_token() -> None:
    """They end up in the logs of whoever asks."""
    service = Service()
    token, assertion = await service.token(), make_assertion()

    answers = [
        await service.exchange(client="reader", subject_token=token, authorization_details=ABSENT),
        await service.exchange(client="reader", subject_token=token, scope="write"),
        await service.exchange(subject_token=token, actor_token=token, actor_token_type="x"),
        await service.post("/revoke", client="reader", token=token),
        await service.exchange(client_assertion=assertion, client_id="x"),
    ]

    for answer in answers:
        assert refusal(answer)[0] in {400, 401}
        for secret in (token, assertion):
            assert not any(part in answer.text for part in secret.split("."))
