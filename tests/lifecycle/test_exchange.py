from __future__ import annotations

from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.identity.form import unverified
from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.asked import ACCESS_TOKEN
from agentguard.lifecycle.store import Kind, RunState
from agentguard.limits import Limits
from tests.lifecycle.service import CORP, READS, Service, make_client, make_subject, make_trusted, refusal
from tests.tokens import ABSENT, AUDIENCE, ISSUER, NOW, make_jwks


@pytest.fixture
def service() -> Service:
    """Return an issuer's application."""
    return Service()


async def test_token_of_a_trusted_issuer_begins_a_run_on_behalf_of_its_user(service: Service) -> None:
    """The run is on record, and the answer says what it is."""
    response = await service.exchange(task="t1", purpose="close", scope="read", ends_in=600)

    answer = response.json()
    invocation = service.read(answer["access_token"])
    assert (invocation.agent, invocation.user, invocation.task, invocation.purpose) == (
        "planner",
        "alice",
        "t1",
        "close",
    )
    assert invocation.scopes == {"read"}
    assert (invocation.run_ends_at, invocation.client_id) == (NOW + 600, "planner")
    (record,) = service.records()
    assert (record.run_id, record.state, record.user) == (answer["run"], RunState.ISSUED, "alice")
    assert answer == {
        "access_token": answer["access_token"],
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "read",
        "authorization_details": [{"type": "agentguard_grant", "cedar": invocation.grant}],
        "run": invocation.run_id,
        "run_exp": NOW + 600,
    }


async def test_run_says_who_acts_for_whom(service: Service) -> None:
    """`act` names the agent, `sub` the user (RFC 8693 section 4.1)."""
    claims = unverified(await service.token(), Limits())[1]

    assert (claims["sub"], claims["client_id"], claims["act"]) == ("alice", "planner", {"sub": "planner"})


async def test_token_of_nobody_begins_a_run_of_nobody(service: Service) -> None:
    """A workload's own token names no user."""
    token = await service.token(subject_token=make_subject(sub="planner", client_id="planner"))

    assert service.read(token).user is None
    assert "act" not in unverified(token, Limits())[1]


async def test_usual_run_has_no_scopes_and_ends_after_five_minutes_at_most(service: Service) -> None:
    """What is not asked for is not given."""
    long, short = await service.token(), await Service(clients=(make_client("planner", longest=60),)).token()

    assert (service.read(long).scopes, service.read(long).run_ends_at) == (frozenset(), NOW + 300)
    assert service.read(short).run_ends_at == NOW + 60


async def test_actor_token_names_the_agent_and_the_client_holds_the_token(service: Service) -> None:
    """The actor is one of the client's own."""
    actor = make_subject(sub="planner", client_id="planner", act={"sub": "bot-7"})

    token = await service.token(actor_token=actor, actor_token_type=ACCESS_TOKEN)

    claims = unverified(token, Limits())[1]
    assert service.read(token).agent == "bot-7"
    assert (claims["client_id"], claims["act"]) == ("planner", {"sub": "bot-7"})


async def test_agent_of_another_name_acts_for_nobody_in_tokens_of_its_client(service: Service) -> None:
    """`act` names it, since `client_id` does not."""
    actor = make_subject(sub="planner", client_id="planner", act={"sub": "bot-7"})

    token = await service.token(
        subject_token=make_subject(sub="planner", client_id="planner"),
        actor_token=actor,
        actor_token_type=ACCESS_TOKEN,
    )

    assert (service.read(token).agent, service.read(token).user) == ("bot-7", None)


async def test_task_and_purpose_of_the_subject_token_stay(service: Service) -> None:
    """Where it has them, the client has no say."""
    subject = make_subject(task="t1", purp="close")

    token = await service.token(subject_token=subject)

    assert (service.read(token).task, service.read(token).purpose) == ("t1", "close")
    assert refusal(await service.exchange(subject_token=subject, task="t2")) == (400, "invalid_request")
    assert refusal(await service.exchange(subject_token=subject, purpose="other")) == (400, "invalid_request")
    assert service.read(await service.token(subject_token=subject, task="t1")).task == "t1"


async def test_mapped_claims_come_along_and_survive_renewal_and_delegation() -> None:
    """With their types, in the run's own tokens and in its children's ancestors."""
    claims: dict[str, type] = {"groups": frozenset, "level": int, "vip": bool, "ward": str}
    values: dict[str, Any] = {"groups": ["x", "y"], "level": 3, "vip": True, "ward": "west"}
    service = Service(trusted=make_trusted(claims=claims))
    wanted = {**values, "groups": {"x", "y"}}

    first = await service.token(subject_token=make_subject(**values))
    second = await service.token(subject_token=first, authorization_details=ABSENT)
    child = await service.token(subject_token=second, client="reader")
    grandchild = await service.token(subject_token=child, client="planner")

    assert service.read(first, claims=claims).claims == wanted
    assert service.read(second, claims=claims).claims == wanted
    for token in (child, grandchild):
        # The child's own claims would be what nobody said of it.
        assert service.read(token, claims=claims).claims == {}
        assert service.read(token, claims=claims).ancestors[0].claims == wanted


