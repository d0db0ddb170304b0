"""What a caller is told of a denial."""

from __future__ import annotations

import pytest

from agentguard import Decision, Effect, Reason
from agentguard.steps.denial import told


def denial(reason: Reason, advice: str | None = None) -> Decision:
    """Return a denial that holds more than the caller may see."""
    return Decision(
        effect=Effect.DENY,
        reason=reason,
        id="ID",
        policy_ids=("secret-policy",),
        policy_version="sha256:secret",
        errors=("secret error",),
        advice=advice,
    )


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.PERMIT])
def test_every_reason_has_constant_words_that_hide_the_policy(reason: Reason) -> None:
    """Each reason of the closed list but the allow has a text, a coarse reason and a retry."""
    words = told(denial(reason))

    assert words.text.endswith(" Decision ID.")
    assert "secret" not in words.text
    assert words.meta.keys() == {"id", "effect", "reason", "retry"}
    assert words.meta["effect"] == "deny"
    assert words.meta["reason"] in {
        "denied", "unauthenticated", "ended", "invalid_argument", "approval", "unavailable"
    }  # fmt: skip
    assert words.meta["retry"] in {"change", "later", "new_run", "approval", "never"}


def test_what_a_caller_must_not_learn_reads_like_any_denial() -> None:
    """A missing record, an unguarded tool and a broken policy are told as a plain denial is."""
    plain = told(denial(Reason.NO_PERMIT))

    for reason in (Reason.MISSING_ENTITY, Reason.UNGUARDED, Reason.POLICY_ERROR, Reason.GRANT):
        assert told(denial(reason)) == plain


def test_advice_is_told() -> None:
    """The deciding policy may speak to the caller."""
    assert told(denial(Reason.POLICY, "At most 500 rows.")).text == (
        "Denied by policy: At most 500 rows. Do not repeat this call unchanged. Decision ID."
    )
    assert told(denial(Reason.APPROVAL_UNAVAILABLE, "Ask Carol.")).text == "Ask Carol. Decision ID."


def test_advice_does_not_stand_where_no_policy_decided() -> None:
    """An end of a run is told as such, whatever a decision carries along."""
    assert "Carol" not in told(denial(Reason.REVOKED, "Ask Carol.")).text


def test_allow_has_no_denial_to_tell() -> None:
    """Asking for the words of an allow is a bug, and says so."""
    with pytest.raises(KeyError):
        told(Decision(effect=Effect.ALLOW, reason=Reason.PERMIT))


@pytest.mark.parametrize(
    ("reason", "retry"),
    [
        (Reason.POLICY, "change"),
        (Reason.INVALID_ARGUMENT, "change"),
        (Reason.UNAUTHENTICATED, "new_run"),
        (Reason.EXPIRED, "new_run"),
        (Reason.REVOKED, "never"),
        (Reason.APPROVAL_UNAVAILABLE, "approval"),
        (Reason.APPROVAL_REQUIRED, "approval"),
        (Reason.APPROVAL_INVALID, "approval"),
        (Reason.APPROVAL_DECLINED, "change"),
        (Reason.EVIDENCE_UNAVAILABLE, "later"),
    ],
)
def test_program_is_told_what_could_help(reason: Reason, retry: str) -> None:
    """Who was revoked is not invited to come back with another run."""
    assert told(denial(reason)).meta["retry"] == retry
