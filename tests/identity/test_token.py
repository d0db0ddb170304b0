from __future__ import annotations

import math
from types import MappingProxyType

import pytest

from agentguard.errors import Refusal
from agentguard.identity.token import TrustedIssuer, UnsafeSharedIdentity, untrusted, verify
from agentguard.limits import Limits
from agentguard.model import Grade, Reason
from tests.tokens import (
    ABSENT,
    AUDIENCE,
    FOREIGN,
    GRANT,
    ISSUER,
    KEY_ID,
    NOW,
    TRUSTED,
    make_ancestor,
    make_claims,
    make_foreign_claims,
    make_foreign_token,
    make_keys,
    make_token,
    refusal_of,
    sign,
    verified,
)


@pytest.mark.parametrize(
    ("issuer", "got"),
    [
        ("urn:agentguard:local", "`urn:agentguard:local`"),
        (f"{ISSUER}/", f"`{ISSUER}` with a slash at its end"),
        ("https://b.example", "`https://b.example` without a slash at its end"),
        ("https://evil.example/\x1b[2J", "another"),
    ],
)
def test_untrusted_issuer_is_told_beside_those_that_are_trusted(issuer: str, got: str) -> None:
    """In the log; and a stranger's text is not."""
    words = untrusted(issuer, [ISSUER, "https://b.example/"])

    assert words == f"the issuer is not trusted: got {got}, trusted is `https://b.example/`, `{ISSUER}`"


def test_complete_token_becomes_the_invocation_that_it_names() -> None:
    """Every claim of the profile lands in its place."""
    token = make_token(
        act={"sub": "helper", "act": {"sub": "planner"}},
        task="ticket-7",
        purp="support",
        scope="read write",
        txn="txn-1",
        run_iat=NOW - 60,
        nbf=NOW,
        vip=True,
        ward="west",
    )
    trusted = TrustedIssuer(issuer=ISSUER, claims={"vip": bool, "ward": str, "level": int})

    invocation = verified(token, trusted=trusted)

    assert invocation.run_id == "run-1"
    assert invocation.issuer == ISSUER
    assert invocation.agent == "helper"
    assert invocation.grade is Grade.RUN
    assert invocation.issued_at == NOW - 60
    assert invocation.ends_at == NOW + 330
    assert invocation.run_ends_at == NOW + 600
    assert invocation.token_id == "token-1"
    assert invocation.client_id == "support-agent"
    assert invocation.subject == "alice"
    assert invocation.user == "alice"
    assert invocation.task == "ticket-7"
    assert invocation.purpose == "support"
    assert invocation.scopes == {"read", "write"}
    assert invocation.claims == {"vip": True, "ward": "west"}
    assert invocation.grant == GRANT
    assert invocation.ancestors == ()
    assert invocation.transaction == "txn-1"


def test_client_is_the_agent_where_no_actor_is_named() -> None:
    """The client acts when nobody acts for it."""
    assert verified(make_token()).agent == "support-agent"


@pytest.mark.parametrize("subject", ["support-agent", "helper"])
def test_subject_that_is_the_agent_or_its_client_is_no_user(subject: str) -> None:
    """A run that acts for itself has no user."""
    assert verified(make_token(sub=subject, act={"sub": "helper"})).user is None


def test_run_end_before_the_token_end_ends_the_authority_without_leeway() -> None:
    """Clocks may differ about a token; a run's end is absolute."""
    assert verified(make_token(run_exp=NOW + 100)).ends_at == NOW + 100


@pytest.mark.parametrize("typ", ["AT+JWT", "application/at+jwt"])
def test_type_of_an_access_token_in_any_case_is_accepted(typ: str) -> None:
    """RFC 9068 compares the type as a media type, without case."""
    assert verified(sign(make_claims(), header={"typ": typ})).run_id == "run-1"


@pytest.mark.parametrize("name", ["azp", "appid"])
def test_client_id_under_another_name_is_accepted(name: str) -> None:
    """Issuers differ in how they spell it."""
    assert verified(make_token(client_id=ABSENT, **{name: "other"})).client_id == "other"


