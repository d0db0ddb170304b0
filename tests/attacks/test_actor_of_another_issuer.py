"""A subject token that says who may act, and an actor of that name from another trusted issuer.

Two issuers' bots of one name are two bots.
"""

import pytest

from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.asked import ACCESS_TOKEN
from tests.lifecycle.service import CORP, Service, make_subject
from tests.tokens import ISSUER, KEY, Clock, make_jwks

OTHER = "https://other.example"


@pytest.mark.parametrize(
    ("issuer", "may_act", "status"),
    [
        (CORP, {"sub": "bot-7"}, 200),
        (OTHER, {"sub": "bot-7"}, 400),
        (OTHER, {"sub": "bot-7", "iss": OTHER}, 200),
        (CORP, {"sub": "bot-7", "iss": OTHER}, 400),
        (OTHER, {"client_id": "planner"}, 400),
    ],
)
async def test_name_is_one_of_the_issuer_that_says_it(issuer: str, may_act: dict[str, str], status: int) -> None:
    """Unless it says of which other issuer (RFC 8693 section 4.4)."""
    keys = {name: FixedKeys(make_jwks(KEY)) for name in (CORP, OTHER)}
    both = (TrustedIssuer(issuer=name, alias=name[8:], mints_runs=False) for name in keys)
    service = Service(trusted=InvocationVerifier(*both, audience=ISSUER, keys=keys, clock=Clock()))
    actor = make_subject(iss=issuer, sub="bot-7", client_id="planner", act={"sub": "bot-7"})

    response = await service.exchange(
        subject_token=make_subject(may_act=may_act), actor_token=actor, actor_token_type=ACCESS_TOKEN
    )

    assert response.status_code == status, response.text
