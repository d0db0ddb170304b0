"""The log's line for a denial says whose call it was, and what there was against it."""

from __future__ import annotations

import pytest

from agentguard import Decision, Effect, EntityUid, Invocation, Reason
from agentguard.evidence.denied import denied
from agentguard.model import not_there
from agentguard.testing import unsafe_invocation

PARENT = unsafe_invocation("planner", run_id="aaaaaaaaaaaa")
CHILD = unsafe_invocation("reader", run_id="0123456789ab", ancestors=(PARENT,))


def line(reason: Reason, invocation: Invocation | None = CHILD, tool: str | None = "read", **more: object) -> str:
    """Return the line for a denial with this reason."""
    decision = Decision(effect=Effect.DENY, reason=reason, id="01M8", **more)  # type: ignore[arg-type]
    return denied(decision, tool=tool, invocation=invocation)


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (Reason.GRANT, "the run's grant does not permit it"),
        (Reason.NO_PERMIT, "no policy permits it"),
        (Reason.REVOKED, "the run was ended"),
        (Reason.EXPIRED, "the run's time is over"),
        (Reason.INTERNAL_ERROR, "nothing more"),
        (Reason.EVIDENCE_UNAVAILABLE, "the evidence cannot be kept, an error in this log says why"),
    ],
)
def test_reason_without_more_to_say_has_words(reason: Reason, why: str) -> None:
    """With the agent and as much of the run's id as the commands show."""
    assert line(reason, link=1) == f"denied `read` to agent `reader`, run `01234567`, decision 01M8, {reason}: {why}"


def test_errors_go_before_policies() -> None:
    """A policy that failed is more to know than which one it was."""
    assert line(Reason.POLICY, link=1, policy_ids=("a", "b")).endswith(", policy: a, b")
    assert line(Reason.POLICY_ERROR, link=1, policy_ids=("a",), errors=("x", "y")).endswith(", policy_error: x; y")


@pytest.mark.parametrize("reason", [Reason.APPROVAL_UNAVAILABLE, Reason.APPROVAL_DECLINED])
def test_where_nobody_approved_policies_and_errors_are_told(reason: Reason) -> None:
    """Which policy asks for a person is one thing, and why there is none another."""
    assert line(reason, link=1, policy_ids=("a", "b"), errors=("x",)).endswith(f", {reason}: a, b; x")
    assert line(reason, link=1, policy_ids=("a",)).endswith(f", {reason}: a")
    assert line(reason, link=1, errors=("x",)).endswith(f", {reason}: x")
    assert line(reason, link=1).endswith(f", {reason}: nothing more")


def test_question_is_no_denial() -> None:
    """Nothing is denied before the answer."""
    assert line(Reason.APPROVAL_REQUIRED, link=1, policy_ids=("ask",)) == (
        "a person is asked about `read` of agent `reader`, run `01234567`, decision 01M8, approval_required: ask"
    )
    assert line(Reason.APPROVAL_REQUIRED, None, None, policy_ids=("ask",)) == (
        "a person is asked about a call, decision 01M8, approval_required: ask"
    )


def test_link_above_is_named_where_it_was_its_turn() -> None:
    """The child's own grant permits the call; that of the run above it does not."""
    assert line(Reason.GRANT, link=0).endswith(
        ", grant: the run's grant does not permit it, for agent `planner`, run `aaaaaaaa` above it"
    )


def test_scopes_are_named_where_they_alone_are_missing() -> None:
    """Whoever runs the server sees what the client was told, without what its token has."""
    invocation = unsafe_invocation("reader", scopes=frozenset({"a"}))

    assert line(Reason.NO_PERMIT, invocation, scopes=("a", "b", "c")).endswith(
        ", no_permit: no policy permits it; its token lacks `b c`"
    )
    assert line(Reason.NO_PERMIT, invocation).endswith(", no_permit: no policy permits it")


def test_denial_that_is_about_no_link_names_none() -> None:
    """A loader that fails has nothing to do with who delegated."""
    assert line(Reason.MISSING_ENTITY, errors=("gone",)).endswith("missing_entity: gone")


def test_caller_that_is_not_known_is_left_out() -> None:
    """Nor is a name repeated that the caller made up."""
    assert (
        line(Reason.UNAUTHENTICATED, None, None, errors=("why",))
        == "denied a call, decision 01M8, unauthenticated: why"
    )


def test_issuers_alias_stays_before_the_short_id() -> None:
    """Of several issuers' runs, the eight characters are the run's own."""
    invocation = unsafe_invocation("own|reader", run_id="own|0123456789", prefix="own|")

    assert "run `own|01234567`," in line(Reason.REVOKED, invocation)


def test_id_cannot_begin_a_line() -> None:
    """Whoever chooses an agent's name does not write the log."""
    assert "\n" not in line(Reason.REVOKED, unsafe_invocation("x\ndenied `y`"))


def test_entity_that_has_to_be_listed_is_named() -> None:
    """Whoever runs the server has to know which; what nobody could read is cut."""
    user, long = EntityUid("User", "zoe"), EntityUid("User", "x" * 1_000)
    said = line(Reason.MISSING_ENTITY, errors=(not_there(user),), missing=user)

    assert said.endswith('`User::"zoe"` is not there: list it in cedarentities.json, or give its type a loader')
    assert len(line(Reason.MISSING_ENTITY, errors=(not_there(long),), missing=long)) < 500
