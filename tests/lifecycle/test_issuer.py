from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.form import unverified
from agentguard.identity.jwk import read_key_set
from agentguard.identity.token import TrustedIssuer
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.store import MemoryStore
from agentguard.limits import Limits
from agentguard.model import Grade, Invocation, Reason
from tests.tokens import AUDIENCE, GRANT, ISSUER, KEY, NOW, make_ancestor, make_issuer, verified

CLAIMS: dict[str, type] = {"groups": frozenset, "level": int, "vip": bool, "ward": str}


def verified_of(issuer: Issuer, token: str, audience: str = AUDIENCE) -> Invocation:
    """Verify a token as the issuer's."""
    keys, _ = read_key_set(issuer.jwks())
    return verified(token, trusted=TrustedIssuer(issuer=ISSUER, claims=CLAIMS), keys=keys, audience=audience)


def test_minted_token_with_everything_is_accepted() -> None:
    """What goes in comes out of verification."""
    issuer = make_issuer()

    token = issuer.mint(
        agent="support-agent",
        grant=GRANT,
        user="alice",
        task="ticket-7",
        purpose="support",
        scopes=["b", "a"],
        run="run-7",
        ends_in=600,
        token_lifetime=120,
        ancestors=[make_ancestor()],
        claims={"groups": frozenset({"x", "y"}), "level": 3, "vip": True, "ward": "west"},
    )

    invocation = verified_of(issuer, token)
    assert invocation.run_id == "run-7"
    assert invocation.grade is Grade.RUN
    assert invocation.agent == "support-agent"
    assert invocation.user == "alice"
    assert invocation.task == "ticket-7"
    assert invocation.purpose == "support"
    assert invocation.scopes == {"a", "b"}
    assert invocation.claims == {"groups": {"x", "y"}, "level": 3, "vip": True, "ward": "west"}
    assert invocation.grant == GRANT
    assert [link.run_id for link in invocation.ancestors] == ["run-0"]
    assert (invocation.issued_at, invocation.ends_at, invocation.run_ends_at) == (NOW, NOW + 150, NOW + 600)


def test_minted_token_with_the_least_is_accepted_and_has_no_user() -> None:
    """An agent and a grant are enough."""
    issuer = make_issuer()

    invocation = verified_of(issuer, issuer.mint(agent="support-agent", grant=GRANT))

    assert invocation.user is None
    assert invocation.lifetime == 300
    assert invocation.ends_at == NOW + 300


def test_each_minted_token_names_a_run_and_a_token_of_its_own() -> None:
    """Two runs of one agent are two principals."""
    issuer = make_issuer()

    first, second = (verified_of(issuer, issuer.mint(agent="a", grant=GRANT)) for _ in range(2))

    assert first.run_id != second.run_id
    assert first.token_id != second.token_id


def test_minted_token_for_another_audience_is_accepted_there() -> None:
    """A run's token is for one server."""
    issuer = make_issuer()

    token = issuer.mint(agent="a", grant=GRANT, audience="urn:agentguard:stdio:records")

    assert verified_of(issuer, token, "urn:agentguard:stdio:records").agent == "a"


@pytest.mark.parametrize(
    "options",
    [
        {"grant": ""},
        {"grant": "  "},
        {"grant": "x" * 4097},
        {"agent": ""},
        {"task": ""},
        {"purpose": "p" * 257},
        {"run": "r" * 257},
        {"ends_in": 0},
        {"ends_in": -1},
        {"token_lifetime": 901, "ends_in": 901},
        {"ancestors": [{}]},
        {"ancestors": [make_ancestor(exp=NOW + 299)]},
        {"claims": {"iss": "other"}},
        {"claims": {"grade": "run"}},
        {"claims": {"level": 2**63}},
        {"claims": {"ward": "\ud800"}},
    ],
)
def test_token_that_no_server_would_accept_is_not_minted(options: dict[str, Any]) -> None:
    """Whoever mints it learns of the mistake, not whoever carries it."""
    with pytest.raises(ConfigurationError):
        make_issuer().mint(**{"agent": "a", "grant": GRANT, **options})