async def test_token_with_a_grant_beside_it_is_handed_on(service: Service) -> None:
    """The child is another client's, of the same user and task, and ends with its parent."""
    parent = await service.token(task="t1", scope="read write")
    child = await service.token(subject_token=parent, client="reader", scope="read", ends_in=120)

    link, root = service.read(child), service.read(parent)
    assert (link.agent, link.user, link.task) == ("reader", "alice", "t1")
    assert link.scopes == {"read"}
    assert [above.run_id for above in link.ancestors] == [root.run_id]
    assert (link.run_ends_at, link.client_id) == (NOW + 120, "reader")
    assert unverified(child, Limits())[1]["act"] == {"sub": "reader", "act": {"sub": "planner"}}
    assert len(service.records()) == 2


async def test_child_that_asks_for_no_end_has_its_parents_or_the_longest_that_its_client_may() -> None:
    """Whichever comes first."""
    service = Service(clients=(make_client("planner"), make_client("reader", longest=200)))
    long, short = await service.token(ends_in=3000), await service.token(ends_in=100)

    assert service.read(await service.token(subject_token=long, client="reader")).run_ends_at == NOW + 200
    assert service.read(await service.token(subject_token=short, client="reader")).run_ends_at == NOW + 100


async def test_actor_takes_a_run_over_by_delegation(service: Service) -> None:
    """Under its own name, in tokens of the client that it belongs to."""
    actor = make_subject(sub="reader", client_id="reader", act={"sub": "bot-7"})
    parent = await service.token()

    child = await service.token(subject_token=parent, client="reader", actor_token=actor, actor_token_type=ACCESS_TOKEN)

    assert (service.read(child).agent, service.read(child).client_id) == ("bot-7", "reader")
    renewed = await service.token(subject_token=child, client="reader", authorization_details=ABSENT)
    assert service.read(renewed).agent == "bot-7"


async def test_deepest_chain_is_accepted_and_the_next_is_refused(service: Service) -> None:
    """Four ancestors make an `act` of five, which a server accepts."""
    token = await service.token()
    for place in range(4):
        token = await service.token(subject_token=token, client=("reader", "planner")[place % 2])

    act, depth = unverified(token, Limits())[1], 0
    while "act" in act:
        act, depth = act["act"], depth + 1  # type: ignore[assignment]
    assert (depth, service.read(token).delegation_depth) == (5, 4)
    response = await service.exchange(subject_token=token, client="reader")
    assert refusal(response) == (400, "invalid_request")
    assert "`ancestors` wants a list of at most 4" in response.json()["error_description"]


async def test_renewal_is_the_same_run_for_longer_but_never_past_its_end(service: Service) -> None:
    """Another token, with the same facts."""
    first = await service.token(ends_in=500, scope="read", task="t1")
    service.clock.now += 250
    response = await service.exchange(
        subject_token=first, authorization_details=ABSENT, scope="read", task="t1", audience=AUDIENCE
    )

    second = response.json()["access_token"]
    one, other = unverified(first, Limits())[1], unverified(second, Limits())[1]
    changing = {"iat", "exp", "jti"}
    assert {n: v for n, v in one.items() if n not in changing} == {n: v for n, v in other.items() if n not in changing}
    assert (other["exp"], response.json()["expires_in"]) == (NOW + 500, 250)
    assert len(service.records()) == 1


async def test_run_that_is_over_yields_nothing(service: Service) -> None:
    """Neither its next token nor a child, whoever ended it."""
    ended, late, revoked = await service.token(), await service.token(), await service.token(task="t9")
    service.issuer.resume(ended).end()
    service.store.revoke_all(issuer=ISSUER, kind=Kind.TASK, name="t9")

    for token in (ended, revoked):
        for details in (ABSENT, [READS]):
            response = await service.exchange(subject_token=token, authorization_details=details)
            assert refusal(response) == (400, "invalid_request")
            assert "the run is over" in response.json()["error_description"]
    service.clock.now += 300
    for details in (ABSENT, [READS]):
        response = await service.exchange(subject_token=late, authorization_details=details)
        assert refusal(response) == (400, "invalid_request")
    assert len(service.records()) == 3


async def test_user_whose_runs_were_ended_gets_none(service: Service) -> None:
    """Nothing of it is on record."""
    service.store.revoke_all(issuer=ISSUER, kind=Kind.USER, name="alice")

    assert refusal(await service.exchange()) == (400, "invalid_request")
    assert service.records() == ()


