from __future__ import annotations

from typing import Any

import pytest

from agentguard import ConfigurationError, TrustedIssuer
from agentguard.identity.dialects import Dialect, filled
from tests.tokens import FOREIGN, ISSUER, make_foreign_token, refusal_of, verified


def trusting(**options: Any) -> TrustedIssuer:
    """Return an issuer with a dialect of its own."""
    return TrustedIssuer(issuer=ISSUER, mints_runs=False, dialect=Dialect(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_claims": frozenset()}, "`client_claims` wants at least one name"),
        ({"client_claims": "cid"}, "`client_claims` wants a set of strings, got `'cid'`"),
        ({"spaced_claims": {1}}, "`spaced_claims` wants a set of strings"),
        ({"user_claim": ""}, "`user_claim` wants the name of a claim"),
        ({"user_claim": None}, "`user_claim` wants the name of a claim"),
        ({"untyped": "no"}, "`untyped` wants True or False, got `'no'`"),
        ({"wanted": "typ"}, "`wanted` wants patterns by the names of claims"),
        ({"wanted": {"typ": None}}, "`wanted` wants patterns by the names of claims, got `None` for `'typ'`"),
        ({"wanted": {1: ""}}, "`wanted` wants patterns by the names of claims"),
        ({"wanted": {"typ": "("}}, "`wanted` wants patterns by the names of claims, got `'('` for `'typ'`"),
        ({"nobody": {"scp": ""}}, "`nobody` and `somebody` want each other"),
        ({"somebody": {"scp": ".+"}}, "`nobody` and `somebody` want each other"),
    ],
)
def test_dialect_that_could_not_be_read_by_is_refused(options: dict[str, Any], message: str) -> None:
    """A mistake is found when the server is set up, and says what to change."""
    with pytest.raises(ConfigurationError) as caught:
        Dialect(**options)

    assert str(caught.value).startswith(message)


def test_dialect_cannot_be_changed_afterwards() -> None:
    """What was checked is what stays."""
    wanted = {"typ": "Bearer"}
    dialect = Dialect(wanted=wanted, client_claims=["azp"])  # type: ignore[arg-type]

    wanted["typ"] = ".*"

    assert dialect.wanted == {"typ": "Bearer"}
    assert dialect.client_claims == frozenset({"azp"})
    assert hash(dialect) == hash(Dialect(client_claims=frozenset({"azp"})))


def test_id_in_a_pattern_is_only_text() -> None:
    """Neither as a pattern nor as a place for another id."""
    assert filled("{client}@x", client=".*{user}", user="u") == r"\.\*\{user\}@x"
    assert filled("a{2}{user}", client="c", user="a.b") == r"a{2}a\.b"


def test_dialect_of_an_issuer_that_mints_runs_is_refused() -> None:
    """What agentguard mints has one form."""
    with pytest.raises(ConfigurationError, match="`dialect` wants `mints_runs=False`"):
        TrustedIssuer(issuer=ISSUER, dialect=Dialect(untyped=True))


def test_what_is_no_dialect_is_refused() -> None:
    """A name of one is none."""
    with pytest.raises(ConfigurationError, match="`dialect` wants a Dialect, got `'okta'`"):
        TrustedIssuer(issuer=ISSUER, mints_runs=False, dialect="okta")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"other_audiences": "account"}, {"types": {""}}])
def test_options_that_would_admit_more_than_they_say_are_refused(options: dict[str, Any]) -> None:
    """A text is not its letters, and a missing type is admitted by a dialect alone."""
    with pytest.raises(ConfigurationError):
        TrustedIssuer(issuer=ISSUER, **options)


def test_user_claim_names_the_user_without_patterns() -> None:
    """Where it is another than the agent and the client."""
    trusted = trusting(user_claim="uid")

    assert verified(make_foreign_token(uid="u-1"), trusted=trusted).user == "u-1"
    assert verified(make_foreign_token(uid="support-agent"), trusted=trusted).user is None
    assert refusal_of(make_foreign_token(), trusted=trusted)


@pytest.mark.parametrize("kind", ["neither", "both", ["machine"], 7])
def test_token_that_does_not_say_for_whom_it_acts_is_refused(kind: object) -> None:
    """Neither kind, both kinds, or no text."""
    trusted = trusting(nobody={"kind": "machine|both"}, somebody={"kind": "person|both"})

    assert verified(make_foreign_token(kind="machine"), trusted=trusted).user is None
    assert verified(make_foreign_token(kind="person"), trusted=trusted).user == "alice"
    assert refusal_of(make_foreign_token(kind=kind), trusted=trusted)


def test_pattern_wants_the_whole_claim_with_its_line_breaks() -> None:
    """A part that fits is not enough, and a line's end is no end."""
    trusted = trusting(wanted={"kind": "access"})

    assert verified(make_foreign_token(kind="access"), trusted=trusted).agent == "support-agent"
    for kind in ("access\n", "access\nx", "an access", "Access"):
        assert refusal_of(make_foreign_token(kind=kind), trusted=trusted)
    assert refusal_of(make_foreign_token(), trusted=trusted)


def test_pattern_that_wants_a_claim_there_takes_any_text() -> None:
    """Line breaks are text too."""
    trusted = trusting(wanted={"kind": ".+"})

    assert verified(make_foreign_token(kind="a\nb"), trusted=trusted).agent == "support-agent"


def test_set_in_one_text_is_split_only_where_the_dialect_says_so() -> None:
    """A group may have a blank in its name."""
    spaced = Dialect(spaced_claims=frozenset({"facets"}))
    options: dict[str, Any] = {"issuer": ISSUER, "mints_runs": False, "claims": {"facets": frozenset}}
    token = make_foreign_token(facets="3 9 11")

    told = verified(token, trusted=TrustedIssuer(**options, dialect=spaced))

    assert told.claims == {"facets": frozenset({"3", "9", "11"})}
    assert refusal_of(token, trusted=TrustedIssuer(**options))


def test_other_audiences_are_those_that_are_named() -> None:
    """The issuer's own endpoint, and nobody who could pass the token on."""
    trusted = TrustedIssuer(issuer=ISSUER, mints_runs=False, other_audiences=frozenset({"account"}))
    ours = "https://records.example/mcp"

    assert verified(make_foreign_token(aud=[ours, "account"]), trusted=trusted).agent == "support-agent"
    assert verified(make_foreign_token(aud=[ours]), trusted=trusted).agent == "support-agent"
    for audience in ([ours, "account", "other"], ["account"], "account", [ours, "Account"]):
        assert refusal_of(make_foreign_token(aud=audience), trusted=trusted)
    assert refusal_of(make_foreign_token(aud=[ours, "account"]), trusted=FOREIGN)
