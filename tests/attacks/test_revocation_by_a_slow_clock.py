"""A run's end that an issuer would not hear of, because its own clock is behind.

Two of them stand behind one address. The token that one has just signed is not valid yet to
the other, which took it for somebody else's and answered that nothing was left to end.
"""

from tests.lifecycle.service import Service


async def test_issuer_whose_clock_is_behind_ends_a_run_all_the_same() -> None:
    """By a token that begins only after the leeway."""
    service = Service()
    token = await service.token()
    service.clock.now -= 300

    assert (await service.post("/revoke", token=token)).status_code == 200

    service.clock.now += 300
    assert (await service.post("/introspect", token=token)).json() == {"active": False}


async def test_issuer_whose_clock_is_behind_hands_nothing_on() -> None:
    """For everything else such a token is not valid yet."""
    service = Service()
    token = await service.token()
    service.clock.now -= 300

    assert (await service.exchange(client="reader", subject_token=token)).status_code == 400
    assert (await service.post("/introspect", token=token)).json() == {"active": False}