async def test_cedar_is_a_grant_as_well(service: Service) -> None:
    """As are tools with values of their arguments."""
    cedar = 'permit (principal, action == Action::"read", resource);'
    values = {"type": "agentguard_grant", "tools": ["read"], "arguments": {"read": {"id": ["r1"], "deep": [True]}}}

    plain = await service.token(authorization_details=[{"type": "agentguard_grant", "cedar": cedar}])
    listed = await service.token(authorization_details=[values])

    assert service.read(plain).grant == cedar
    grant = service.read(listed).grant
    assert grant is not None
    assert '"r1"' in grant


@pytest.mark.parametrize(
    "details",
    [
        [],
        {},
        "not json",
        f'[{{"type": "agentguard_grant", "tools": ["{"t" * 8192}"]}}]',
        '[{"type": "agentguard_grant", "tools": ["read"], "tools": ["write"]}]',
        [READS, READS],
        ["agentguard_grant"],
        [{"type": "payment"}],
        [{"type": "agentguard_grant"}],
        [{"type": "agentguard_grant", "cedar": 7}],
        [{"type": "agentguard_grant", "cedar": ""}],
        [{"type": "agentguard_grant", "cedar": "permit (principal, action, resource);", "tools": ["read"]}],
        [{"type": "agentguard_grant", "tools": []}],
        [{"type": "agentguard_grant", "tools": "read"}],
        [{"type": "agentguard_grant", "tools": [7]}],
        [{"type": "agentguard_grant", "tools": ["read"], "actions": ["read"]}],
        [{"type": "agentguard_grant", "tools": ["read"], "arguments": []}],
        [{"type": "agentguard_grant", "tools": ["read"], "arguments": {"read": ["r1"]}}],
        [{"type": "agentguard_grant", "tools": ["read"], "arguments": {"read": {"id": "r1"}}}],
        [{"type": "agentguard_grant", "tools": ["read"], "arguments": {"read": {"id": []}}}],
        [{"type": "agentguard_grant", "tools": ["read"], "arguments": {"write": {"id": ["r1"]}}}],
    ],
)
async def test_what_is_no_grant_is_refused_before_anything_begins(service: Service, details: Any) -> None:
    """With the code of RFC 9396 section 5."""
    response = await service.exchange(authorization_details=details)

    assert refusal(response) == (400, "invalid_authorization_details")
    assert service.records() == ()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": ABSENT}, "invalid_request"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"subject_token": ABSENT}, "invalid_request"),
        ({"subject_token": ABSENT, "subject_token_type": ABSENT}, "invalid_request"),
        ({"subject_token": "nonsense"}, "invalid_request"),
        ({"subject_token": "x" * (16 * 1024 + 1)}, "invalid_request"),
        ({"subject_token_type": ABSENT}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": make_subject()}, "invalid_request"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"actor_token": "nonsense", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"authorization_details": ABSENT}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "read  write"}, "invalid_scope"),
        ({"task": "t" * 257}, "invalid_request"),
        ({"purpose": "p" * 257}, "invalid_request"),
        ({"ends_in": "0"}, "invalid_request"),
        ({"ends_in": "-5"}, "invalid_request"),
        ({"ends_in": "1e3"}, "invalid_request"),
        ({"ends_in": "3601"}, "invalid_request"),
        ({"audience": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": "https://other.example/mcp", "audience": AUDIENCE}, "invalid_target"),
    ],
)
async def test_request_that_asks_for_what_is_not_to_be_had_is_refused(
    service: Service, changes: dict[str, Any], error: str
) -> None:
    """In the words of the RFCs, and nothing is left of it."""
    assert refusal(await service.exchange(**changes)) == (400, error)
    assert service.records() == ()


async def test_scopes_of_the_subject_token_bind_where_it_has_any(service: Service) -> None:
    """An empty claim says that there are none; a token without the claim leaves it to the registration."""
    assert service.read(await service.token(scope="read", subject_token=make_subject(scope="read openid"))).scopes
    for scope in ("openid", ""):
        response = await service.exchange(scope="read", subject_token=make_subject(scope=scope))
        assert refusal(response) == (400, "invalid_scope")
        assert response.json()["error_description"].endswith("`read`: ask for less")


async def test_client_of_several_servers_says_which(service: Service) -> None:
    """The issuer's usual one goes without saying."""
    others = ["https://a.example", "https://b.example"]
    several = Service(clients=(make_client("planner", audiences=others),))
    usual = Service(clients=(make_client("planner", audiences=[AUDIENCE, *others]),))
    one = Service(clients=(make_client("planner", audiences=others[:1]),))

    assert refusal(await several.exchange()) == (400, "invalid_target")
    assert unverified(await several.token(resource=others[1]), Limits())[1]["aud"] == others[1]
    assert unverified(await usual.token(), Limits())[1]["aud"] == AUDIENCE
    assert unverified(await one.token(), Limits())[1]["aud"] == others[0]


async def test_jwt_is_a_type_that_may_be_asked_for(service: Service) -> None:
    """It is what an access token of ours is."""
    kind = "urn:ietf:params:oauth:token-type:jwt"

    response = await service.exchange(requested_token_type=kind, subject_token_type=kind)

    assert response.json()["issued_token_type"] == kind


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "read"},
        {"ends_in": 100},
        {"task": "t2"},
        {"purpose": "other"},
        {"audience": "https://other.example/mcp"},
    ],
)
async def test_renewal_that_would_change_the_run_is_refused(service: Service, changes: dict[str, Any]) -> None:
    """Its facts are the same in all its tokens."""
    token = await service.token()

    status, error = refusal(await service.exchange(subject_token=token, authorization_details=ABSENT, **changes))

    assert (status, error) == (400, "invalid_target" if "audience" in changes else "invalid_request")