def test_token_id_as_uti_is_accepted() -> None:
    """Entra spells it so."""
    assert verified(make_token(jti=ABSENT, uti="u-1")).token_id == "u-1"


@pytest.mark.parametrize("claims", [{"scp": ["a", "b"]}, {"scp": "a b"}, {"scope": "a b", "scp": ["b", "a"]}])
def test_scopes_in_any_of_their_forms_are_one_set(claims: dict[str, object]) -> None:
    """Text with blanks and a list say the same."""
    assert verified(make_token(**claims)).scopes == {"a", "b"}


def test_single_audience_in_a_list_is_accepted() -> None:
    """RFC 7519 allows both forms."""
    assert verified(make_token(aud=[AUDIENCE])).run_id == "run-1"


def test_several_audiences_are_accepted_where_the_configuration_says_so() -> None:
    """Some issuers always add their own."""
    trusted = TrustedIssuer(issuer=ISSUER, several_audiences=True)

    assert verified(make_token(aud=[AUDIENCE, "other"]), trusted=trusted).run_id == "run-1"


@pytest.mark.parametrize(
    ("audience", "detail"),
    [
        ("other", f"`aud` does not name this server, which is `{AUDIENCE}`"),
        (
            [AUDIENCE, "other"],
            "`aud` names other servers too, which this issuer's configuration does not allow (other_audiences=)",
        ),
    ],
)
def test_log_says_what_the_audience_should_be(audience: object, detail: str) -> None:
    """The server's own name, and the option; never what the token has."""
    with pytest.raises(Refusal) as refused:
        verified(make_token(aud=audience))

    assert refused.value.detail == detail


def test_set_of_strings_as_a_claim_becomes_a_set() -> None:
    """A list is how JSON spells a set."""
    trusted = TrustedIssuer(issuer=ISSUER, claims={"groups": frozenset})

    claims = verified(make_token(groups=["a", "b", "a"]), trusted=trusted).claims

    assert claims == {"groups": frozenset({"a", "b"})}


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": ABSENT},
        {"aud": "https://other.example/mcp"},
        {"aud": ABSENT},
        {"aud": []},
        {"aud": [AUDIENCE, "other"]},
        {"aud": [AUDIENCE, 1]},
        {"aud": {"a": AUDIENCE}},
        {"sub": ABSENT},
        {"sub": 7},
        {"sub": None},
        {"sub": "a" * 257},
        {"client_id": ABSENT},
        {"client_id": ""},
        {"azp": "another"},
        {"jti": ABSENT},
        {"uti": "another"},
        {"exp": ABSENT},
        {"exp": True},
        {"exp": NOW + 0.5},
        {"exp": 2**63},
        {"exp": NOW},
        {"iat": ABSENT},
        {"iat": -1},
        {"iat": NOW + 31, "exp": NOW + 331},
        {"nbf": NOW + 31},
        {"nbf": "0"},
        {"run": ABSENT},
        {"run": ""},
        {"run_exp": ABSENT},
        {"run_exp": NOW},
        {"run_iat": NOW + 1},
        {"cnf": {"jkt": "x"}},
        {"cnf": None},
        {"act": None},
        {"act": {"act": {"sub": "a"}}},
        {"act": {"sub": "a", "act": "b"}},
        {"act": {"sub": "a", "iss": "https://other.example"}},
        {"scope": ["", "a"]},
        {"scope": 7},
        {"scope": "a", "scp": "b"},
        {"purp": "p" * 257},
        {"purp": ""},
        {"task": 7},
        {"txn": ""},
        {"authorization_details": ABSENT},
        {"authorization_details": {}},
        {"authorization_details": []},
        {"authorization_details": ["agentguard_grant"]},
        {"authorization_details": [{"cedar": GRANT}]},
        {"authorization_details": [{"type": "agentguard_grant"}]},
        {"authorization_details": [{"type": "agentguard_grant", "cedar": " "}]},
        {"authorization_details": [{"type": "agentguard_grant", "cedar": 7}]},
        {"authorization_details": [{"type": "agentguard_grant", "cedar": GRANT, "more": 1}]},
        {"authorization_details": [{"type": "agentguard_grant", "cedar": GRANT}] * 2},
        {"authorization_details": [{"type": "other", "cedar": GRANT}]},
        {"authorization_details": [{"type": "agentguard_grant", "cedar": "x" * 4097}]},
    ],
)
def test_claim_outside_the_profile_is_refused(changes: dict[str, object]) -> None:
    """What is not accepted is refused, whatever else the token says."""
    assert refusal_of(make_token(**changes)) is Reason.INVALID_TOKEN


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "ES384"},
        {"alg": ABSENT},
        {"kid": ABSENT},
        {"kid": ""},
        {"kid": 7},
        {"kid": "key-2"},
        {"typ": ABSENT},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": []},
        {"jwk": {}},
        {"crit": ["b64"]},
        {"b64": False},
    ],
)
def test_header_outside_the_profile_is_refused(changes: dict[str, object]) -> None:
    """No header lets the sender choose a key or a way to read the token."""
    assert refusal_of(sign(make_claims(), header=changes)) is Reason.INVALID_TOKEN