def test_given_key_signs_and_its_public_half_is_published() -> None:
    """The key id is the key's own, so it is the same for every issuer object with that key."""
    first, second = (Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, clock=lambda: NOW + 0.9) for _ in range(2))

    assert first.jwks() == second.jwks()
    assert len(read_key_set(first.jwks())[0]) == 1
    assert verified_of(second, first.mint(agent="a", grant=GRANT)).issued_at == NOW


def test_ed25519_key_signs_as_well() -> None:
    """EdDSA, which a server accepts by default."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, key=Ed25519PrivateKey.generate(), clock=lambda: NOW)

    token = issuer.mint(agent="a", grant=GRANT)

    assert jwt.get_unverified_header(token)["alg"] == "EdDSA"
    assert verified_of(issuer, token).agent == "a"


def test_rotated_issuer_signs_with_the_new_key_and_publishes_both() -> None:
    """Its earlier tokens are believed for as long as they last."""
    issuer = make_issuer()
    before = issuer.mint(agent="a", grant=GRANT)

    issuer.rotate(KEY)

    after = issuer.mint(agent="a", grant=GRANT)
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    assert len(read_key_set(issuer.jwks())[0]) == 2
    assert verified_of(issuer, before).agent == verified_of(issuer, after).agent


def test_run_without_a_store_to_end_it_in_is_refused() -> None:
    """Nobody would hear of its end."""
    with pytest.raises(ConfigurationError, match="pass it store=, the one of the guard's state"):
        make_issuer().begin(agent="a", tools=["read"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"user": "a"}, "`user` wants somebody else than the agent, got `a` for both: leave it out"),
        ({"tools": None}, "a run wants tools= or grant=, got neither"),
        ({"scopes": ["a b"]}, "a scope wants text without blanks"),
        ({"ends_in": 0}, "no server would accept this token"),
        ({"ends_in": 1.5}, "`ends_in` wants seconds, a whole number, got `1.5`"),
        ({"claims": {"iss": "x"}}, "`claims` wants claims that mint does not write itself, got `iss`"),
        ({"audience": "", "issuer": None}, "a token is for one server: pass audience= to `run`, or to the issuer"),
    ],
)
def test_run_that_no_server_would_accept_does_not_begin(asked: dict[str, Any], message: str) -> None:
    """And the store hears nothing of it."""
    store = MemoryStore(clock=lambda: NOW)
    audience = None if "issuer" in asked else AUDIENCE
    asked.pop("issuer", None)
    issuer = Issuer(issuer=ISSUER, audience=audience, store=store, clock=lambda: NOW)

    with pytest.raises(ConfigurationError) as refused:
        issuer.begin(**{"agent": "a", "tools": ["read"], **asked})

    assert message in str(refused.value)
    assert store.runs() == ()


def test_token_of_a_run_that_was_ended_is_not_minted() -> None:
    """An issuer that knows of the end does not go on signing."""
    store = MemoryStore(clock=lambda: NOW)
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=store, clock=lambda: NOW)
    assert issuer.mint(agent="a", grant=GRANT, run="run-1")

    store.revoke(issuer=ISSUER, run_id="run-1")

    with pytest.raises(Refusal):
        issuer.mint(agent="a", grant=GRANT, run="run-1")


def test_key_on_another_curve_is_refused() -> None:
    """ES256 and EdDSA are what is minted."""
    with pytest.raises(ConfigurationError, match="P-256"):
        Issuer(issuer=ISSUER, audience=AUDIENCE, key=generate_private_key(SECP384R1()))


def test_token_for_no_server_is_refused() -> None:
    """An issuer without a usual audience needs one at each mint."""
    issuer = Issuer(issuer=ISSUER, key=KEY)

    with pytest.raises(ConfigurationError, match="pass audience= to `mint`, or to the issuer"):
        issuer.mint(agent="a", grant=GRANT)
    assert issuer.mint(agent="a", grant=GRANT, audience=AUDIENCE)


def claims_of(token: str) -> dict[str, object]:
    """Return what a token says."""
    return unverified(token, Limits())[1]


def test_token_says_who_acts_where_client_and_subject_do_not() -> None:
    """For a user, by delegation, or in tokens of a client of another name (RFC 8693 section 4.1)."""
    issuer = storing_issuer()
    alone, held = issuer.begin(agent="a", tools=["read"]), issuer.begin(agent="a", tools=["read"], client="c")
    acting = issuer.begin(agent="a", tools=["read"], user="alice")
    child = alone.begin_child(agent="b", tools=["read"])
    grandchild = child.begin_child(agent="c", tools=["read"], client="d")

    assert "act" not in claims_of(alone.token())
    assert claims_of(held.token())["act"] == {"sub": "a"}
    assert claims_of(acting.token())["act"] == {"sub": "a"}
    assert claims_of(child.token())["act"] == {"sub": "b", "act": {"sub": "a"}}
    assert claims_of(grandchild.token())["act"] == {"sub": "c", "act": {"sub": "b", "act": {"sub": "a"}}}
    assert [run.invocation.agent for run in (alone, held, acting, child, grandchild)] == ["a", "a", "a", "b", "c"]
    assert [run.invocation.client_id for run in (held, child, grandchild)] == ["c", "b", "d"]


@pytest.mark.parametrize("options", [{"client": "alice"}, {"agent": "alice"}, {"agent": "alice", "client": "a"}])
def test_user_that_a_token_would_lose_is_refused(options: dict[str, Any]) -> None:
    """A subject that is the agent or its client stands for nobody."""
    with pytest.raises(ConfigurationError, match="`user` wants somebody else than the agent"):
        storing_issuer().begin(**{"agent": "a", "tools": ["read"], "user": "alice", **options})


@pytest.mark.parametrize("name", ["act", "task", "purp", "scope", "ancestors", "client_id"])
def test_claim_that_means_something_already_is_not_taken(name: str) -> None:
    """Though this token has none of its own."""
    with pytest.raises(ConfigurationError, match=f"claims that mint does not write itself, got `{name}`"):
        make_issuer().mint(agent="a", grant=GRANT, claims={name: "x"})


def test_run_is_taken_up_again_by_its_token() -> None:
    """In another process, with the same key and store: it renews, delegates and ends."""
    first = storing_issuer()
    other = Issuer(issuer=ISSUER, key=KEY, store=first.store, clock=lambda: float(NOW))
    run = first.begin(
        agent="a",
        user="alice",
        task="t",
        purpose="p",
        client="c",
        scopes=["read"],
        tools=["read", "search"],
        arguments={"read": {"id": ["r1"]}},
        claims={"groups": frozenset({"x"}), "level": 3},
        ends_in=600,
    )

    again = other.resume(run.token())

    assert again.facts == run.facts
    assert again.live
    assert verified_of(other, again.renew()).claims == {"groups": {"x"}, "level": 3}
    with pytest.raises(ConfigurationError, match="tools among `read`, `search`, got also `delete`"):
        again.begin_child(agent="b", tools=["delete"])
    child = again.begin_child(agent="b", tools=["search"])
    assert child.facts.ancestors[0]["claims"] == {"groups": ["x"], "level": 3}
    again.end()
    assert not run.live
    assert not child.live
    with pytest.raises(Refusal):
        run.token()


def test_only_a_token_of_the_issuers_own_resumes_a_run() -> None:
    """In time, unless it is to end the run."""
    issuer = storing_issuer()
    others = Issuer(issuer="https://other.example", audience=AUDIENCE, clock=lambda: float(NOW))
    token = issuer.begin(agent="a", tools=["read"], ends_in=1000).token()
    late = Issuer(issuer=ISSUER, key=KEY, store=issuer.store, clock=lambda: NOW + 331.0)

    for text in ("", "nonsense", others.mint(agent="a", grant=GRANT), make_issuer().mint(agent="a", grant=GRANT)):
        for expired in (False, True):
            with pytest.raises(Refusal) as refused:
                issuer.resume(text, expired=expired)
            assert refused.value.reason is Reason.INVALID_TOKEN
    with pytest.raises(Refusal) as refused:
        late.resume(token)
    assert refused.value.reason is Reason.EXPIRED
    assert late.resume(token, expired=True).live
    with pytest.raises(ConfigurationError, match="pass it store="):
        make_issuer().resume(token)


def storing_issuer() -> Issuer:
    """Return an issuer with a store; its clock stands at `NOW`."""
    store = MemoryStore(clock=lambda: float(NOW))
    return Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, store=store, clock=lambda: float(NOW))
