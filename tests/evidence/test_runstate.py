"""What runs had done, and which of them a call was denied for, as a decision's record keeps it."""

import json
from typing import Any

import pytest

from agentguard.evidence.record import UNCONFIRMED
from agentguard.evidence.runstate import link_attributes, run_state_attributes
from agentguard.lifecycle.tally import Tally
from agentguard.model import Decision, Effect, Reason
from agentguard.request import run_record
from tests.evidence.invocations import bare, complete

TALLY = Tally(calls=3, started_at=1_000.0, labels=frozenset(("untrusted",)), spent={"payments": 125_000})
DONE: dict[str, Any] = run_record(TALLY, now=1_100.25, totals=("payments",))


def test_what_a_run_had_done_is_kept_as_it_was_judged() -> None:
    """Nothing of runs above it, where there are none."""
    assert run_state_attributes(DONE) == {
        "agentguard.run_state.calls": 3,
        "agentguard.run_state.calls_of_this_tool": 0,
        "agentguard.run_state.denied": 0,
        "agentguard.run_state.labels": ("untrusted",),
        "agentguard.run_state.spent": ("payments=12.5000",),
        "agentguard.run_state.shared": False,
        "agentguard.run_state.started_at": DONE["started_at"]["__extn"]["arg"],
    }


def test_what_the_runs_above_had_done_is_kept_root_first() -> None:
    """As one text, which reads without Cedar."""
    new: dict[str, Any] = run_record(Tally(), now=1_100.25)
    text = run_state_attributes(new, (DONE, new))["agentguard.run_state.above"]

    assert isinstance(text, str)
    assert json.loads(text)[0] == {
        "calls": 3,
        "calls_of_this_tool": 0,
        "denied": 0,
        "labels": ["untrusted"],
        "spent": {"payments": "12.5000"},
        "shared": False,
        "started_at": DONE["started_at"]["__extn"]["arg"],
    }
    assert [one["calls"] for one in json.loads(text)] == [3, 0]


def test_more_than_a_record_should_hold_is_not_kept_at_all() -> None:
    """Half of it would read as the whole."""
    labels = [f"{place:03}{'x' * 250}" for place in range(64)]

    assert "agentguard.run_state.above" not in run_state_attributes(DONE, ({**DONE, "labels": labels}, DONE))
    assert run_state_attributes(None, (DONE,)) == {}


@pytest.mark.parametrize(
    ("reason", "ids", "errors", "kept"),
    [
        (Reason.POLICY, ("budget",), (), True),
        (Reason.NO_PERMIT, (), (), True),
        (Reason.GRANT, (), (), True),
        (Reason.POLICY_ERROR, (), ("it failed",), True),
        (Reason.POLICY_ERROR, (), (UNCONFIRMED,), False),
        (Reason.APPROVAL_REQUIRED, ("ask",), (), True),
        (Reason.APPROVAL_UNAVAILABLE, (), ("nobody",), False),
        (Reason.PERMIT, ("p",), (), False),
        (Reason.REVOKED, (), (), False),
    ],
)
def test_link_is_kept_of_what_is_decided_at_one(
    reason: Reason, ids: tuple[str, ...], errors: tuple[str, ...], kept: bool
) -> None:
    """An allow takes all of them, and what comes before policies is about none."""
    effect = Effect.ALLOW if reason is Reason.PERMIT else Effect.DENY
    decision = Decision(effect=effect, reason=reason, policy_ids=ids, errors=errors, link=1)

    assert link_attributes(decision, complete()) == ({"agentguard.decision.link": 1} if kept else {})
    assert link_attributes(decision, bare()) == {}
    assert link_attributes(decision, None) == {}