async def test_run_for_a_server_that_a_client_may_not_have_tokens_for_stays_out_of_its_reach() -> None:
    """Whoever handed it the token."""
    other = "https://other.example/mcp"
    service = Service(clients=(make_client("planner"), make_client("reader", audiences=[other])))
    token = await service.token()

    assert refusal(await service.exchange(subject_token=token, client="reader")) == (400, "invalid_target")


async def test_client_that_may_only_introspect_exchanges_nothing(service: Service) -> None:
    """A server gets tokens, and must not act with them."""
    assert refusal(await service.exchange(client="records")) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    ("may_act", "actor", "admitted"),
    [
        ({"sub": "planner"}, None, True),
        ({"client_id": "planner"}, None, True),
        ({"sub": "reader"}, None, False),
        ({"sub": "planner", "iss": "https://other.example"}, None, False),
        ({}, None, False),
        ("planner", None, False),
        ({"sub": "planner"}, "bot-7", True),
        ({"sub": "planner", "iss": CORP}, "bot-7", True),
        ({"sub": "somebody"}, "bot-7", False),
    ],
)
async def test_subject_token_that_says_who_may_act_is_obeyed(
    service: Service, may_act: Any, actor: str | None, admitted: bool
) -> None:
    """Others get nothing for it (RFC 8693 section 4.4)."""
    asked: dict[str, Any] = {"subject_token": make_subject(may_act=may_act)}
    if actor is not None:
        asked["actor_token"] = make_subject(sub="planner", client_id="planner", act={"sub": actor})
        asked["actor_token_type"] = ACCESS_TOKEN

    response = await service.exchange(**asked)

    assert (response.status_code == 200) is admitted


async def test_user_who_is_named_like_the_agent_is_not_lost(service: Service) -> None:
    """A token would read as if nobody stood behind it."""
    actor = make_subject(sub="planner", client_id="planner", act={"sub": "alice"})
    for asked in (
        {"subject_token": make_subject(sub="planner")},
        {"actor_token": actor, "actor_token_type": ACCESS_TOKEN},
        {"subject_token": make_subject(sub="planner"), "actor_token": actor, "actor_token_type": ACCESS_TOKEN},
    ):
        assert refusal(await service.exchange(**asked)) == (400, "invalid_request")
    assert service.records() == ()


async def test_without_trusted_issuers_only_own_runs_are_exchanged(service: Service) -> None:
    """A run that was begun here can be handed on."""
    alone = Service(trusted=None)
    alone.app = alone.issuer.app(clients=alone.clients)
    run = alone.issuer.begin(agent="planner", tools=["read"])

    assert refusal(await alone.exchange()) == (400, "invalid_request")
    child = await alone.token(subject_token=run.token(), client="reader")
    assert alone.read(child).ancestors[0].run_id == run.id


@pytest.mark.parametrize(
    ("trusted", "audience", "message"),
    [
        ({}, AUDIENCE, "`trusted` wants tokens for this issuer"),
        ({"issuer": ISSUER}, ISSUER, "`trusted` wants other issuers"),
        ({"mints_runs": True}, ISSUER, "`trusted` wants issuers whose tokens name no run"),
        ({"claims": {"scope": str}}, ISSUER, "`trusted` maps the claim `scope`"),
    ],
)
def test_verifier_whose_tokens_would_lose_something_is_refused(
    service: Service, trusted: dict[str, Any], audience: str, message: str
) -> None:
    """At start-up, with the fix."""
    one = TrustedIssuer(**{"issuer": CORP, "mints_runs": False, **trusted})
    verifier = InvocationVerifier(one, audience=audience, keys={one.issuer: FixedKeys(make_jwks())})

    with pytest.raises(ConfigurationError, match=message):
        service.issuer.app(clients=service.clients, trusted=verifier)
