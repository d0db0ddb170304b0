"""The values that pass between the layers."""

from __future__ import annotations

import dataclasses

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard import Decision, Effect, EntityUid, Grade, Invocation, Limits, Reason
from agentguard.model import canonical_json
from agentguard.testing import unsafe_invocation


def test_invocation_cannot_be_built_by_hand() -> None:
    """An identity comes from verification; the message names the way for tests."""
    with pytest.raises(TypeError, match="built by verifying a token: in a test, use agentguard"):
        Invocation(run_id="r", issuer="i", agent="a", grade=Grade.RUN, issued_at=1, ends_at=2.0, run_ends_at=2)


def test_invocation_cannot_be_altered() -> None:
    """Neither assignment nor a copy with changes gives another identity."""
    invocation = unsafe_invocation("a")

    with pytest.raises(dataclasses.FrozenInstanceError):
        invocation.agent = "b"  # type: ignore[misc]
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(invocation, agent="b")


def test_chain_begins_with_the_root() -> None:
    """Every link is there, root first, the run itself last."""
    root = unsafe_invocation("root", run_id="1")
    child = unsafe_invocation("child", run_id="2", ancestors=(root,))

    assert child.chain == (root, child)
    assert child.delegation_depth == 1
    assert root.lifetime == 3600


@settings(deadline=None)
@given(st.text(max_size=20))
def test_written_uid_cannot_be_escaped_out_of(text: str) -> None:
    """Whatever an id holds, Cedar reads the written uid as that one entity."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    uid = EntityUid("Record", text)

    parsed = cedarpy.policies_to_pst(f"permit (principal, action, resource == {uid});")

    (policy,) = parsed.static_policies.values()
    assert isinstance(policy.resource, cedarpy.pst.ScopeEq)
    assert isinstance(policy.resource.entity, cedarpy.pst.EntityUid)
    assert policy.resource.entity.id == text
    assert uid.as_json() == {"type": "Record", "id": text}


def test_decision_is_allowed_only_if_its_effect_is_allow() -> None:
    """No reason makes a denial an allow."""
    assert Decision(effect=Effect.ALLOW, reason=Reason.PERMIT).allowed
    assert not Decision(effect=Effect.DENY, reason=Reason.PERMIT).allowed


def test_canonical_json_refuses_what_json_does_not_have() -> None:
    """NaN has no text that everyone reads alike."""
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_limit_that_is_no_positive_whole_number_is_refused(value: object) -> None:
    """A bound that bounds nothing is a mistake, not a switch."""
    with pytest.raises(ValueError, match="limit `token_bytes` wants a positive whole number"):
        Limits(token_bytes=value)  # type: ignore[arg-type]
