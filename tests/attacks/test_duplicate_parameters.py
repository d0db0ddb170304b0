"""A request in which a parameter comes twice.

Of two values one reader takes the first and the next the last: what a proxy checked is
then not what is done.
"""

from urllib.parse import urlencode

import pytest

from agentguard.identity.assertion import ASSERTION_TYPE
from agentguard.lifecycle.asked import ACCESS_TOKEN, EXCHANGE
from tests.lifecycle.service import READS, Service, make_assertion, make_subject, refusal
from tests.tokens import AUDIENCE

FORM = {"content-type": "application/x-www-form-urlencoded"}


def pairs() -> list[tuple[str, str]]:
    """Return a request that is fine."""
    return [
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", make_assertion()),
        ("grant_type", EXCHANGE),
        ("subject_token", make_subject()),
        ("subject_token_type", ACCESS_TOKEN),
        ("authorization_details", str([READS]).replace("'", '"')),
        ("scope", "read"),
        ("ends_in", "60"),
        ("audience", AUDIENCE),
    ]


@pytest.mark.parametrize("name", [name for name, _ in pairs() if name != "audience"])
@pytest.mark.parametrize("again", ["same", "other", ""])
async def test_parameter_that_comes_twice_is_refused(name: str, again: str) -> None:
    """With the same value, another, or none."""
    service, given = Service(), pairs()
    value = dict(given)[name] if again == "same" else again

    response = await service.send("POST", "/token", content=urlencode([*given, (name, value)]), headers=FORM)

    assert refusal(response) == (400, "invalid_request")
    assert service.records() == ()


async def test_name_that_is_written_in_another_way_is_the_same_name() -> None:
    """Percent-encoding hides nothing."""
    content = urlencode(pairs()) + "&%73cope=write"

    response = await Service().send("POST", "/token", content=content, headers=FORM)

    assert refusal(response) == (400, "invalid_request")


async def test_servers_may_come_again_but_not_differ() -> None:
    """RFC 8693 lets them; a run is for one."""
    service = Service()
    same = urlencode([*pairs(), ("audience", AUDIENCE), ("resource", AUDIENCE)])
    other = urlencode([*pairs(), ("audience", "https://other.example/mcp")])

    assert (await service.send("POST", "/token", content=same, headers=FORM)).status_code == 200
    assert refusal(await service.send("POST", "/token", content=other, headers=FORM)) == (400, "invalid_target")


async def test_details_in_which_a_member_comes_twice_are_refused() -> None:
    """JSON hides them as well."""
    details = '[{"type": "agentguard_grant", "tools": ["read"], "tools": ["delete"]}]'

    response = await Service().exchange(authorization_details=details)

    assert refusal(response) == (400, "invalid_authorization_details")