def test_algorithm_that_the_key_is_not_for_is_refused() -> None:
    """The allow-list of the issuer does not widen what a key is for."""
    trusted = TrustedIssuer(issuer=ISSUER, algorithms=frozenset({"ES256", "RS256"}))

    assert refusal_of(sign(make_claims(), header={"alg": "RS256"}), trusted=trusted) is Reason.INVALID_TOKEN


def test_signature_of_another_key_is_refused() -> None:
    """The key set's key is the one that counts, whatever the key id says."""
    other = make_keys(key_id="key-2")

    assert refusal_of(sign(make_claims()), keys=other) is Reason.INVALID_TOKEN


def test_payload_that_was_changed_is_refused() -> None:
    """A signature holds for its own payload alone."""
    header, _, signature = make_token().split(".")
    _, payload, _ = make_token(sub="mallory").split(".")

    assert refusal_of(f"{header}.{payload}.{signature}") is Reason.INVALID_TOKEN


@pytest.mark.parametrize("now", [NOW + 330, NOW + 10**6, math.nan, math.inf])
def test_token_whose_time_is_over_is_refused_as_expired(now: float) -> None:
    """The time must be before the end, which it never is when it is no number."""
    reason = refusal_of(make_token(), now=now)

    assert reason is (Reason.INVALID_TOKEN if math.isnan(now) else Reason.EXPIRED)


def test_token_within_the_leeway_after_its_end_is_accepted() -> None:
    """Two clocks may differ by that much."""
    assert verified(make_token(), now=NOW + 329.9).ends_at == NOW + 330


def test_run_that_is_over_is_refused_as_expired() -> None:
    """A run's end has no leeway."""
    assert refusal_of(make_token(run_exp=NOW + 100), now=NOW + 100) is Reason.EXPIRED


def test_leeway_of_the_limits_bounds_that_of_the_issuer() -> None:
    """The smaller of the two holds."""
    limits = Limits(leeway_seconds=5)

    assert verified(make_token(), limits=limits).ends_at == NOW + 305


@pytest.mark.parametrize(
    "claims",
    [{"vip": 1}, {"vip": None}, {"level": True}, {"level": 2**63}, {"level": 1.0}, {"ward": 7}, {"groups": "a"}],
)
def test_mapped_claim_of_another_type_is_refused(claims: dict[str, object]) -> None:
    """A policy must not read a value of a type that the configuration did not declare."""
    trusted = TrustedIssuer(issuer=ISSUER, claims={"vip": bool, "level": int, "ward": str, "groups": frozenset})

    assert refusal_of(make_token(**claims), trusted=trusted) is Reason.INVALID_TOKEN


def test_error_that_nobody_expected_is_refused() -> None:
    """A key set that fails to answer leaves the token unbelieved."""
    with pytest.raises(Refusal) as caught:
        verify(make_token(), {ISSUER: TRUSTED}, {}, AUDIENCE, NOW)

    assert caught.value.reason is Reason.INVALID_TOKEN
    assert caught.value.detail == "verification stopped with KeyError"


def test_foreign_token_becomes_an_identity_of_its_token_id() -> None:
    """Without a run in it, a token is one run, and nothing bounds it but policy."""
    invocation = verified(make_foreign_token(), trusted=FOREIGN)

    assert invocation.run_id == "token-1"
    assert invocation.grade is Grade.TOKEN
    assert invocation.grant is None
    assert invocation.run_ends_at == NOW + 300
    assert invocation.ends_at == NOW + 330


@pytest.mark.parametrize(
    ("path", "claims"),
    [("mission.id", {"mission": {"id": "m-1"}}), ("mission", {"mission": "m-1"})],
)
def test_foreign_claim_that_names_the_run_becomes_the_run(path: str, claims: dict[str, object]) -> None:
    """The configuration says which claim names it."""
    trusted = TrustedIssuer(issuer=ISSUER, mints_runs=False, run_claim=path)

    invocation = verified(make_foreign_token(**claims), trusted=trusted)

    assert (invocation.run_id, invocation.grade) == ("m-1", Grade.RUN)


@pytest.mark.parametrize("claims", [{}, {"mission": {}}])
def test_foreign_token_without_the_claim_that_names_runs_has_the_lower_grade(claims: dict[str, object]) -> None:
    """Policies can tell the two apart by the grade."""
    trusted = TrustedIssuer(issuer=ISSUER, mints_runs=False, run_claim="mission.id")

    assert verified(make_foreign_token(**claims), trusted=trusted).grade is Grade.TOKEN


@pytest.mark.parametrize("mission", ["m-1", None, {"id": 7}, {"id": ""}])
def test_foreign_claim_of_the_wrong_shape_is_refused(mission: object) -> None:
    """A run that is named in a way that cannot be read is not guessed."""
    trusted = TrustedIssuer(issuer=ISSUER, mints_runs=False, run_claim="mission.id")

    assert refusal_of(make_foreign_token(mission=mission), trusted=trusted) is Reason.INVALID_TOKEN


@pytest.mark.parametrize(
    "changes",
    [
        {"ancestors": []},
        {"authorization_details": [{"type": "agentguard_grant", "cedar": GRANT}]},
        {"authorization_details": [{"type": "payment"}, {"type": "agentguard_grant"}]},
        {"authorization_details": "agentguard_grant"},
        {"authorization_details": [{}]},
        {"jti": ABSENT},
    ],
)
def test_foreign_token_that_speaks_of_delegation_or_hides_its_id_is_refused(changes: dict[str, object]) -> None:
    """Who mints no runs has no say in what bounds them."""
    assert refusal_of(make_foreign_token(**changes), trusted=FOREIGN) is Reason.INVALID_TOKEN


def test_foreign_authorization_details_of_other_types_are_ignored() -> None:
    """They are between that issuer and others."""
    assert verified(make_foreign_token(authorization_details=[{"type": "payment"}]), trusted=FOREIGN).grant is None


def test_shared_identity_is_admitted_under_its_own_grade() -> None:
    """It is named by who shares it, not by the token's text."""
    trusted = UnsafeSharedIdentity(issuer=ISSUER)

    first = verified(make_foreign_token(jti=ABSENT), trusted=trusted)
    second = verified(make_foreign_token(jti=ABSENT, iat=NOW - 1), trusted=trusted)

    assert first.grade is Grade.SHARED
    assert first.run_id == second.run_id == 'shared:["support-agent","alice"]'
    assert first.token_id == ""


def test_two_issuers_with_the_same_names_stay_two() -> None:
    """Each id carries its issuer's alias as soon as there are two."""
    corp = TrustedIssuer(issuer=ISSUER, alias="corp")
    other = TrustedIssuer(issuer="https://other.example", alias="other")
    keys = {ISSUER: make_keys(), "https://other.example": make_keys()}
    issuers = {ISSUER: corp, "https://other.example": other}
    parent = make_ancestor(user="bob", task="t-0")

    invocation = verify(make_token(task="t-1", ancestors=[parent]), issuers, keys, AUDIENCE, NOW)

    assert invocation.run_id == "corp|run-1"
    assert invocation.agent == "corp|support-agent"
    assert invocation.user == "corp|alice"
    assert invocation.task == "corp|t-1"
    assert invocation.issuer == ISSUER
    above = invocation.ancestors[0]
    assert (above.run_id, above.agent, above.user, above.task) == ("corp|run-0", "corp|planner", "corp|bob", "corp|t-0")
    assert (invocation.prefix, above.prefix) == ("corp|", "corp|")


def test_issuer_without_alias_beside_another_is_refused() -> None:
    """Its ids could be taken for the other's."""
    other = TrustedIssuer(issuer="https://other.example", alias="other")

    with pytest.raises(Refusal):
        verify(make_token(), {ISSUER: TRUSTED, other.issuer: other}, {ISSUER: make_keys()}, AUDIENCE, NOW)


def test_ancestors_become_the_chain_root_first() -> None:
    """Each link is complete, and knows the links above it."""
    trusted = TrustedIssuer(issuer=ISSUER, claims={"ward": str})
    root = make_ancestor(user="alice", task="t-0", purp="care", scope=["a"], claims={"ward": "west", "other": 1})
    middle = make_ancestor(run="run-m", exp=NOW + 800)

    invocation = verified(make_token(ancestors=[root, middle]), trusted=trusted)

    assert [link.run_id for link in invocation.chain] == ["run-0", "run-m", "run-1"]
    assert invocation.delegation_depth == 2
    first, second = invocation.ancestors
    assert first.ancestors == ()
    assert second.ancestors == (first,)
    assert first.agent == "planner"
    assert first.user == "alice"
    assert first.task == "t-0"
    assert first.purpose == "care"
    assert first.scopes == {"a"}
    assert first.claims == {"ward": "west"}
    assert first.grant == GRANT
    assert first.grade is Grade.RUN
    assert (first.issued_at, first.run_ends_at) == (NOW - 10, NOW + 900)


@pytest.mark.parametrize(
    "ancestors",
    [
        {},
        ["run-0"],
        [make_ancestor(iss="https://other.example")],
        [make_ancestor(grade="token")],
        [make_ancestor(grant=ABSENT)],
        [make_ancestor(grant="")],
        [make_ancestor(grant="x" * 4090)],
        [make_ancestor(more=1)],
        [make_ancestor(run="")],
        [make_ancestor(agent=7)],
        [make_ancestor(scope="a b")],
        [make_ancestor(iat=NOW + 900)],
        [make_ancestor(exp="soon")],
        [make_ancestor(claims=[])],
        [make_ancestor(exp=NOW + 599)],
        [make_ancestor(), make_ancestor(run="run-m", exp=NOW + 901)],
        [make_ancestor(run="run-1")],
        [make_ancestor(), make_ancestor()],
        [make_ancestor(run=f"run-{n}-up") for n in range(5)],
    ],
)
def test_ancestors_outside_the_profile_are_refused(ancestors: object) -> None:
    """A chain that cannot be judged link by link is not judged at all."""
    assert refusal_of(make_token(ancestors=ancestors)) is Reason.INVALID_TOKEN


def test_verification_reads_no_more_than_it_is_given() -> None:
    """The same arguments give an equal identity, and none of them is changed."""
    issuers, keys = MappingProxyType({ISSUER: FOREIGN}), MappingProxyType({ISSUER: make_keys(key_id=KEY_ID)})
    token = sign(make_foreign_claims())

    first, second = (verify(token, issuers, keys, AUDIENCE, NOW) for _ in range(2))

    assert first is not second
    assert (first.run_id, first.ends_at) == (second.run_id, second.ends_at)
